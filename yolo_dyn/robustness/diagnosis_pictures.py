"""Pictures of what goes wrong: types of errors, precision over recall and reliability, a panel for each model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from yolo_dyn.output.style import COLOURS, MARKERS, STYLES, save, verbatim
from yolo_dyn.robustness.corruptions import SIGMA
from yolo_dyn.robustness.error_types import SHOWN
from yolo_dyn.robustness.records import CLEAN, CellRecord, Condition
from yolo_dyn.robustness.reliability import FEWEST, LEAST_SCORE
from yolo_dyn.robustness.results import Sweep
from yolo_dyn.robustness.scores import RECALLS

HATCHES = ("", "//", "..", "\\\\", "xx", "--")  # say once more what the colours of SHOWN say
Panel = Callable[[Any, list[CellRecord]], None]  # fills with a model's cells of one corruption, the clean one first


def draw(sweep: Sweep, ending: str = "png") -> None:
    """Draw all of them into the sweep's folder, each named as in `PICTURES`."""
    for name, picture in PICTURES.items():
        picture(sweep, sweep.folder / f"{name}.{ending}")


@verbatim
def draw_errors(sweep: Sweep, path: Path) -> None:
    """Draw the AP50 that each type of error costs, stacked, over the strength of each corruption."""
    figure, axes = _panels(sweep, _stack, sharey=True)
    for line in axes:
        of = "" if sweep.scoring.objects == "boxes" else f" of {sweep.scoring.errors_of}\n"
        line[0].set_ylabel(f"AP50{of or ' '}gained by correcting\none type alone, summed up", fontsize=8)
    _finish(figure, axes, sweep, path, legend=True)


@verbatim
def draw_precision(sweep: Sweep, path: Path) -> None:
    """Draw precision over recall at IoU 0.5 for each strength."""
    figure, axes = _panels(sweep, _curves)
    for axis in axes.flat:
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.set_xlabel("recall", fontsize=8)
        axis.set_ylabel(f"precision at {sweep.scoring.similarity} 0.50", fontsize=8)
    _finish(figure, axes, sweep, path)


@verbatim
def draw_reliability(sweep: Sweep, path: Path) -> None:
    """Draw the share of hits over the score for each strength: a reliability diagram."""
    figure, axes = _panels(sweep, _rates)
    for axis in axes.flat:
        axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, zorder=0)
        axis.set(xlim=(LEAST_SCORE, 1), ylim=(0, 1.02))
        axis.set_xlabel("score", fontsize=8)
        axis.set_ylabel("share of hits at IoU 0.50", fontsize=8)
    _finish(figure, axes, sweep, path)


def _panels(sweep: Sweep, fill: Panel, sharey: bool = False) -> tuple[Any, np.ndarray]:
    """A row of panels for each corruption, a column for each model."""
    import matplotlib.pyplot as plt

    conditions = [record.condition for record in sweep.records]
    corruptions = list(dict.fromkeys(c.corruption for c in conditions if not c.clean)) or [CLEAN]
    rows, columns = len(corruptions), len(sweep.models)
    size = (max(4.6, 3.6 * columns), 3.0 * rows + 0.7)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", sharey=sharey)
    for corruption, line in zip(corruptions, axes, strict=True):
        for model, axis in zip(sweep.models, line, strict=True):
            records = [r for r in sweep.records if r.model == model and r.condition.corruption in (CLEAN, corruption)]
            axis.set_title(model if corruption == CLEAN else f"{model}, {_title(corruption, records)}", fontsize=8)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
            fill(axis, records)
    return figure, axes


def _finish(figure: Any, axes: np.ndarray, sweep: Sweep, path: Path, legend: bool = False) -> None:
    for axis in axes.flat:
        if not axis.has_data():
            axis.text(0.5, 0.5, "nothing to show", transform=axis.transAxes, ha="center", fontsize=8)
    shown = next((axis.get_legend_handles_labels() for axis in axes.flat if axis.get_legend_handles_labels()[0]), None)
    if legend and shown:  # its title stands for that of the picture, which would lie under it
        figure.legend(*shown, loc="outside upper center", ncols=3, fontsize=8, title=sweep.title, title_fontsize=9)
    else:
        figure.suptitle(sweep.title, fontsize=9)
    save(figure, path)


def _title(corruption: str, records: list[CellRecord]) -> str:
    if any(record.condition.severity for record in records):
        return f"{corruption.replace('_', ' ')} by severity"
    return f"{corruption.replace('_', ' ')} by sigma ({SIGMA.unit})"


def _strength(condition: Condition) -> str:
    return CLEAN if condition.clean else f"{condition.severity or condition.strength:g}"


def _stack(axis: Any, records: list[CellRecord]) -> None:
    told = [(r.condition, r.diagnosis.errors) for r in records if r.diagnosis and r.diagnosis.errors]
    bottom = np.zeros(len(told))
    for name, colour, hatch in zip(SHOWN, COLOURS, HATCHES, strict=False):
        heights = np.array([errors.gains[name] for _, errors in told])
        look = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
        if told:
            axis.bar(range(len(told)), heights, bottom=bottom, label=name, width=0.8, **look)
        bottom += heights
    axis.set_xticks(range(len(told)), [_strength(condition) for condition, _ in told])
    axis.set_xlim(-0.6, max(len(told), 4) - 0.4)  # a bar alone is no wider than one of four


def _curves(axis: Any, records: list[CellRecord]) -> None:
    told = [(r.condition, r.diagnosis.precision) for r in records if r.diagnosis and r.diagnosis.precision]
    for number, (condition, precision) in enumerate(told):
        label = f"{_strength(condition)}: AP50 {np.mean(precision):.3f}"
        axis.plot(RECALLS, precision, label=label, **_look(number, len(told)))
    if told:
        axis.legend(fontsize=6.5)


def _rates(axis: Any, records: list[CellRecord]) -> None:
    told = [(r.condition, r.diagnosis.reliability) for r in records if r.diagnosis and r.diagnosis.reliability]
    for number, (condition, rated) in enumerate(told):
        error = "-" if rated.dece is None else f"{rated.dece:.3f}"
        enough = [each for each in rated.bins if each.detections >= FEWEST]
        x, y = [each.confidence for each in enough], [each.precision for each in enough]
        look = {"marker": MARKERS[number % len(MARKERS)], "markersize": 3, **_look(number, len(told))}
        axis.plot(x, y, label=f"{_strength(condition)}: D-ECE {error}", **look)
    if told:
        axis.legend(fontsize=6.5)


def _look(number: int, count: int) -> dict[str, Any]:
    """Colour and style of a strength's line: the stronger, the lighter."""
    import matplotlib

    colour = matplotlib.colormaps["viridis"](0.9 * number / max(1, count - 1))
    return {"color": colour, "linestyle": STYLES[number % len(STYLES)], "linewidth": 1.3}


PICTURES = {"errors": draw_errors, "precision": draw_precision, "reliability": draw_reliability}
