"""Pictures of a sweep: curves of AP over strength, and a grid of the same noisy pixels with every model's boxes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolo_dyn.data.images import EvaluationSet, read_image
from yolo_dyn.data.tasks import BOXES, ObjectKind
from yolo_dyn.output.style import BLUE, VERMILLION, YELLOW, marked_line, panel_height, save, verbatim
from yolo_dyn.robustness import cells as store
from yolo_dyn.robustness.cells import Cell
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.corruptions import SIGMA
from yolo_dyn.robustness.fronts import find_front
from yolo_dyn.robustness.objects import found_outline, framed, similarity, true_outline
from yolo_dyn.robustness.objects import ignored as ignored_object
from yolo_dyn.robustness.records import CLEAN, Condition
from yolo_dyn.robustness.results import Sweep

MATCH = 0.5  # least similarity of a hit
FALSE_ALARM, IGNORED = -1, -2  # in the place of the number of the object that a detection finds
ROWS = 12  # of a grid, about as many as there may be: a picture of twice as many takes 40 MB
NAMED = 25  # detections of a panel: the names of more would hide the picture, and take seconds to draw


@dataclass(frozen=True)
class Judged:
    """Detections of one image against its objects."""

    found: np.ndarray  # [n, 7]
    hit: np.ndarray  # bool [n]
    ignored: np.ndarray  # bool [n], on a crowd or a difficult object
    match: np.ndarray  # int [n], the object that is found; FALSE_ALARM, or IGNORED
    missed: list[dict[str, Any]]  # objects nobody found
    shapes: np.ndarray | None = None  # what the detections have beside their boxes

    @property
    def balance(self) -> int:
        """Hits less false alarms."""
        return int(self.hit.sum() - (~self.hit & ~self.ignored).sum())


def judge(
    found: np.ndarray,
    objects: list[dict[str, Any]],
    kind: ObjectKind = BOXES,
    shapes: np.ndarray | None = None,
    size: tuple[int, int] = (0, 0),
) -> Judged:
    """Match detections of an image to objects of their class, best score first, each object once.

    Args:
        found: detections, ``[n, 7]``.
        objects: annotations in COCO's format.
        kind: of the objects.
        shapes: what the detections have beside their boxes, see `objects`.
        size: height and width of the image, which masks need.
    """
    order = np.argsort(-found[:, 5], kind="mergesort")
    found, shapes = found[order], None if shapes is None else shapes[order]
    hit, ignored, taken = (np.zeros(n, bool) for n in (len(found), len(found), len(objects)))
    match = np.full(len(found), FALSE_ALARM)
    crowd = [ignored_object(kind, o) for o in objects]
    overlap = similarity(kind, found[:, 1:5], shapes, objects, size)
    for i, row in enumerate(found):
        fitting = [j for j, o in enumerate(objects) if o["category_id"] == row[6] and (crowd[j] or not taken[j])]
        candidates = [(not crowd[j], overlap[i][j], j) for j in fitting if overlap[i][j] >= MATCH]
        if candidates:  # an object that counts comes before a crowd, then the one most overlapped
            hit[i], _, best = max(candidates)
            ignored[i], taken[best] = not hit[i], True
            match[i] = best if hit[i] else IGNORED
    missed = [o for o, t, c in zip(objects, taken, crowd, strict=True) if not t and not c]
    return Judged(found, hit, ignored, match, missed, shapes)


Found = dict[tuple[str, Condition], list[Judged]]  # model and condition -> images


def judged(sweep: Sweep, cells: list[Cell], conf: float, only: Sequence[int] | None = None) -> Found:
    """Each image of some cells, or only those of some numbers, with the detections that score at least `conf`."""
    objects: list[list[dict[str, Any]]] = [[] for _ in sweep.images.files]
    for annotation in sweep.images.coco["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    kind = sweep.images.kind
    sizes = [(image["height"], image["width"]) for image in sweep.images.coco["images"]]
    judged: Found = {}
    for cell in cells:
        found, shapes = store.load_found(sweep.folder / "cells", cell, kind)
        rows = np.flatnonzero(found[:, 5] >= conf)
        rows = rows[np.argsort(found[rows, 0], kind="stable")]
        ends = np.searchsorted(found[rows, 0], range(len(objects) + 1))
        judged[cell.label, cell.condition] = []
        for i in range(len(objects)) if only is None else only:
            kept = rows[ends[i] : ends[i + 1]]
            some = None if shapes is None else shapes[kept]
            judged[cell.label, cell.condition].append(judge(found[kept], objects[i], kind, some, sizes[i]))
    return judged


def spread_conditions(sweep: Sweep, conf: float, columns: int = 4) -> Found:
    """All images of the models that were asked for, under some conditions: the clean one, and others spread evenly."""
    own = [cell for cell in sweep.cells if cell.label not in sweep.others]
    conditions = spread(list(dict.fromkeys(cell.condition for cell in own)), columns)
    return judged(sweep, [cell for cell in own if cell.condition in conditions], conf)


@verbatim
def grid(sweep: Sweep, path: Path, found: Found, count: int | None = None) -> list[str]:
    """Draw images with the detections of every model under every condition.

    Every box is drawn; of more than `NAMED` in a panel those that score best have their names. Where a model has a
    front, the image is what the front makes of it.

    Args:
        sweep: finished cells.
        path: picture to write.
        found: what is drawn of all images.
        count: how many images: those where the models differ most, or where the only one suffers most; by default 3,
            and fewer of many models.

    Returns:
        The file names of the drawn images.
    """
    if count is None:
        count = max(1, min(3, ROWS // len({model for model, _ in found})))
    chosen = most_different(found, count)
    _draw_grid(sweep, path, chosen, found)
    return [sweep.images.files[i].name for i in chosen]


def spread(conditions: list[Any], count: int) -> list[Any]:
    at = np.unique(np.linspace(0, len(conditions) - 1, min(count, len(conditions))).round().astype(int))
    return [conditions[i] for i in at]


def most_different(found: Found, count: int) -> list[int]:
    """Images whose hits less false alarms differ most: between the models, or between conditions for a single one.

    Without ground truth every detection is a false alarm, and what differs is their number.
    """
    balance = np.array([[image.balance for image in cell] for cell in found.values()])  # [condition * model, images]
    models = len({model for model, _ in found})
    if models > 1:
        spread = np.ptp(balance.reshape(-1, models, balance.shape[1]), axis=1).sum(0)
    else:
        spread = np.ptp(balance, axis=0)
    return np.argsort(-spread, kind="stable")[:count].tolist()


def _draw_grid(sweep: Sweep, path: Path, chosen: list[int], found: Found) -> None:
    import matplotlib.pyplot as plt

    conditions = list(dict.fromkeys(condition for _, condition in found))
    fronts = {cell.label: cell.front for cell in sweep.cells}
    rows = [(i, model) for i in chosen for model in dict.fromkeys(model for model, _ in found)]
    height, width = _panel(sweep.images, chosen)
    size = (width * len(conditions), (height + 0.28) * len(rows) + 0.5)
    figure, axes = plt.subplots(len(rows), len(conditions), figsize=size, squeeze=False, layout="constrained")
    for (i, model), line in zip(rows, axes, strict=True):
        for condition, axis in zip(conditions, line, strict=True):
            image = shown(sweep, i, condition, fronts[model])
            axis.imshow(image[..., ::-1] if image.shape[2] == 3 else image[..., 0], cmap="gray")
            axis.autoscale(False)  # what leaves the image is cut off
            _objects(axis, found[model, condition][i], sweep.images, image.shape[:2])
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(f"{model}\n{sweep.images.files[i].name}", fontsize=7)
    for condition, axis in zip(conditions, axes[0], strict=True):
        axis.set_title(f"{condition}\n{axis.get_title()}", fontsize=8)
    if sweep.images.labelled:
        figure.legend(handles=_legend(), loc="outside lower center", ncols=3, fontsize=8, facecolor="#777777")
    save(figure, path)


def shown(sweep: Sweep, number: int, condition: Condition, front: str) -> np.ndarray:
    """An image as a model sees it, uint8 ``[H, W, C]``: under a condition, behind a front if there is one.

    Where there are other channels than three, pictures show the first: C is then 1.
    """
    file = sweep.images.files[number]
    if condition in sweep.seen:
        return read_image(sweep.seen[condition] / file, sweep.images.channels)
    image = Corrupter.of(condition, sweep.settings["seed"])(read_image(file, sweep.images.channels), file.name)
    if front:
        image = find_front(front).told(condition.noise).apply(image, file.name)
    return image if image.shape[2] == 3 else image[..., :1]


def _panel(images: EvaluationSet, chosen: Iterable[int]) -> tuple[float, float]:
    """Height and width of a panel in inches."""
    shapes = (images.coco["images"][i] for i in chosen)
    return panel_height(3.4, ((s["height"], s["width"]) for s in shapes)), 3.4


def _objects(axis: Any, judged: Judged, images: EvaluationSet, size: tuple[int, int]) -> None:
    for missed in judged.missed:
        _box(axis, missed["bbox"], YELLOW, "--", images.names[missed["category_id"]], framed(images.kind))
        _shape(axis, *true_outline(images.kind, missed, size), YELLOW, "--")
    shapes = [None] * len(judged.found) if judged.shapes is None else judged.shapes
    drawn = zip(judged.found, shapes, judged.hit, judged.ignored, strict=True)
    for rank, (row, shape, hit, ignored) in enumerate(drawn):
        colour, style = (BLUE, "-") if hit or ignored or not images.labelled else (VERMILLION, ":")
        name = f"{images.names[int(row[6])]} {row[5]:.2f}" if rank < NAMED else ""
        _box(axis, row[1:5], colour, style, name, framed(images.kind))
        _shape(axis, *found_outline(images.kind, shape, size), colour, style)
    alarms = int((~judged.hit & ~judged.ignored).sum())
    counts = f"{judged.hit.sum()} found, {len(judged.missed)} missed, {alarms} false"
    axis.set_title(counts if images.labelled else f"{len(judged.found)} detections", fontsize=7)


def _shape(axis: Any, polygons: list[np.ndarray], points: np.ndarray, colour: str, style: str) -> None:
    """Draw outlines, and points ``[k, 2]``."""
    from matplotlib.collections import PolyCollection

    if polygons:
        look: dict[str, Any] = {"facecolors": "none", "edgecolors": colour, "linestyles": style, "linewidths": 1.3}
        axis.add_collection(PolyCollection(polygons, **look), autolim=False)
    if len(points):
        axis.scatter(*points.T, s=9, color=colour, edgecolors="white", linewidths=0.4, zorder=3)


def _box(axis: Any, box: Any, colour: str, style: str, text: str, frame: bool = True) -> None:
    """Draw a label if there is one, and the box unless an outline is drawn for it."""
    from matplotlib.patches import Rectangle

    if frame:
        axis.add_patch(Rectangle(box[:2], *box[2:4], fill=False, edgecolor=colour, linestyle=style, linewidth=1.3))
    if not text:
        return
    ink = "black" if colour == YELLOW else "white"
    label = {"facecolor": colour, "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
    inside = box[1] < 0.05 * axis.get_ylim()[0]  # of the picture, whose y axis points down
    side = "top" if inside else "bottom"
    axis.text(box[0], box[1], text, fontsize=5.5, color=ink, bbox=label, verticalalignment=side, clip_on=True)


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D

    kinds = ((BLUE, "-", "found"), (YELLOW, "--", "missed"), (VERMILLION, ":", "false alarm"))
    return [Line2D([], [], color=colour, linestyle=style, label=label) for colour, style, label in kinds]


@verbatim
def curves(sweep: Sweep, path: Path) -> None:
    """Draw AP and AP50 over the strength of each corruption, with the 95 % band of a bootstrap over images."""
    import matplotlib.pyplot as plt

    conditions = [record.condition for record in sweep.records]
    corruptions = list(dict.fromkeys(c.corruption for c in conditions if not c.clean)) or [CLEAN]
    names = ("AP", "AP50")
    size = (9.6, 3.6 * len(corruptions) + 0.5)
    figure, axes = plt.subplots(len(corruptions), 2, figsize=size, squeeze=False, layout="constrained", sharex="row")
    for corruption, line in zip(corruptions, axes, strict=True):
        for name, axis in zip(names, line, strict=True):
            for model in sweep.models:
                _curve(axis, sweep, model, corruption, name)
            axis.set_xlabel(_unit(sweep, corruption), fontsize=9)
            at = "0.50 to 0.95" if name == "AP" else "0.50"
            axis.set_ylabel(f"{name} ({sweep.scoring.similarity} {at})", fontsize=9)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle(sweep.title, fontsize=9)
    save(figure, path)


def _curve(axis: Any, sweep: Sweep, model: str, corruption: str, name: str) -> None:
    of_model = [record for record in sweep.records if record.model == model and name in record.intervals]
    records = [record for record in of_model if record.condition.corruption in (CLEAN, corruption)]
    if not records:
        return
    by_severity = any(record.condition.severity for record in records)
    conditions = [record.condition for record in records]
    x = [(c.severity or 0) if by_severity else (c.strength or 0.0) for c in conditions]
    low, high = zip(*(record.intervals[name] for record in records), strict=True)
    look = marked_line(*sweep.looks[model])
    axis.plot(x, [record.scores[name] for record in records], label=model, **look)
    axis.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _unit(sweep: Sweep, corruption: str) -> str:
    if corruption == CLEAN:
        return CLEAN
    if any(record.condition.severity for record in sweep.records):
        return f"severity of {corruption.replace('_', ' ')} (0: clean)"
    return f"sigma of {corruption.replace('_', ' ')} ({SIGMA.unit})"
