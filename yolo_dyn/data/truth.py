"""Ground truth in COCO's format, from where a data set keeps the most complete one.

First the data YAML's `annotations:` key, then ``annotations/instances_<split>.json``, then VOC XML where Ultralytics'
VOC download leaves it or in ``Annotations/``, then YOLO txt. Crowds and difficult objects are ignored in scoring,
neither found nor missed, if the source knows them; YOLO txt does not. An image that json or XML does not list is
left out, since nobody knows what it shows; one without txt has no objects, as everywhere in Ultralytics.
"""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_dyn.errors import MissingFileError, YoloDynError

Boxes = list[dict[str, Any]]  # bbox, category_id, and if known iscrowd and area


@dataclass(frozen=True)
class Truth:
    """Annotations of a split; image ids are positions in `files`, category ids the model's classes."""

    coco: dict[str, Any]  # images, annotations, categories
    files: list[Path]  # the images that are annotated
    unknown: list[Path]  # the images that are not, and are left out
    source: str  # where it was read, and what is known there, for the log
    notes: list[str]  # what else the reader should know
    labelled: bool  # whether there are any annotations at all


@dataclass(frozen=True)
class _Annotations:
    """What one source holds of the images."""

    boxes: list[Boxes | None]  # of each image; None if it is not annotated
    source: str
    notes: list[str]
    labelled: bool = True


def ground_truth(
    images: Sequence[str | Path], names: dict[int, str], root: Path, split: str, annotations: str = ""
) -> Truth:
    """Read the annotations of a list of images.

    Args:
        images: image files, in the order that gives them their ids, from 0.
        names: class names by id.
        root: folder of the data set.
        split: "train", "val" or "test".
        annotations: the data YAML's `annotations:` key, a COCO json or a folder of VOC XML, relative to `root`.

    Raises:
        YoloDynError: if a file is missing or broken, or names an unknown class.
    """
    files = [Path(image) for image in images]
    labels = _read_annotations(files, names, root, split, annotations)
    known = [(file, boxes) for file, boxes in zip(files, labels.boxes, strict=True) if boxes is not None]
    unknown = [file for file, boxes in zip(files, labels.boxes, strict=True) if boxes is None]
    return Truth(
        coco_dataset(known, names), [file for file, _ in known], unknown, labels.source, labels.notes, labels.labelled
    )


def _read_annotations(
    files: list[Path], names: dict[int, str], root: Path, split: str, annotations: str
) -> _Annotations:
    if annotations:
        path = root / annotations
        if not path.exists():
            raise MissingFileError(f"annotations: {annotations} does not exist in {root}")
        return _read_coco(files, names, path) if path.suffix == ".json" else _read_voc(files, names, [path])
    for name in dict.fromkeys((split, *(file.parent.name for file in files[:1]))):  # val, or val2017 as in coco.yaml
        path = root / "annotations" / f"instances_{name}.json"
        if path.is_file():
            return _read_coco(files, names, path)
    folders = [*sorted((root / "images" / "VOCdevkit").glob("VOC*/Annotations")), root / "Annotations"]
    folders = [folder for folder in folders if folder.is_dir()]
    if any((folder / f"{file.stem}.xml").is_file() for folder in folders for file in files):
        return _read_voc(files, names, folders)
    return _read_yolo(files, names)


def coco_dataset(known: list[tuple[Path, Boxes]], names: dict[int, str]) -> dict[str, Any]:
    """Images with their boxes in COCO's format; image ids are positions in the list."""
    sizes = [image_size(file) for file, _ in known]
    annotations = [
        {"area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0, **box, "image_id": image}
        for image, (_, boxes) in enumerate(known)
        for box in boxes
    ]
    return {
        "images": [
            {"id": image, "file_name": file.name, "width": width, "height": height}
            for image, ((file, _), (width, height)) in enumerate(zip(known, sizes, strict=True))
        ],
        "annotations": [{**box, "id": number} for number, box in enumerate(annotations, 1)],  # 0 means no match
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }


def image_size(file: Path) -> tuple[int, int]:
    """Width and height in pixels, turned as the file's EXIF says."""
    from PIL import Image
    from ultralytics.data.utils import exif_size

    with Image.open(file) as image:
        return exif_size(image)


def _note(what: str, names: list[str]) -> list[str]:
    """A note about some files, the first ones named."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"] if names else []


def _read_coco(files: list[Path], names: dict[int, str], path: Path) -> _Annotations:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stems = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
        labels = {category["id"]: category["name"] for category in content["categories"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise YoloDynError(f"{path} is no COCO annotation file: {error!r}") from error
    classes = {name: number for number, name in names.items()}
    by_stem: dict[str, Boxes] = {stem: [] for stem in stems.values()}
    for a in content["annotations"]:
        name = labels.get(a["category_id"], a["category_id"])
        if name not in classes:
            raise YoloDynError(f"{path}: the class {name!r} is none of the data YAML's names")
        if a["image_id"] not in stems:
            raise YoloDynError(f"{path}: annotation {a.get('id')!r} is of image {a['image_id']!r}, which is not listed")
        box = {"bbox": a["bbox"], "category_id": classes[name], "iscrowd": a.get("iscrowd", 0)}
        by_stem[stems[a["image_id"]]].append(box | ({"area": a["area"]} if "area" in a else {}))
    absent = sorted(set(stems.values()) - {file.stem for file in files})
    return _Annotations(
        [by_stem.get(file.stem) for file in files],
        f"{path} (COCO json: crowds are known and ignored)",
        _note(f"{len(absent)} images are listed in {path.name} and not in the split", absent),
    )


def _read_voc(files: list[Path], names: dict[int, str], folders: list[Path]) -> _Annotations:
    classes = {name: number for number, name in names.items()}
    boxes: list[Boxes | None] = []
    for file in files:
        path = next((f / f"{file.stem}.xml" for f in folders if (f / f"{file.stem}.xml").is_file()), None)
        try:
            objects = ET.parse(path).getroot().iter("object") if path else None
            boxes.append(None if path is None or objects is None else [_voc_box(o, classes, path) for o in objects])
        except (ET.ParseError, AttributeError, TypeError) as error:
            raise YoloDynError(f"{path} is no VOC annotation file: {error}") from error
    where = ", ".join(map(str, folders))
    return _Annotations(boxes, f"{where} (VOC XML: difficult objects are known and ignored)", [])


def _voc_box(obj: Any, classes: dict[str, int], path: Path) -> dict[str, Any]:
    name = obj.find("name").text
    if name not in classes:
        raise YoloDynError(f"{path}: the class {name!r} is none of the data YAML's names")
    try:
        left, top, right, bottom = (float(obj.find("bndbox").find(k).text) for k in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError as error:
        raise YoloDynError(f"{path}: a box must be four numbers: {error}") from error
    # pixels count from 1, and the last one belongs to the box
    box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
    difficult = obj.find("difficult")
    return {
        "bbox": box,
        "category_id": classes[name],
        "iscrowd": int(difficult is not None and difficult.text == "1"),
    }


def _read_yolo(files: list[Path], names: dict[int, str]) -> _Annotations:
    from ultralytics.data.utils import img2label_paths

    labels = [Path(label) for label in img2label_paths([str(file) for file in files])]
    boxes: list[Boxes | None] = []
    for file, label in zip(files, labels, strict=True):
        lines = label.read_text(encoding="utf-8-sig").splitlines() if label.is_file() else []
        size = image_size(file)
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        boxes.append([_yolo_box(line, *size, names, f"{label}, line {number}") for number, line in numbered])
    bare = [file.name for file, label in zip(files, labels, strict=True) if not label.is_file()]
    used = set(labels)
    orphans = sorted(p.name for folder in {p.parent for p in labels} for p in folder.glob("*.txt") if p not in used)
    notes = _note(f"{len(bare)} images have no label file and count as without objects", bare)
    notes += _note(f"{len(orphans)} label files have no image", orphans)
    if len(bare) == len(files):
        return _Annotations(boxes, f"none: no {labels[0]} nor any other label file" if labels else "none", [], False)
    return _Annotations(boxes, "labels (YOLO txt: crowds and difficult objects are not known)", notes)


def _yolo_box(line: str, width: int, height: int, names: dict[int, str], where: str) -> dict[str, Any]:
    try:
        number, x, y, w, h = (float(part) for part in line.split())
    except ValueError as error:
        raise YoloDynError(f"{where}: expected class, x, y, width and height, got {line!r}") from error
    if int(number) not in names:
        raise YoloDynError(f"{where}: the class {int(number)} is none of the data YAML's {len(names)} names")
    if not (min(x, y, w, h) >= 0 and max(x, y, w, h) <= 1.01):  # as far as Ultralytics tolerates it
        raise YoloDynError(f"{where}: x, y, width and height must be fractions of the image, got {line!r}")
    return {
        "bbox": [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height],
        "category_id": int(number),
    }
