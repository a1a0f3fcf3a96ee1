"""YOLO txt: a file for each image, a line for each object, as the stock data loader takes them.

Its rules are kept: lines of five numbers are boxes, longer ones polygons, and a file must not mix them; what stands
twice counts once; fractions may leave the image by a hundredth. A file that it would drop together with the image is an
error here, lest a score be of fewer objects than there are.
"""

from pathlib import Path
from typing import Any

import numpy as np

from yolo_dyn.data.annotations import Annotations, Boxes, note
from yolo_dyn.errors import YoloDynError


def read_yolo(files: list[Path], sizes: list[tuple[int, int]], names: dict[int, str]) -> Annotations:
    """Read the boxes of image files, whose (width, height) are given in pixels.

    Raises:
        YoloDynError: if a label file is broken or holds an unknown class; it names the line.
    """
    from ultralytics.data.utils import img2label_paths

    labels = [Path(label) for label in img2label_paths([str(file) for file in files])]
    boxes: list[Boxes | None] = []
    repeated = []
    for label, size in zip(labels, sizes, strict=True):
        rows, repeats = _rows(label, names) if label.is_file() else ([], 0)
        boxes.append([_box(row, *size) for row in rows])
        repeated += [label.name] * bool(repeats)
    bare = [file.name for file, label in zip(files, labels, strict=True) if not label.is_file()]
    used = set(labels)
    orphans = sorted(p.name for folder in {p.parent for p in labels} for p in folder.glob("*.txt") if p not in used)
    if len(bare) == len(files):
        return Annotations(boxes, f"none: no {labels[0]} nor any other label file" if labels else "none", [], False)
    notes = note("images have no label file and count as without objects", bare)
    notes += note("label files have no image", orphans)
    notes += note("label files hold lines twice, which count once", repeated)
    return Annotations(boxes, "labels (YOLO txt: crowds and difficult objects are not known)", notes)


def _rows(label: Path, names: dict[int, str]) -> tuple[list[tuple[float, ...]], int]:
    """Class, x, y, width and height of each object, as fractions, and how many lines stand there again."""
    try:
        lines = label.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise YoloDynError(f"{label} is no text: {error}") from error
    numbered = [(f"{label}, line {n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    polygons = any(len(line.split()) > 6 for _, line in numbered)
    rows: dict[tuple[np.float32, ...], tuple[float, ...]] = {}  # the stock loader compares in single precision
    for place, line in numbered:
        row = _row(line, names, place, polygons)
        rows.setdefault(tuple(map(np.float32, row)), row)
    return [_enclosing(row) if polygons else row for row in rows.values()], len(numbered) - len(rows)


def _row(line: str, names: dict[int, str], place: str, polygons: bool) -> tuple[float, ...]:
    """The numbers of a line."""
    try:
        row = tuple(map(float, line.split()))
    except ValueError as error:
        raise YoloDynError(f"{place}: {error}") from error
    if polygons and (len(row) < 7 or len(row) % 2 == 0):
        raise YoloDynError(f"{place}: the file holds polygons, class and x, y of three points or more, got {line!r}")
    if not polygons and len(row) != 5:
        raise YoloDynError(f"{place}: expected class, x, y, width and height, got {line!r}")
    number, *fractions = row
    if number not in names:  # nor is any fraction
        raise YoloDynError(f"{place}: the class {number:g} is none of the data YAML's {len(names)} names")
    if not all(-0.01 <= f <= 1.01 for f in fractions) or (not polygons and min(fractions[2:]) < 0):
        raise YoloDynError(f"{place}: x, y, width and height must be fractions of the image, got {line!r}")
    return row


def _enclosing(row: tuple[float, ...]) -> tuple[float, ...]:
    """The box around a polygon."""
    x, y = row[1::2], row[2::2]
    return row[0], (min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)


def _box(row: tuple[float, ...], width: int, height: int) -> dict[str, Any]:
    number, x, y, w, h = row
    return {
        "bbox": [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height],
        "category_id": int(number),
    }
