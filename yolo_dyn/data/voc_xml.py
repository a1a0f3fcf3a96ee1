"""VOC XML: a file for each image, called like it. Difficult objects are known."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from yolo_dyn.data.annotations import Annotations, Boxes
from yolo_dyn.errors import YoloDynError


def read_voc(files: list[Path], names: dict[int, str], folders: list[Path]) -> Annotations:
    """Read the boxes of image files from the first folder that has each.

    Raises:
        YoloDynError: if a file is broken, holds an unknown class, or would be that of several images.
    """
    classes = {name: number for number, name in names.items()}
    boxes: list[Boxes | None] = []
    owners: dict[Path, Path] = {}
    for file in files:
        path = next((f / f"{file.stem}.xml" for f in folders if (f / f"{file.stem}.xml").is_file()), None)
        if path and owners.setdefault(path, file) != file:
            raise YoloDynError(f"{path} may be of {owners[path]} or {file}: images must not share a name")
        boxes.append(_read(path, classes) if path else None)
    source = ", ".join(map(str, folders))
    return Annotations(boxes, f"{source} (VOC XML: difficult objects are known and ignored)")


def _read(path: Path, classes: dict[str, int]) -> Boxes:
    try:
        return [_box(obj, classes, path) for obj in ET.parse(path).getroot().iter("object")]
    except (ET.ParseError, AttributeError, LookupError, TypeError, UnicodeError) as error:
        raise YoloDynError(f"{path} is no VOC annotation file: {error}") from error


def _box(obj: Any, classes: dict[str, int], path: Path) -> dict[str, Any]:
    name = obj.find("name").text
    if name not in classes:
        raise YoloDynError(f"{path}: the class {name!r} is none of the data YAML's names")
    try:
        left, top, right, bottom = (float(obj.find("bndbox").find(k).text) for k in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError as error:
        raise YoloDynError(f"{path}: a box must be four numbers: {error}") from error
    difficult = obj.find("difficult")
    return {
        "bbox": [
            left - 1,
            top - 1,
            right - left + 1,
            bottom - top + 1,
        ],  # pixels count from 1, the last one belongs to it
        "category_id": classes[name],
        "iscrowd": int(difficult is not None and difficult.text == "1"),
    }
