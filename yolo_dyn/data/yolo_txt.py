"""YOLO txt: a file for each image, a line for each object, as the stock data loader takes them.

Its rules are kept: lines of five numbers are boxes, longer ones polygons, and a file must not mix them; what stands
twice counts once; fractions may leave the image by a hundredth. A pose has its box, then its keypoints; a rotated box
is the polygon of its corners. A file that it would drop together with the image is an error here, lest a score be of
fewer objects than there are.
"""

from pathlib import Path
from typing import Any

import numpy as np

from yolo_dyn.data.annotations import Annotations, Boxes, note, pose
from yolo_dyn.data.masks import mask_area, outline
from yolo_dyn.data.tasks import BOXES, ObjectKind
from yolo_dyn.errors import YoloDynError

BODY = 0.53  # share of a pose's box that counts as its area, which OKS needs: as Ultralytics has it


def read_yolo(
    files: list[Path], sizes: list[tuple[int, int]], names: dict[int, str], kind: ObjectKind = BOXES
) -> Annotations:
    """Read the objects of image files, whose (width, height) are given in pixels.

    Raises:
        YoloDynError: if a label file is broken, holds an unknown class, or lacks what the task needs; it names the
            line.
    """
    from ultralytics.data.utils import img2label_paths

    labels = [Path(label) for label in img2label_paths([str(file) for file in files])]
    boxes: list[Boxes | None] = []
    repeated = []
    for label, size in zip(labels, sizes, strict=True):
        rows, repeats = _rows(label, names, kind) if label.is_file() else ([], 0)
        boxes.append([_object(row, size, kind) for row in rows])
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


def _rows(label: Path, names: dict[int, str], kind: ObjectKind) -> tuple[list[tuple[float, ...]], int]:
    """The numbers of each object, positions as fractions, and how many lines stand there again."""
    try:
        lines = label.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise YoloDynError(f"{label} is no text: {error}") from error
    numbered = [(f"{label}, line {n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    polygons = kind.task != "pose" and any(len(line.split()) > 6 for _, line in numbered)
    rows: dict[tuple[np.float32, ...], tuple[float, ...]] = {}  # the stock loader compares in single precision
    for place, line in numbered:
        row = _row(line, names, place, polygons, kind)
        rows.setdefault(tuple(map(np.float32, row)), row)
    return list(rows.values()), len(numbered) - len(rows)


def _row(line: str, names: dict[int, str], place: str, polygons: bool, kind: ObjectKind) -> tuple[float, ...]:
    """The numbers of a line."""
    try:
        row = tuple(map(float, line.split()))
    except ValueError as error:
        raise YoloDynError(f"{place}: {error}") from error
    if reason := _misfit(len(row), polygons, kind):
        raise YoloDynError(f"{place}: {reason}, got {line!r}")
    number, *fractions = row
    if number not in names:  # nor is any fraction
        raise YoloDynError(f"{place}: the class {number:g} is none of the data YAML's {len(names)} names")
    if kind.task == "pose":
        fractions = [*fractions[:4], *(f for of_one in _points(row, kind) for f in of_one[:2])]
    if not all(-0.01 <= f <= 1.01 for f in fractions) or (not polygons and min(fractions[2:4]) < 0):
        raise YoloDynError(f"{place}: x, y, width and height must be fractions of the image, got {line!r}")
    return row


def _misfit(numbers: int, polygons: bool, kind: ObjectKind) -> str:
    """Why a line of so many numbers is none of the task; empty if it is one."""
    if kind.task == "pose":
        shape = list(kind.kpt_shape or ())
        return "" if kind.has_keypoints(numbers) else f"expected a box and keypoints of kpt_shape {shape}"
    if kind.has_keypoints(numbers):
        return f"the line has keypoints (kpt_shape {list(kind.kpt_shape or ())}), and the task is {kind.task}"
    if kind.task in ("segment", "obb") and not polygons:
        needed = "polygons" if kind.task == "segment" else "four corners"
        return f"the task {kind.task} needs {needed}, class and x, y of each point"
    if polygons and (numbers < 7 or numbers % 2 == 0):
        return "the file holds polygons, class and x, y of three points or more"
    return "expected class, x, y, width and height" if not polygons and numbers != 5 else ""


def _points(row: tuple[float, ...], kind: ObjectKind) -> list[tuple[float, ...]]:
    """The keypoints of a line."""
    step = kind.kpt_shape[1] if kind.kpt_shape else 1
    return [row[at : at + step] for at in range(5, len(row), step)]


def _object(row: tuple[float, ...], size: tuple[int, int], kind: ObjectKind) -> dict[str, Any]:
    """An object in pixels: its box, and what the task adds."""
    if kind.task == "pose":
        box, (width, height) = _box(row[:5], *size), size
        keypoints = [
            (x * width, y * height, seen[0] if seen else 2.0 * (x >= 0 and y >= 0))
            for x, y, *seen in _points(row, kind)
        ]
        return box | pose(keypoints) | {"area": BODY * box["bbox"][2] * box["bbox"][3]}
    box = _box(_enclosing(row) if len(row) > 5 else row, *size)
    if kind.task == "detect":
        return box
    polygon = [fraction * size[at % 2] for at, fraction in enumerate(row[1:])]
    return box | {"segmentation": [polygon], "area": mask_area([polygon], *size)}


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


def label_lines(coco: dict[str, Any], kind: ObjectKind) -> list[list[str]]:
    """What a ground truth in COCO's format says, as lines for each image; crowds, unknown here, are left out."""
    lines: list[list[str]] = [[] for _ in coco["images"]]
    for annotation in coco["annotations"]:
        if not annotation["iscrowd"]:
            image = coco["images"][annotation["image_id"]]
            numbers = _numbers(kind, annotation, image["width"], image["height"])
            line = " ".join([str(annotation["category_id"]), *(f"{number:.8g}" for number in numbers)])
            lines[annotation["image_id"]].append(f"{line}\n")
    return lines


def _numbers(kind: ObjectKind, annotation: dict[str, Any], width: int, height: int) -> list[float]:
    """What a line says after the class, positions as fractions of the image."""
    if kind.task in ("segment", "obb"):
        polygon = outline(annotation["segmentation"], (height, width))
        polygon = polygon if len(polygon) > 2 else np.resize(polygon, (3, 2))  # a mask of a pixel or two
        return (polygon / (width, height)).clip(0, 1).ravel().tolist()
    left, top, wide, high = annotation["bbox"]
    box = [(left + wide / 2) / width, (top + high / 2) / height, wide / width, high / height]
    if kind.task == "detect":
        return box
    points = np.reshape(annotation["keypoints"], (-1, 3)) / (width, height, 1)
    return [*box, *points[:, : (kind.kpt_shape or (0, 3))[1]].ravel().tolist()]
