"""Ground truth in COCO's format, from where a data set keeps the most complete one.

First the data YAML's `annotations:` key, then ``annotations/instances_<split>.json``, then VOC XML where Ultralytics'
VOC download leaves it or in ``Annotations/``, then YOLO txt. Crowds and difficult objects are ignored in scoring,
neither found nor missed, where the source knows them; YOLO txt does not.
"""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_dyn.errors import MissingFileError, YoloDynError


@dataclass(frozen=True)
class Truth:
    """Annotations of a split; image ids are positions in the list of images, category ids the model's classes."""

    coco: dict[str, Any]  # images, annotations, categories
    source: str  # where it was read, and what is known there, for the log


def ground_truth(images: Sequence[str | Path], names: dict[int, str], root: Path, split: str, given: str = "") -> Truth:
    """Read the annotations of a list of images.

    Args:
        images: image files, in the order that gives them their ids, from 0.
        names: class names by id.
        root: folder of the data set.
        split: "train", "val" or "test".
        given: the data YAML's `annotations:` key, a COCO json or a folder of VOC XML, relative to `root`.

    Raises:
        YoloDynError: where a file is missing or broken, or names an unknown class.
    """
    files = [Path(image) for image in images]
    if given:
        path = root / given
        if not path.exists():
            raise MissingFileError(f"annotations: {given} does not exist in {root}")
        return _coco(files, names, path) if path.suffix == ".json" else _voc(files, names, [path])
    for name in dict.fromkeys((split, files[0].parent.name if files else split)):  # val, or val2017 as in coco.yaml
        path = root / "annotations" / f"instances_{name}.json"
        if path.is_file():
            return _coco(files, names, path)
    folders = [*sorted((root / "images" / "VOCdevkit").glob("VOC*/Annotations")), root / "Annotations"]
    folders = [folder for folder in folders if folder.is_dir()]
    if files and any((folder / f"{files[0].stem}.xml").is_file() for folder in folders):
        return _voc(files, names, folders)
    return _yolo(files, names)


def _dataset(files: list[Path], names: dict[int, str], boxes: list[list[dict[str, Any]]]) -> dict[str, Any]:
    annotations = [
        {"area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0, **box, "image_id": image}
        for image, found in enumerate(boxes)
        for box in found
    ]
    return {
        "images": [{"id": image, "file_name": file.name} for image, file in enumerate(files)],
        "annotations": [{**box, "id": number} for number, box in enumerate(annotations, 1)],  # 0 means no match
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }


def _coco(files: list[Path], names: dict[int, str], path: Path) -> Truth:
    try:
        official = json.loads(path.read_text(encoding="utf-8"))
        stems = {image["id"]: Path(image["file_name"]).stem for image in official["images"]}
        labels = {category["id"]: category["name"] for category in official["categories"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise YoloDynError(f"{path} is no COCO annotation file: {error!r}") from error
    classes = {name: number for number, name in names.items()}
    by_stem: dict[str, list[dict[str, Any]]] = {}
    for a in official["annotations"]:
        if labels[a["category_id"]] not in classes:
            raise YoloDynError(f"{path}: the class {labels[a['category_id']]!r} is none of the data YAML's names")
        box = {"bbox": a["bbox"], "category_id": classes[labels[a["category_id"]]], "iscrowd": a.get("iscrowd", 0)}
        by_stem.setdefault(stems[a["image_id"]], []).append(box | ({"area": a["area"]} if "area" in a else {}))
    missing = next((file for file in files if file.stem not in set(stems.values())), None)
    if missing is not None:
        raise YoloDynError(f"{path} does not list the image {missing.name}")
    boxes = [by_stem.get(file.stem, []) for file in files]
    return Truth(_dataset(files, names, boxes), f"{path} (COCO json: crowds are known and ignored)")


def _voc(files: list[Path], names: dict[int, str], folders: list[Path]) -> Truth:
    classes = {name: number for number, name in names.items()}
    boxes = []
    for file in files:
        path = next((f / f"{file.stem}.xml" for f in folders if (f / f"{file.stem}.xml").is_file()), None)
        if path is None:
            raise MissingFileError(f"no {file.stem}.xml in {', '.join(map(str, folders))}")
        try:
            boxes.append([_voc_box(obj, classes, path) for obj in ET.parse(path).getroot().iter("object")])
        except (ET.ParseError, AttributeError, TypeError, ValueError) as error:
            raise YoloDynError(f"{path} is no VOC annotation file: {error}") from error
    where = ", ".join(map(str, folders))
    return Truth(_dataset(files, names, boxes), f"{where} (VOC XML: difficult objects are known and ignored)")


def _voc_box(obj: Any, classes: dict[str, int], path: Path) -> dict[str, Any]:
    name = obj.find("name").text
    if name not in classes:
        raise YoloDynError(f"{path}: the class {name!r} is none of the data YAML's names")
    left, top, right, bottom = (float(obj.find("bndbox").find(k).text) for k in ("xmin", "ymin", "xmax", "ymax"))
    # pixels count from 1, and the last one belongs to the box
    box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
    difficult = obj.find("difficult")
    return {
        "bbox": box,
        "category_id": classes[name],
        "iscrowd": int(difficult is not None and difficult.text == "1"),
    }


def _yolo(files: list[Path], names: dict[int, str]) -> Truth:
    from PIL import Image
    from ultralytics.data.utils import exif_size, img2label_paths

    boxes = []
    for file, label in zip(files, img2label_paths([str(file) for file in files]), strict=True):
        found = []
        if Path(label).is_file():
            with Image.open(file) as image:
                width, height = exif_size(image)
            for number, line in enumerate(Path(label).read_text(encoding="utf-8").splitlines(), 1):
                if line.strip():
                    found.append(_yolo_box(line, width, height, names, f"{label}, line {number}"))
        boxes.append(found)
    return Truth(_dataset(files, names, boxes), "labels (YOLO txt: crowds and difficult objects are not known)")


def _yolo_box(line: str, width: int, height: int, names: dict[int, str], where: str) -> dict[str, Any]:
    try:
        number, x, y, w, h = (float(part) for part in line.split())
    except ValueError as error:
        raise YoloDynError(f"{where}: expected class, x, y, width and height, got {line!r}") from error
    if int(number) not in names:
        raise YoloDynError(f"{where}: the class {int(number)} is none of the data YAML's {len(names)} names")
    return {
        "bbox": [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height],
        "category_id": int(number),
    }
