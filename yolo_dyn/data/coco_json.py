"""COCO json: images and boxes in one file, matched to the image files by the paths that it gives; and detections."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from yolo_dyn.data.annotations import Annotations, Boxes, note, pose
from yolo_dyn.data.masks import is_number, misfit
from yolo_dyn.data.tasks import BOXES, ObjectKind
from yolo_dyn.errors import YoloDynError

Agreement = tuple[int, bool]  # folders above a file that are those of a listed image; whether the suffix is


def read_coco(files: list[Path], names: dict[int, str], path: Path, kind: ObjectKind = BOXES) -> Annotations:
    """Read the objects of image files. Crowds are known.

    Raises:
        YoloDynError: if the file is broken, holds an unknown class, lacks what the task needs, or cannot be matched to
            the image files.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for key in ("images", "categories", "annotations"):
            if not isinstance(content[key], list):
                raise TypeError(f"{key} must be a list, got {content[key]!r}")
        listed = {image["id"]: PurePosixPath(image["file_name"]) for image in content["images"]}
        labels = {category["id"]: category["name"] for category in content["categories"]}
        annotations = content["annotations"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise YoloDynError(f"{path} is no COCO annotation file: {error!r}") from error
    if len(listed) < len(content["images"]):
        raise YoloDynError(f"{path}: an image id stands for several images")
    classes = {name: number for number, name in names.items()}
    boxes: dict[Any, Boxes] = {image: [] for image in listed}
    for number, annotation in enumerate(annotations):
        place = f"{path}: annotation {number}"
        image, box = _box(annotation, labels, classes, place)
        if image not in boxes:
            raise YoloDynError(f"{place} is of image {image!r}, which is not listed")
        boxes[image].append(box | _beside_box(annotation, kind, place))
    image_of = match(files, listed, path)
    moved = [
        file.name
        for file, image in image_of.items()
        if listed[image].parts[:-1] and not _agreement(file, listed[image])[0]
    ]
    absent = sorted(listed[image].stem for image in set(listed) - set(image_of.values()))
    return Annotations(
        [boxes[image_of[file]] if file in image_of else None for file in files],
        f"{path} (COCO json: crowds are known and ignored)",
        note(f"images are listed in {path.name} and not in the split", absent)
        + note(f"images are matched by their names alone, {path.name} has other folders", moved),
    )


def _box(annotation: Any, labels: dict[Any, Any], classes: dict[Any, int], place: str) -> tuple[Any, dict[str, Any]]:
    """The image's id and the box of an annotation."""
    try:
        image, category, bbox = (annotation[key] for key in ("image_id", "category_id", "bbox"))
        name = labels.get(category, category)
        known = name in classes
        hash(image)
    except KeyError as error:
        raise YoloDynError(f"{place} has no {error}") from error
    except TypeError as error:
        raise YoloDynError(f"{place} is none: {error}") from error
    if not known:
        raise YoloDynError(f"{place}: the class {name!r} is none of the data YAML's names")
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(is_number, bbox))):
        raise YoloDynError(f"{place}: bbox must be four numbers (left, top, width, height), got {bbox!r}")
    crowd, area = annotation.get("iscrowd", 0), annotation.get("area")
    if crowd not in (0, 1):
        raise YoloDynError(f"{place}: iscrowd must be 0 or 1, got {crowd!r}")
    box = {"bbox": bbox, "category_id": classes[name], "iscrowd": int(crowd)}
    return image, box | ({"area": area} if is_number(area) and 0 <= area < float("inf") else {})


def _beside_box(annotation: dict[str, Any], kind: ObjectKind, place: str) -> dict[str, Any]:
    """What a task adds to the box of an annotation."""
    if kind.task == "segment":
        found = annotation.get("segmentation")
        if reason := misfit(found):
            raise YoloDynError(f"{place}: segmentation must be {reason}, got {str(found)[:60]}")
        return {"segmentation": found}
    if kind.task == "pose":
        number, found = (kind.kpt_shape or (0, 0))[0], annotation.get("keypoints")
        if not (isinstance(found, list) and len(found) == 3 * number and all(map(is_number, found))):
            raise YoloDynError(f"{place}: keypoints must be x, y, visibility of {number}, got {str(found)[:60]}")
        return pose([tuple(found[i : i + 3]) for i in range(0, len(found), 3)])
    return {}


def match(files: list[Path], listed: dict[Any, PurePosixPath], path: Path) -> dict[Path, Any]:
    """Which listed image each file is: of those with its stem, the one whose folders and suffix agree best.

    Raises:
        YoloDynError: if two agree equally well; it names them.
    """
    by_stem: dict[str, list[Any]] = {}
    for image, name in listed.items():
        by_stem.setdefault(name.stem, []).append(image)
    claims: dict[Any, dict[Path, Agreement]] = {}  # by listed image
    for file in files:
        agreements = {image: _agreement(file, listed[image]) for image in by_stem.get(file.stem, ())}
        if agreements:
            image = _best(agreements, f"{path}: {file} may be the image")
            claims.setdefault(image, {})[file] = agreements[image]
    return {_best(agreements, f"{path}: {listed[image]} may be"): image for image, agreements in claims.items()}


def _best(agreements: dict[Any, Agreement], claim: str) -> Any:
    first, *others = sorted(agreements, key=agreements.__getitem__, reverse=True)
    if others and agreements[others[0]] == agreements[first]:
        raise YoloDynError(f"{claim} {first} or {others[0]}; folders in file_name tell such images apart")
    return first


def _agreement(file: Path, name: PurePosixPath) -> Agreement:
    pairs = zip(reversed(file.parts[:-1]), reversed(name.parts[:-1]), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))), file.suffix == name.suffix


def write_detections(file: Path, found: np.ndarray, beside: Callable[[int], dict[str, Any]] | None = None) -> None:
    """Write detections in COCO's format, a line each.

    Args:
        file: to write.
        found: ``[n, 7]``: image id, left, top, width, height in pixels, score, category id.
        beside: gives what a task adds to a detection, by its number.
    """
    with file.open("w", encoding="utf-8") as stream:
        stream.write("[")
        for start in range(0, len(found), 10_000):  # as objects of Python, all of them take gigabytes
            lines = (
                f'{{"image_id": {int(image)}, "category_id": {int(category)}, "bbox": {box}, "score": {score}'
                f"{_members(beside(number)) if beside else ''}}}"
                for number, (image, *box, score, category) in enumerate(found[start : start + 10_000].tolist(), start)
            )
            stream.write(",\n" * (start > 0) + ",\n".join(lines))
        stream.write("]\n")


def _members(beside: dict[str, Any]) -> str:
    return "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in beside.items())
