"""The picture of the trade-off: accuracy over seconds as bubbles, both scores as bars (FMDConv paper, Fig. 3)."""

import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yolo_dyn.output.style import COLOURS, SAVED, save, verbatim
from yolo_dyn.runs.tradeoff.scores import Row

AXES = {"top-1": "top-1 accuracy", "AP": "AP (IoU 0.50 to 0.95)"}
LARGEST = 900  # area of the largest bubble in square points
HATCHES = ("", "//", "..", "xx")  # of every further seven runs, whose colours come again
GAP = 5  # pixels between a label and what is near it

Box = tuple[float, float, float, float]  # left, bottom, right, top


@verbatim
def draw(rows: list[Row], file: Path) -> None:
    """Draw the runs: (a) bubbles, whose area is RCS, (b) IES, (c) RCS.

    Raises:
        YoloDynError: if the file cannot be written.
    """
    import matplotlib.pyplot as plt

    size = (14, max(4.6, 0.5 * len(rows) + 1.4))
    figure, axes = plt.subplots(1, 3, figsize=size, width_ratios=(1.6, 1, 1), layout="constrained", dpi=SAVED["dpi"])
    looks = [
        {"facecolor": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i // len(COLOURS) % len(HATCHES)]}
        for i in range(len(rows))
    ]
    names = [textwrap.fill(row.run, 26) for row in rows]
    metric = rows[0].metric
    _bars(axes[1], names, [row.ies for row in rows], looks)
    axes[1].set_title(f"(b) IES: seconds / {metric}, lower is better", fontsize=10)
    _bars(axes[2], names, [row.rcs for row in rows], looks)
    axes[2].set_title(f"(c) RCS: {metric} x N / second, higher is better", fontsize=10)
    axes[2].tick_params(labelleft=False)
    _bubbles(axes[0], rows, names, looks)
    save(figure, file, "out")


def _bars(axis: Any, names: list[str], values: list[float], looks: list[dict[str, Any]]) -> None:
    finite = [value if math.isfinite(value) else 0 for value in values]
    for at, (value, look) in enumerate(zip(finite, looks, strict=True)):
        axis.barh(at, value, edgecolor="white", **look)
        text = f"{value:,.2f}" if math.isfinite(values[at]) else "infinite"
        axis.annotate(text, (value, at), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.set_ylim(len(names) - 0.4, -0.6)  # the first run on top
    axis.set_xlim(0, 1.3 * max(finite) or 1)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)


def _bubbles(axis: Any, rows: list[Row], names: list[str], looks: list[dict[str, Any]]) -> None:
    most = max(row.rcs for row in rows) or 1
    areas = [LARGEST * row.rcs / most for row in rows]
    for i in sorted(range(len(rows)), key=lambda i: -areas[i]):  # small ones on top
        edge = {"edgecolor": "white", "linewidth": 1}
        axis.scatter(rows[i].seconds, rows[i].accuracy, s=areas[i], alpha=0.75, **edge, **looks[i])
    axis.margins(0.28)
    axis.set_xlabel("seconds an epoch", fontsize=9)
    axis.set_ylabel(AXES[rows[0].metric], fontsize=9)
    axis.set_title("(a) better to the upper left; area of a bubble: RCS", fontsize=10)
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    _label(axis, [(row.seconds, row.accuracy) for row in rows], names, areas)


def _label(axis: Any, at: list[tuple[float, float]], names: list[str], areas: list[float]) -> None:
    """Write the names where they hide neither each other nor a bubble, with a line to the centre of their own."""
    from matplotlib.patheffects import withStroke

    figure = axis.figure
    background = {"facecolor": "white", "edgecolor": "none", "pad": 2}  # ends the line before the letters
    texts = [axis.text(0, 0, name, fontsize=9, ha="center", va="center", bbox=background) for name in names]
    for text in texts:
        text.set_in_layout(False)
    figure.canvas.draw()  # now everything has its place, and must keep it
    axis.autoscale(False)
    pixels = figure.dpi / 72  # of a point
    centres = [(float(x), float(y)) for x, y in axis.transData.transform(at)]
    circles = [(x, y, max(math.sqrt(area) / 2, 4) * pixels) for (x, y), area in zip(centres, areas, strict=True)]
    sizes = [(box.width, box.height) for box in (text.get_window_extent() for text in texts)]
    label_centres = places(circles, sizes, axis.get_window_extent().extents)
    data = axis.transData.inverted()
    for text, centre, (x, y), (width, height) in zip(texts, centres, label_centres, sizes, strict=True):
        text.set_position(data.transform((x, y)))
        left, bottom, right, top = _box(x, y, width, height)
        nearest = min(max(centre[0], left), right), min(max(centre[1], bottom), top)
        line = data.transform([centre, nearest])
        outline = [withStroke(linewidth=2.4, foreground="white")]  # seen on a dark bubble too
        look = {"color": "0.15", "linewidth": 0.9, "marker": "o", "markersize": 3, "markevery": [0]}
        axis.plot(*line.T, path_effects=outline, **look)


def places(circles: list[tuple[float, float, float]], sizes: list[tuple[float, float]], frame: Box) -> list[Any]:
    """Where labels go so that they overlap neither each other nor a bubble, as near to their own bubble as may be.

    Args:
        circles: centre and radius of each bubble, pixels.
        sizes: width and height of each label, pixels.
        frame: what the labels must stay in.

    Returns:
        The centre of each label. If there is no free place, the one with the fewest overlaps.
    """
    bubbles = [_box(x, y, 2 * radius, 2 * radius) for x, y, radius in circles]
    labels: list[Box] = []
    centres = []
    for circle, size in zip(circles, sizes, strict=True):
        obstacles = bubbles + labels
        place = min(_around(circle, size), key=lambda c, s=size, o=obstacles: _collisions(_box(*c, *s), o, frame))  # type: ignore[misc]
        labels.append(_box(*place, *size))
        centres.append(place)
    return centres


def _around(circle: tuple[float, float, float], size: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Centres of a label around a bubble, the nearest first."""
    x, y, radius = circle
    for distance in range(GAP, 400, 12):
        for turn in (0, 8, 4, 12, 2, 14, 6, 10, 1, 15, 7, 9, 3, 13, 5, 11):  # right, left, above, below, and between
            across, up = math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)
            yield x + across * (radius + distance + size[0] / 2), y + up * (radius + distance + size[1] / 2)


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _collisions(box: Box, obstacles: list[Box], frame: Box) -> int:
    outside = box[0] < frame[0] or box[1] < frame[1] or box[2] > frame[2] or box[3] > frame[3]
    return 100 * outside + sum(_overlap(box, other) for other in obstacles)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] + 2 and b[0] < a[2] + 2 and a[1] < b[3] + 2 and b[1] < a[3] + 2
