"""The page of a study: the paper's figures beside ours, tests over seeds, and what they come to in words."""

import os
import shlex
from pathlib import Path

import numpy as np

from yolo_dyn.errors import YoloDynError
from yolo_dyn.output.files import write_text
from yolo_dyn.output.outcome import Written
from yolo_dyn.robustness.records import CLEAN, MEAN
from yolo_dyn.runs.seeds import Comparison
from yolo_dyn.study.columns import COLUMNS, COUNTED, SCORED, agrees
from yolo_dyn.study.definition import Study
from yolo_dyn.study.networks import counts
from yolo_dyn.study.picture import draw
from yolo_dyn.study.results import SeedScores, StudyResults

DOES_NOT_FOLLOW = "does not follow from what the paper describes"


def write_page(study: Study, source: Path, page: Path) -> Written:
    """Write the page of the result files in a folder; its picture goes beside them.

    Raises:
        YoloDynError: if there is no result, or the page cannot be written.
    """
    results = StudyResults.read(study, source).require(source)
    pictures = [draw(results, source / "curves.png")] if results.records else []
    shown = [Path(os.path.relpath(picture, page.parent)).as_posix() for picture in pictures if picture]
    text = page_text(results, shown, _again(study, source, page), page.parent / "models")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise YoloDynError(f"page={page} cannot be written: {error.strerror}") from error
    write_text(page, text, "page")
    return Written((page,), f"{sum(map(len, results.records.values()))} results in {source}, the page is {page}")


def _again(study: Study, source: Path, page: Path) -> str:
    words = {"study": study.source, "source": str(source), "page": str(page)}
    return " ".join(f"{key}={shlex.quote(word)}" for key, word in words.items())


def page_text(results: StudyResults, pictures: list[str], again: str, models: Path) -> str:
    """The page in Markdown."""
    study = results.study
    numbers = {arm: counts(study, arm, models) for arm in study.trained()}
    sections = [
        f"# {study.title}",
        _origin(study, again),
        study.text,
        _section("In short", "\n".join(f"- {line}" for line in statements(results))),
        _section("Figures", f"{_setting(results)}\n\n{_table(results, numbers)}"),
        *(f"![{study.metric}]({picture})" for picture in pictures),
        _section("Under noise", _noise(results)),
        _section("Differences over seeds", _tests(results)),
        _section("Every seed", _seeds(results)),
        _section("Where our counts are not the paper's", "\n".join(differences(study, numbers))),
        _section("Left out, and not run yet", "\n".join(_absent(results))),
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


def statements(results: StudyResults) -> list[str]:
    """What the tests say, in words; an effect is claimed only if its interval leaves zero out."""
    lines = []
    for question in results.study.questions:
        ask, arm, to = question["ask"], question["arm"], question["to"]
        metric = results.study.metric
        noisy = {CLEAN: "clean", MEAN: "under noise (mPC)"}
        columns = noisy if results.study.sigmas else {metric: COLUMNS[metric].title}
        tests = {label: results.compared(arm, to, column) for column, label in columns.items()}
        last = list(tests.values())[-1]
        if last is None:
            lines.append(f"**{ask}** Not known yet: {arm} and {to} share no seed that was trained alike.")
            continue
        measured = "; ".join(f"{label}: {test}" for label, test in tests.items())
        lines.append(f"**{ask}** {arm} less {to}, {measured}. {_verdict(last, results.study)}")
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


def _setting(results: StudyResults) -> str:
    study = results.study
    if not results.records:
        return "Nothing is trained yet; the paper's figures are in brackets."
    some = next(iter(next(iter(results.records.values())).values()))
    images = some.data.get("images")
    lines = [f"`{some.command}`, and so on for each arm and seed."]
    lines.append("Mean over seeds, and the standard deviation if there are several.")
    lines.append("A seed that was trained on several machines counts once, by its mean.")
    if study.paper:
        lines.append("The paper's figures are in brackets.")
    if images:
        lines.append(f"AP by pycocotools on {images} images of the split {study.split}.")
    if study.task == "classify":
        lines.append("Top-1 and top-5 of the best epoch.")
    if study.sigmas:
        lines.append("mPC: mean AP over the sigmas of Gaussian noise; rPC = mPC / AP.")
    for times in (results.timing.image, results.timing.epoch):
        if times:
            lines.append(f"Time: {times.what} (`yolo-dyn study {study.source} seconds=True`).")
    return " ".join([*lines, f"Trained on {'; '.join(results.machines)}."])


def _table(results: StudyResults, numbers: dict[str, dict[str, float]]) -> str:
    study = results.study
    heads = ["arm", "what", "seeds", *(COLUMNS[column].title for column in study.columns)]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for name, arm in study.arms.items():
        cells = [_figure(results, name, column, numbers.get(name, {})) for column in study.columns]
        lines.append(f"| {' | '.join([name, arm.what, str(_seed_count(results, name)), *cells])} |")
    return "\n".join(lines)


def _figure(results: StudyResults, arm: str, column: str, numbers: dict[str, float]) -> str:
    if COLUMNS[column].kind == SCORED:
        values = results.scores(arm, column)
        if len(values) > 1:
            deviation = f" ± {np.std(list(values.values()), ddof=1):.{COLUMNS[column].digits}f}"
            mean, *printed = _cell(results.study, arm, column, _mean(values)).split(" ", 1)
            return " ".join([mean + deviation, *printed])
        return _cell(results.study, arm, column, _mean(values))
    ours = numbers.get(column) if COLUMNS[column].kind == COUNTED else results.timed(arm, column)
    return _cell(results.study, arm, column, ours)


def _mean(values: SeedScores) -> float | None:
    return float(np.mean(list(values.values()))) if values else None


def _noise(results: StudyResults) -> str:
    """AP of each arm under each condition."""
    if not results.study.sigmas or not results.records:
        return ""
    lines = [f"| arm | seeds | {' | '.join(results.conditions)} |", "|---|---:|" + "---:|" * len(results.conditions)]
    for arm in results.records:
        cells = [_spread(results.scores(arm, condition)) for condition in results.conditions]
        lines.append(f"| {arm} | {_seed_count(results, arm)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _seed_count(results: StudyResults, arm: str) -> int:
    return len({run.seed for run in results.records.get(arm, {})})


def _spread(values: SeedScores) -> str:
    listed = list(values.values())
    mean = f"{np.mean(listed):.3f}"
    return mean if len(listed) < 2 else f"{mean} ± {np.std(listed, ddof=1):.3f}"


def _tests(results: StudyResults) -> str:
    """Each arm less what it is compared with."""
    study = results.study
    columns = results.conditions if study.sigmas else [c for c in study.columns if COLUMNS[c].kind == SCORED]
    pairs = [(q["arm"], q["to"]) for q in study.questions] + [(arm, study.compared_to(arm)) for arm in study.arms]
    lines = []
    for arm, to in dict.fromkeys(pair for pair in pairs if pair[1]):
        tests = [results.compared(arm, to, column) for column in columns]
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


def _seeds(results: StudyResults) -> str:
    """A row for each training; machines have letters if there are several."""
    if not results.records:
        return ""
    columns = (
        results.conditions if results.study.sigmas else [c for c in results.study.columns if COLUMNS[c].kind == SCORED]
    )
    letters = dict(zip(results.machines, "abcdefghijklmnopqrstuvwxyz", strict=False))
    lines = [f"| arm | seed | machine | {' | '.join(columns)} | best epoch | weights |"]
    lines.append("|---|---|---|" + "---:|" * (len(columns) + 1) + "---|")
    for arm, runs in results.records.items():
        by_column = [results.runs(arm, column) for column in columns]
        for run, record in sorted(runs.items()):
            cells = [f"{scores[run]:.3f}" if run in scores else "" for scores in by_column]
            tail = [str(record.training.best_epoch), f"`{record.weights[:12]}`"]
            lines.append(f"| {' | '.join([arm, str(run.seed), letters.get(run.machine, ''), *cells, *tail])} |")
    return "\n".join([*lines, "", *(f"{letter}: {machine}." for machine, letter in letters.items())])


def _absent(results: StudyResults) -> list[str]:
    study = results.study
    lines = [f"- {name}: {arm.left_out}." for name, arm in study.arms.items() if arm.left_out]
    there = {arm: {run.seed for run in runs} for arm, runs in results.records.items()}
    missing = {arm: [s for s in study.seeds_of(arm) if s not in there.get(arm, ())] for arm in study.trained()}
    absent = [f"{arm} (seeds {', '.join(map(str, seeds))})" for arm, seeds in missing.items() if seeds]
    return [*lines, f"- Not run yet: {'; '.join(absent)}."] if absent else lines
