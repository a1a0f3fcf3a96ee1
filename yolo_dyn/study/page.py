"""The page of a study: the paper's figures beside ours, tests over seeds, and what they come to in words."""

import os
import shlex
from pathlib import Path

import numpy as np

from yolo_dyn.errors import YoloDynError
from yolo_dyn.output.outcome import Written
from yolo_dyn.robustness.records import CLEAN, MEAN
from yolo_dyn.runs.seeds import Comparison
from yolo_dyn.study.columns import COLUMNS, COUNTED, SCORED, agrees
from yolo_dyn.study.definition import Study
from yolo_dyn.study.found import Found, RunScores
from yolo_dyn.study.networks import counts
from yolo_dyn.study.picture import draw

DOES_NOT_FOLLOW = "does not follow from what the paper describes"


def write_page(study: Study, source: Path, page: Path) -> Written:
    """Write the page of the result files in a folder; its picture goes beside them.

    Raises:
        YoloDynError: if there is no result, or the page cannot be written.
    """
    found = Found.read(study, source).require(source)
    pictures = [draw(found, source / "curves.png")] if found.records else []
    shown = [Path(os.path.relpath(picture, page.parent)).as_posix() for picture in pictures if picture]
    text = page_text(found, shown, _again(study, source, page), page.parent / "models")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise YoloDynError(f"page={page} cannot be written: {error.strerror}") from error
    return Written((page,), f"{sum(map(len, found.records.values()))} results in {source}, the page is {page}")


def _again(study: Study, source: Path, page: Path) -> str:
    words = {"study": study.source, "source": str(source), "page": str(page)}
    return " ".join(f"{key}={shlex.quote(word)}" for key, word in words.items())


def page_text(found: Found, pictures: list[str], again: str, models: Path) -> str:
    """The page in Markdown."""
    study = found.study
    numbers = {arm: counts(study, arm, models) for arm in study.trained()}
    sections = [
        f"# {study.title}",
        _origin(study, again),
        study.text,
        _section("In short", "\n".join(f"- {line}" for line in statements(found))),
        _section("Figures", f"{_setting(found)}\n\n{_table(found, numbers)}"),
        *(f"![{study.metric}]({picture})" for picture in pictures),
        _section("Under noise", _noise(found)),
        _section("Differences over seeds", _tests(found)),
        _section("Every seed", _seeds(found)),
        _section("Where our counts are not the paper's", "\n".join(differences(study, numbers))),
        _section("Left out, and not run yet", "\n".join(_absent(found))),
        _section("What this does not show", "\n".join(f"- {line}" for line in study.limits)),
    ]
    return "\n\n".join(section.strip() for section in sections if section.strip()) + "\n"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body.strip() else ""


def _origin(study: Study, again: str) -> str:
    paper = f"{study.paper}. " if study.paper else ""
    return (
        f"{paper}Made by `yolo-dyn results {again}` from the result files alone, one for each arm and seed; each holds"
        " the command that trains it, the hash of its weights, its machine and every score."
        f" `yolo-dyn study {study.source} data=...` runs what is missing."
    )


def counted(study: Study, arms: list[str], models: Path) -> str:
    """What needs no training, for a terminal: our counts beside the paper's, and why they differ where they do."""
    columns = [column for column in study.columns if COLUMNS[column].kind == COUNTED]
    if not columns:
        raise YoloDynError(
            f"study {study.name} has no column that needs no training (it has {', '.join(study.columns)})"
        )
    numbers = {arm: counts(study, arm, models) for arm in arms}
    wide = 2 + max(map(len, arms))
    lines = [f"{study.paper or study.title}: ours, and the paper's in brackets", ""]
    lines.append(f"{'':<{wide}}" + "".join(f"{COLUMNS[column].title:>28}" for column in columns))
    for arm in arms:
        cells = "".join(f"{_cell(study, arm, column, numbers[arm].get(column)):>28}" for column in columns)
        lines.append(f"{arm:<{wide}}{cells}")
    return "\n".join([*lines, "", *differences(study, numbers)])


def _cell(study: Study, arm: str, column: str, ours: float | None) -> str:
    """Ours, and the paper's in brackets as it is printed; a share of 1 if the paper has percent."""
    shape = COLUMNS[column]
    printed = study.arms[arm].paper.get(column)
    mine = "-" if ours is None else f"{ours:.{shape.digits}f}"
    if printed is None:
        return mine
    return f"{mine} ({printed if shape.scale == 1 else f'{float(printed) * shape.scale:.{shape.digits}f}'})"


def differences(study: Study, numbers: dict[str, dict[str, float]]) -> list[str]:
    """A line for each count that is not the paper's, beyond its rounding, and why."""
    lines = []
    for arm, found in numbers.items():
        for column, printed in study.arms[arm].paper.items():
            if COLUMNS[column].kind == COUNTED and column in found and not agrees(found[column], column, printed):
                ours = f"{found[column]:.{COLUMNS[column].digits}f}"
                why = study.arms[arm].why.get(column) or study.why.get(column, DOES_NOT_FOLLOW)
                lines.append(f"- {arm}, {COLUMNS[column].title}: ours {ours}, the paper's {printed}: {why}.")
    return lines


def statements(found: Found) -> list[str]:
    """What the tests say, in words; an effect is claimed only if its interval leaves zero out."""
    lines = []
    for question in found.study.questions:
        ask, arm, to = question["ask"], question["arm"], question["to"]
        metric = found.study.metric
        noisy = {CLEAN: "clean", MEAN: "under noise (mPC)"}
        columns = noisy if found.study.sigmas else {metric: COLUMNS[metric].title}
        tests = {label: found.compared(arm, to, column) for column, label in columns.items()}
        last = list(tests.values())[-1]
        if last is None:
            lines.append(f"**{ask}** Not known yet: {arm} and {to} share no seed that was trained alike.")
            continue
        measured = "; ".join(f"{label}: {test}" for label, test in tests.items())
        lines.append(f"**{ask}** {arm} less {to}, {measured}. {_verdict(last, found.study)}")
    return lines


def _verdict(test: Comparison, study: Study) -> str:
    place = "Under noise" if study.sigmas else "Here"
    if test.low is None or test.high is None:
        return "One seed proves nothing." if len(test.seeds) < 2 else "All seeds agree: there is nothing to test."
    if test.low > 0:
        return f"{place} it does, in this study."
    if test.high < 0:
        return f"{place} it is worse, in this study."
    return f"{place} these seeds do not tell the two apart."


def _setting(found: Found) -> str:
    study = found.study
    if not found.records:
        return "Nothing is trained yet; the paper's figures are in brackets."
    some = next(iter(next(iter(found.records.values())).values()))
    images = some.data.get("images")
    lines = [f"`{some.command}`, and so on for each arm and seed."]
    lines.append("Mean over seeds, and the standard deviation if there are several.")
    if study.paper:
        lines.append("The paper's figures are in brackets.")
    if images:
        lines.append(f"AP by pycocotools on {images} images of the split {study.split}.")
    if study.task == "classify":
        lines.append("Top-1 and top-5 of the best epoch.")
    if study.sigmas:
        lines.append("mPC: mean AP over the sigmas of Gaussian noise; rPC = mPC / AP.")
    for times in (found.timing.image, found.timing.epoch):
        if times:
            lines.append(f"Time: {times.what} (`yolo-dyn study {study.source} seconds=True`).")
    return " ".join([*lines, f"Trained on {'; '.join(found.machines)}."])


def _table(found: Found, numbers: dict[str, dict[str, float]]) -> str:
    study = found.study
    heads = ["arm", "what", "seeds", *(COLUMNS[column].title for column in study.columns)]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for name, arm in study.arms.items():
        cells = [_figure(found, name, column, numbers.get(name, {})) for column in study.columns]
        lines.append(f"| {' | '.join([name, arm.what, str(len(found.records.get(name, {}))), *cells])} |")
    return "\n".join(lines)


def _figure(found: Found, arm: str, column: str, numbers: dict[str, float]) -> str:
    if COLUMNS[column].kind == SCORED:
        values = found.scores(arm, column)
        if len(values) > 1:
            deviation = f" ± {np.std(list(values.values()), ddof=1):.{COLUMNS[column].digits}f}"
            mean, *printed = _cell(found.study, arm, column, _mean(values)).split(" ", 1)
            return " ".join([mean + deviation, *printed])
        return _cell(found.study, arm, column, _mean(values))
    ours = numbers.get(column) if COLUMNS[column].kind == COUNTED else found.timed(arm, column)
    return _cell(found.study, arm, column, ours)


def _mean(values: RunScores) -> float | None:
    return float(np.mean(list(values.values()))) if values else None


def _noise(found: Found) -> str:
    """AP of each arm under each condition."""
    if not found.study.sigmas or not found.records:
        return ""
    lines = [f"| arm | seeds | {' | '.join(found.conditions)} |", "|---|---:|" + "---:|" * len(found.conditions)]
    for arm, seeds in found.records.items():
        cells = [_spread(found.scores(arm, condition)) for condition in found.conditions]
        lines.append(f"| {arm} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: RunScores) -> str:
    listed = list(values.values())
    mean = f"{np.mean(listed):.3f}"
    return mean if len(listed) < 2 else f"{mean} ± {np.std(listed, ddof=1):.3f}"


def _tests(found: Found) -> str:
    """Each arm less what it is compared with."""
    study = found.study
    columns = found.conditions if study.sigmas else [c for c in study.columns if COLUMNS[c].kind == SCORED]
    pairs = [(q["arm"], q["to"]) for q in study.questions] + [(arm, study.compared_to(arm)) for arm in study.arms]
    lines = []
    for arm, to in dict.fromkeys(pair for pair in pairs if pair[1]):
        tests = [found.compared(arm, to, column) for column in columns]
        if any(tests):
            lines.append(f"| {arm} less {to} | {' | '.join('' if t is None else str(t) for t in tests)} |")
    if not lines:
        return ""
    intro = (
        "Mean difference, with the 95 % interval and p of a two-sided paired t-test over the seeds that both arms were"
        " trained with alike: by the same versions, on the same kind of processor."
    )
    titles = [COLUMNS[c].title if c in COLUMNS else c for c in columns]
    return "\n".join([intro, "", f"| | {' | '.join(titles)} |", "|---|" + "---|" * len(columns), *lines])


def _seeds(found: Found) -> str:
    """A row for each training; machines have letters if there are several."""
    if not found.records:
        return ""
    columns = found.conditions if found.study.sigmas else [c for c in found.study.columns if COLUMNS[c].kind == SCORED]
    letters = dict(zip(found.machines, "abcdefghijklmnopqrstuvwxyz", strict=False))
    lines = [f"| arm | seed | machine | {' | '.join(columns)} | best epoch | weights |"]
    lines.append("|---|---|---|" + "---:|" * (len(columns) + 1) + "---|")
    for arm, runs in found.records.items():
        by_column = [found.scores(arm, column) for column in columns]
        for run, record in sorted(runs.items()):
            cells = [f"{scores[run]:.3f}" if run in scores else "" for scores in by_column]
            tail = [str(record.training.best_epoch), f"`{record.weights[:12]}`"]
            lines.append(f"| {' | '.join([arm, str(run.seed), letters.get(run.machine, ''), *cells, *tail])} |")
    return "\n".join([*lines, "", *(f"{letter}: {machine}." for machine, letter in letters.items())])


def _absent(found: Found) -> list[str]:
    study = found.study
    lines = [f"- {name}: {arm.left_out}." for name, arm in study.arms.items() if arm.left_out]
    there = {arm: {run.seed for run in runs} for arm, runs in found.records.items()}
    missing = {arm: [s for s in study.seeds_of(arm) if s not in there.get(arm, ())] for arm in study.trained()}
    absent = [f"{arm} (seeds {', '.join(map(str, seeds))})" for arm, seeds in missing.items() if seeds]
    return [*lines, f"- Not run yet: {'; '.join(absent)}."] if absent else lines
