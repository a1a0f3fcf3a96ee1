"""What labels of the drawn shapes say beside their boxes: polygons, keypoints, and the corners of rotated boxes.

All of it follows from a shape's kind, place, size and turn by sums and products of integers and one division, so that
every digit is the same on every machine. Shapes are whole: what a later shape hides belongs to them, what lies outside
the image does not, and an outlined one is filled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

UNIT = 1024  # what stands for 1 in cosines, sines and radii, which are integers
TURNS = 64  # rotations a full turn is divided into
COS = [round(UNIT * math.cos(2 * math.pi * i / TURNS)) for i in range(TURNS)]
SIN = [round(UNIT * math.sin(2 * math.pi * i / TURNS)) for i in range(TURNS)]
STAR = [(round(UNIT * math.cos(a)), round(UNIT * math.sin(a))) for a in (math.pi * (0.5 + 0.4 * i) for i in range(5))]

KEYPOINTS = ("centre", "top", "right", "bottom", "left")
PIXEL = 0.25  # a shape's middle lies so far beyond its whole coordinates: half of a fine pixel, as it is drawn
Point = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """A drawn shape, which may lie partly outside the image."""

    name: str
    centre: tuple[int, int]  # x, y in pixels
    radius: int  # of the circle around it
    turn: int  # of TURNS, by which its own axes are turned
    box: str  # centre and size of what is seen of it alone, in fractions of the image


def label(shape: Shape, task: str, number: int, size: int) -> str:
    """A line of YOLO txt.

    Args:
        shape: what is labelled.
        task: "detect", "segment", "pose" (see `KEYPOINTS`) or "obb".
        number: of its class.
        size: height and width of the image in pixels.
    """
    if task == "detect":
        return f"{number} {shape.box}"
    if task == "pose":
        return " ".join([str(number), shape.box, *(_seen(point, size) for point in keypoints(shape))])
    return f"{number} {_fractions(polygon(shape, size) if task == 'segment' else rotated_box(shape, size), size)}"


def polygon(shape: Shape, size: int) -> list[Point]:
    """The outline of what lies inside the image, x and y in pixels."""
    return _cut(_in_pixels(shape, _vertices(shape.name)), size)


def keypoints(shape: Shape) -> list[Point]:
    """The centre, and the outermost points of the whole shape: the mean where several are equally far out."""
    points = _turned(shape.turn, _vertices(shape.name))
    found = [(0.0, 0.0)]
    for axis, outermost in ((1, min), (0, max), (1, max), (0, min)):
        most = outermost(point[axis] for point in points)
        there = [point for point in points if point[axis] == most]
        found.append((sum(x for x, _ in there) / len(there), sum(y for _, y in there) / len(there)))
    return _placed(shape, found)


def rotated_box(shape: Shape, size: int) -> list[Point]:
    """Corners of the box along the shape's own axes (of a circle, along the image's), cut off at the image's border."""
    turn = 0 if shape.name == "circle" else shape.turn
    seen = _turned(-turn % TURNS, polygon(shape, size))
    (left, right), (low, high) = ((min(values), max(values)) for values in zip(*seen, strict=True))
    corners = _turned(turn, [(left, low), (right, low), (right, high), (left, high)])
    scale = UNIT * UNIT  # of two turns
    return [(min(max(x / scale, 0.0), size), min(max(y / scale, 0.0), size)) for x, y in corners]


def _vertices(name: str) -> list[tuple[int, int]]:
    """Corners of the outline along the shape's own axes, u and v in 1/1000 of the radius times UNIT."""
    if name == "circle":
        return [(1000 * COS[i], 1000 * SIN[i]) for i in range(0, TURNS, 2)]
    if name == "star":  # tips, and between them the corners opposite to tips
        pairs = ((STAR[i], STAR[(i + 3) % 5]) for i in range(5))
        return [p for (a, b), (c, d) in pairs for p in ((1000 * a, 1000 * b), (-382 * c, -382 * d))]
    if name == "crescent":  # from one tip along the outer arc to the other, and back along the inner one
        outer = [(1000 * COS[i], 1000 * SIN[i]) for i in range(TURNS) if COS[i] < 0.61 * UNIT]
        inner = [(500 * UNIT + 800 * COS[i], 800 * SIN[i]) for i in range(TURNS) if COS[i] < 0.1375 * UNIT]
        return [(610 * UNIT, 792 * UNIT), *outer, (610 * UNIT, -792 * UNIT), *inner[::-1]]
    corners = {
        "square": [(-750, -750), (750, -750), (750, 750), (-750, 750)],
        "triangle": [(0, 1000), (-866, -500), (866, -500)],
        "bar": [(-1000, -250), (1000, -250), (1000, 250), (-1000, 250)],
        "cross": [
            *((-1000, -250), (-250, -250), (-250, -1000), (250, -1000), (250, -250), (1000, -250)),
            *((1000, 250), (250, 250), (250, 1000), (-250, 1000), (-250, 250), (-1000, 250)),
        ],
    }
    return [(UNIT * u, UNIT * v) for u, v in corners[name]]


def _turned(turn: int, points: Sequence[Point]) -> list[Point]:
    """Turned around the origin, and UNIT times as large."""
    return [(u * COS[turn] - v * SIN[turn], u * SIN[turn] + v * COS[turn]) for u, v in points]


def _placed(shape: Shape, turned: Sequence[Point]) -> list[Point]:
    """In pixels of the image."""
    scale, (cx, cy) = 1000 * UNIT * UNIT, shape.centre
    return [(cx + PIXEL + shape.radius * x / scale, cy + PIXEL + shape.radius * y / scale) for x, y in turned]


def _in_pixels(shape: Shape, points: Sequence[Point]) -> list[Point]:
    return _placed(shape, _turned(shape.turn, points))


def _cut(points: list[Point], size: int) -> list[Point]:
    """The part of a polygon inside the image, side by side (Sutherland and Hodgman 1974)."""
    for axis in (0, 1):
        for sign, bound in ((1, 0), (-1, -size)):  # sign * value >= bound
            kept: list[Point] = []
            for before, point in zip([points[-1], *points[:-1]], points, strict=True):
                inside, was = sign * point[axis] >= bound, sign * before[axis] >= bound
                if inside != was:
                    share = (bound - sign * before[axis]) / (sign * point[axis] - sign * before[axis])
                    other = before[1 - axis] + share * (point[1 - axis] - before[1 - axis])
                    edge = float(sign * bound)
                    kept.append((edge, other) if axis == 0 else (other, edge))
                if inside:
                    kept.append(point)
            points = kept
    return points


def _seen(point: Point, size: int) -> str:
    """A keypoint and its visibility: 0 outside the image."""
    return f"{_fractions([point], size)} 2" if all(0 <= value <= size for value in point) else "0 0 0"


def _fractions(points: Sequence[Point], size: int) -> str:
    return " ".join(f"{value / size:.6f}" for point in points for value in point)
