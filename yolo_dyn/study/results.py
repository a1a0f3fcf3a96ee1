"""docs/RESULTS.md, made from the result files of the study alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from yolo_dyn.errors import MissingFileError
from yolo_dyn.looks import SAVED, marked_line
from yolo_dyn.robustness.cells import CLEAN
from yolo_dyn.robustness.results import MEAN
from yolo_dyn.robustness.scores import mean_performance
from yolo_dyn.study.arms import ARMS, BASE
from yolo_dyn.study.classifiers import section
from yolo_dyn.study.significance import Comparison, Scores, compare_seeds, shared

PAIRS = (("sgdm", BASE), ("sgdm", "wide"), ("sgdm", "unguided"), ("wide", BASE), ("unguided", BASE))
Found = dict[str, dict[int, dict[str, Any]]]  # arm -> seed -> what its file holds


def results(source: str = "docs/results", out: str = "docs/RESULTS.md") -> str:
    """Write the page of the study's results from its result files: tables, curves, tests, and what they show.

    Args:
        source: folder of the result files.
        out: page to write; its picture goes beside the result files.

    Returns:
        A line that says where the page is.

    Raises:
        YoloDynError: where there is no result.
    """
    found = read_results(Path(source))
    picture = Path(source) / "curves.png"
    draw(found, picture)
    where = picture.relative_to(Path(out).parent) if picture.is_relative_to(Path(out).parent) else picture
    Path(out).write_text(page(found, str(where), section(Path(source) / "classify")), encoding="utf-8")
    return f"{sum(map(len, found.values()))} results in {out}"


def read_results(source: Path) -> Found:
    """All result files, arms in the order of the study.

    Raises:
        YoloDynError: where there is none.
    """
    files = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(source.glob("*.json"))]
    if not files:
        raise MissingFileError(f"no result in {source}: `yolo-dyn study` makes them")
    by_arm: Found = {arm: {f["seed"]: f for f in files if f["arm"] == arm} for arm in ARMS}
    return {arm: seeds for arm, seeds in by_arm.items() if seeds}


def scores(found: Found, arm: str, metric: str = "AP") -> dict[str, Scores]:
    """Score of each condition (clean, each sigma, and their mean mPC) and seed."""
    conditions: dict[str, Scores] = {}
    for seed, result in found[arm].items():
        cells = {_condition(cell): cell[metric] for cell in result["cells"]}
        mean = mean_performance([value for name, value in cells.items() if name != CLEAN])
        for name, value in {**cells, **({} if mean is None else {MEAN: mean})}.items():
            conditions.setdefault(name, {})[seed] = value
    return conditions


def _condition(cell: dict[str, Any]) -> str:
    return CLEAN if cell["corruption"] == CLEAN else f"sigma {cell['sigma']:g}"


def compared(found: Found, arm: str, to: str) -> dict[str, Comparison]:
    """One arm less another in each condition, over the seeds that both have; empty where they share none."""
    if arm not in found or to not in found:
        return {}
    first, other = scores(found, to), scores(found, arm)
    pairs = {name: shared(first[name], other[name]) for name in other if name in first}
    return {name: compare_seeds(a, b) for name, (a, b) in pairs.items() if a}


def page(found: Found, picture: str, classifiers: str = "") -> str:
    """The page as text."""
    any_arm = next(iter(found))
    conditions = list(scores(found, any_arm))
    sections = [
        "# Does SGDM help under noise?",
        "Made by `yolo-dyn results` from the files in `results/`, one for each arm and seed; each holds the command"
        " that trains it, the hash of its weights, its machine and every score. `make study DATA=bccd/data.yaml` runs"
        " what is missing.",
        "## In short\n\n" + "\n".join(f"- {line}" for line in statements(found)),
        "## AP under noise\n\n" + _setting(found) + "\n\n" + _table(found, conditions),
        f"![AP over sigma]({picture})",
        "## Differences over seeds\n\nMean difference of AP, with the 95 % interval and p of a two-sided paired t-test"
        " over seeds.\n\n" + _tests(found, conditions),
        "## Every seed\n\n" + _seeds(found, conditions),
        "## What this does not show\n\n" + LIMITS,
        *([classifiers] if classifiers else []),
    ]
    return "\n\n".join(sections) + "\n"


LIMITS = """- One small data set (BCCD: 205 training images), one recipe, training from scratch, one size of image.
- Three seeds at most: an interval over seeds is wide, and an effect must be large to leave zero out.
- The same seed gives other weights on another kind of CPU: result files name theirs.
- Gaussian noise alone. A network that is good at noise may be no better at blur, fog or compression.
- The images where the arms differ most: `yolo-dyn compare model=runs/study/yolov8n-seed0/weights/best.pt,` \
`runs/study/sgdm-seed0/weights/best.pt data=bccd/data.yaml split=test imgsz=320` draws them."""


def statements(found: Found) -> list[str]:
    """What the tests say, in words; an effect is claimed only where its interval leaves zero out."""
    lines = []
    questions = (
        ("sgdm", BASE, "Does SGDM change AP?"),
        ("sgdm", "wide", "Is it more than its size?"),
        ("sgdm", "unguided", "Is it the guide?"),
        ("yolov5n-sgdm", "yolov5n", "And in YOLOv5n?"),
        ("yolov8n-noise", BASE, "Does training with noise help?"),
        ("sgdm-noise", "yolov8n-noise", "Does SGDM help there?"),
    )
    for arm, to, question in questions:
        tests = compared(found, arm, to)
        if not tests:
            lines.append(f"**{question}** Not known yet: {arm} and {to} share no seed.")
            continue
        said = "; ".join(f"{label}: {tests[name]}" for name, label in ((CLEAN, "clean"), (MEAN, "under noise (mPC)")))
        lines.append(f"**{question}** {arm} less {to}, {said}. {_verdict(tests[MEAN])}")
    return lines


def _verdict(test: Comparison) -> str:
    if test.low is None or test.high is None:
        return "One seed proves nothing."
    if test.low > 0:
        return "Under noise it does, in this study."
    if test.high < 0:
        return "Under noise it is worse, in this study."
    return "Under noise these seeds do not tell the two apart."


def _setting(found: Found) -> str:
    some = next(iter(next(iter(found.values())).values()))
    versions = some["environment"]
    machines = sorted({f"{f['environment']['processor']}, {f['environment']['cores']} cores" for f in _all(found)})
    return (
        f"BCCD, {some['data']['images']} test images, 60 epochs from scratch at 320 px, batch 16; AP by pycocotools"
        f" (mean over seeds, standard deviation where there are several). P: clean; mPC: mean over sigma 10 to 50;"
        f" rPC = mPC / P. Time: of an image at batch 1, 320 px, beside yolov8n's in turn. An arm with one seed is"
        " to be read beside seed 0 of the others, further down. Machines:"
        f" {'; '.join(machines)}; ultralytics {versions['ultralytics']}, torch {versions['torch']}."
    )


def _all(found: Found) -> list[dict[str, Any]]:
    return [result for seeds in found.values() for result in seeds.values()]


def _table(found: Found, conditions: list[str]) -> str:
    heads = ["arm", "what", "seeds", "parameters", "time", *("P" if c == CLEAN else c for c in conditions), "rPC"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for arm, seeds in found.items():
        by_condition = scores(found, arm)
        some = next(iter(seeds.values()))
        ratio = np.median([result["latency"]["ratio"] for result in seeds.values()])
        kept = np.mean([by_condition[MEAN][seed] / by_condition[CLEAN][seed] for seed in seeds])
        cells = [_spread(by_condition[name]) for name in conditions]
        row = [arm, ARMS[arm].what, str(len(seeds)), f"{some['parameters']:,}", f"{ratio:.2f}", *cells, f"{kept:.2f}"]
        lines.append("| " + " | ".join(row) + " |")
    missing = [arm for arm in ARMS if arm not in found]
    return "\n".join(lines) + (f"\n\nNot run yet: {', '.join(missing)}." if missing else "")


def _spread(values: Scores) -> str:
    listed = list(values.values())
    mean = f"{np.mean(listed):.3f}"
    return mean if len(listed) < 2 else f"{mean} ± {np.std(listed, ddof=1):.3f}"


def _tests(found: Found, conditions: list[str]) -> str:
    lines = ["| | " + " | ".join(conditions) + " |", "|---|" + "---|" * len(conditions)]
    for arm, to in PAIRS:
        tests = compared(found, arm, to)
        if tests:
            lines.append(f"| {arm} less {to} | " + " | ".join(str(tests[name]) for name in conditions) + " |")
    return "\n".join(lines)


def _seeds(found: Found, conditions: list[str]) -> str:
    lines = ["| arm | seed | " + " | ".join(conditions) + " | best epoch | weights |"]
    lines.append("|---|---|" + "---:|" * (len(conditions) + 1) + "---|")
    for arm, seeds in found.items():
        by_condition = scores(found, arm)
        for seed, result in sorted(seeds.items()):
            cells = [f"{by_condition[name][seed]:.3f}" for name in conditions]
            tail = [str(result["training"]["best_epoch"]), f"`{result['weights'][:12]}`"]
            lines.append("| " + " | ".join([arm, str(seed), *cells, *tail]) + " |")
    return "\n".join(lines)


def _sigma(condition: str) -> float:
    return 0.0 if condition == CLEAN else float(condition.split()[1])


def panels(found: Found) -> dict[str, Found]:
    """What the picture shows side by side: arms with several seeds, and the others beside seed 0 of those."""
    several = [arm for arm in ARMS if len(ARMS[arm].seeds) > 1]
    others = [arm for arm in ARMS if arm not in several]
    layers = [arm for arm in others if ARMS[arm].model.startswith(BASE) and not ARMS[arm].noise]
    rest = [arm for arm in others if arm not in layers]

    def seed_0(arms: list[str]) -> Found:
        return {arm: {0: found[arm][0]} for arm in arms if 0 in found.get(arm, {})}

    return {
        "mean and range of several seeds": {arm: found[arm] for arm in several if arm in found},
        "other layers, seed 0": seed_0([BASE, *layers]),
        "YOLOv5n, and training with noise, seed 0": seed_0([BASE, "sgdm", *rest]),
    }


def draw(found: Found, picture: Path) -> None:
    """Draw AP over sigma, a line for each arm and, where it has several seeds, their range."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained", sharey=True)
    for axis, (title, shown) in zip(axes, panels(found).items(), strict=True):
        for number, arm in enumerate(shown):
            by_sigma = {name: list(seeds.values()) for name, seeds in scores(shown, arm).items() if name != MEAN}
            x, y = [_sigma(name) for name in by_sigma], list(by_sigma.values())
            look = marked_line(number)
            axis.plot(x, [np.mean(v) for v in y], label=arm, **look)
            axis.fill_between(x, [min(v) for v in y], [max(v) for v in y], color=look["color"], alpha=0.15, linewidth=0)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("sigma of Gaussian noise (grey levels)", fontsize=9)
        axis.grid(alpha=0.3)
        if shown:
            axis.legend(fontsize=8)
    axes[0].set_ylabel("AP (IoU 0.50 to 0.95)", fontsize=9)
    axes[0].set_ylim(bottom=0)
    figure.savefig(picture, **SAVED)
    plt.close(figure)
