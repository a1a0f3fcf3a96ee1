"""The picture of a study: AP over noise if it has noise, else each arm's score beside the paper's."""

from pathlib import Path
from typing import Any

import numpy as np

from yolo_dyn.output.style import BLUE, VERMILLION, marked_line, save, verbatim
from yolo_dyn.robustness.records import CLEAN, MEAN
from yolo_dyn.study.columns import COLUMNS
from yolo_dyn.study.records import Timing
from yolo_dyn.study.results import StudyResults


@verbatim
def draw(results: StudyResults, picture: Path) -> Path | None:
    """Draw the study's picture; None if nothing is measured yet that it shows."""
    figure = _over_noise(results) if results.study.sigmas else _beside_the_paper(results)
    if figure is None:
        return None
    save(figure, picture)
    return picture


def panels(results: StudyResults) -> dict[str, StudyResults]:
    """What the picture shows side by side: the study's panels, or everything in one."""
    all_panels = results.study.panels or {results.study.title: {"arms": list(results.study.arms)}}
    shown = {}
    for title, panel in all_panels.items():
        kept = {arm: results.records.get(arm, {}) for arm in panel["arms"]}
        if "seeds" in panel:
            kept = {arm: {k: r for k, r in runs.items() if k.seed in panel["seeds"]} for arm, runs in kept.items()}
        shown[title] = StudyResults(results.study, {arm: runs for arm, runs in kept.items() if runs}, Timing())
    return shown


def _over_noise(results: StudyResults) -> Any:
    """A line for each arm, its mean over seeds, and their range."""
    import matplotlib.pyplot as plt

    sides = panels(results)
    figure, axes = plt.subplots(
        1, len(sides), figsize=(1 + 4.4 * len(sides), 4.6), layout="constrained", sharey=True, squeeze=False
    )
    for axis, (title, shown) in zip(axes[0], sides.items(), strict=True):
        for number, arm in enumerate(shown.records):
            names = [name for name in shown.conditions if name != MEAN]
            x = [0.0 if name == CLEAN else float(name.split()[1]) for name in names]
            y = [list(shown.scores(arm, name).values()) for name in names]
            look = marked_line(number)
            axis.plot(x, [np.mean(v) for v in y], label=arm, **look)
            axis.fill_between(x, [min(v) for v in y], [max(v) for v in y], color=look["color"], alpha=0.15, linewidth=0)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("sigma of Gaussian noise (grey levels)", fontsize=9)
        axis.grid(alpha=0.3)
        if shown.records:
            axis.legend(fontsize=8)
    axes[0][0].set_ylabel("AP (IoU 0.50 to 0.95)", fontsize=9)
    axes[0][0].set_ylim(bottom=0)
    return figure


def _beside_the_paper(results: StudyResults) -> Any:
    """A row for each arm: our seeds and their mean, and the paper's figure."""
    import matplotlib.pyplot as plt

    study, column = results.study, COLUMNS[results.study.metric]
    arms = [name for name in study.arms if results.scores(name, study.metric)]
    if not arms:
        return None
    figure, axis = plt.subplots(figsize=(8, 1.4 + 0.36 * len(arms)), layout="constrained")
    for row, name in enumerate(arms):
        values = list(results.scores(name, study.metric).values())
        axis.plot(values, [row] * len(values), "o", color=BLUE, alpha=0.4, label="" if row else "ours, each seed")
        axis.plot(np.mean(values), row, "|", color=BLUE, markersize=16, mew=2.5, label="" if row else "ours, mean")
    printed = [
        (float(p) * column.scale, row)
        for row, name in enumerate(arms)
        if (p := study.arms[name].paper.get(study.metric))
    ]
    if printed:
        axis.plot(*zip(*printed, strict=True), "D", color=VERMILLION, mfc="none", label="the paper's")
    axis.set_yticks(range(len(arms)), arms, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel(column.title, fontsize=9)
    axis.set_title(study.paper or study.title, fontsize=10)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure
