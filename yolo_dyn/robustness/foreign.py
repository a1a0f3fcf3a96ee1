"""Ground truth and detections of any framework, as COCO json: ids and classes of their own become ours."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from yolo_dyn.data.coco_json import read_coco
from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.data.masks import is_number, misfit, run_lengths
from yolo_dyn.data.tasks import ObjectKind, oks_sigmas
from yolo_dyn.data.truth import coco_dataset
from yolo_dyn.errors import MissingFileError, YoloDynError
from yolo_dyn.output.files import hash_file
from yolo_dyn.robustness import objects
from yolo_dyn.robustness.evaluate import Detections

# what is compared with the truth, by task; COCO's format has no rotated boxes
MEMBERS = {"detect": "bbox", "segment": "segmentation", "pose": "keypoints"}
TASKS = tuple(MEMBERS)


@dataclass(frozen=True)
class ForeignTruth:
    """A ground truth, and what its own ids stand for."""

    images: EvaluationSet
    image_ids: dict[Any, int]  # of the file -> place in `images`
    class_ids: dict[Any, int]

    def size(self, image: int) -> tuple[int, int]:
        """Height and width of an image, by its place."""
        described = self.images.coco["images"][image]
        return described["height"], described["width"]


def read_truth(path: Path, task: str = "detect", sigmas: list[float] | None = None) -> ForeignTruth:
    """Read a ground truth.

    Images are in the order of their ids, as pycocotools has them, and no box is left out.

    Raises:
        YoloDynError: if the file is missing or broken, or lacks what the task needs.
    """
    if not path.is_file():
        raise MissingFileError(f"truth={path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        listed = sorted(content["images"], key=lambda image: image["id"])
        names = dict(enumerate(str(category["name"]) for category in content["categories"]))
        files = [Path(PurePosixPath(image["file_name"])) for image in listed]
        sizes = [(int(image.get("width", 0)), int(image.get("height", 0))) for image in listed]
        image_ids = {image["id"]: at for at, image in enumerate(listed)}
        class_ids = {category["id"]: at for at, category in enumerate(content["categories"])}
        kind = _kind(content, task, sigmas, path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise YoloDynError(f"truth={path} is no COCO annotation file: {error!r}") from error
    for given in (list(names.values()), [str(file) for file in files]):
        if twice := [each for each, times in Counter(given).items() if times > 1]:
            raise YoloDynError(f"truth={path}: two images or categories are called {twice[0]}")
    if task == "segment" and (unsized := [file for file, size in zip(files, sizes, strict=True) if min(size) < 1]):
        raise YoloDynError(f"truth={path}: masks need the width and height of each image, {unsized[0]} has none")
    annotations = read_coco(files, names, path, kind)
    boxes = [found or [] for found in annotations.boxes]
    images = EvaluationSet(
        data=str(path),
        split="",
        names=names,
        channels=3,
        files=files,
        coco=coco_dataset(list(zip(files, sizes, boxes, strict=True)), names),
        source=annotations.source,
        skipped={},
        notes=annotations.notes,
        labelled=True,
        fingerprint=hash_file(path),
        kind=kind,
    )
    return ForeignTruth(images, image_ids, class_ids)


def _kind(content: dict[str, Any], task: str, sigmas: list[float] | None, path: Path) -> ObjectKind:
    """What the objects of a file are; how many keypoints they have is read from the first that has any."""
    if task != "pose":
        if sigmas:
            raise YoloDynError(f"sigmas are of keypoints, which the task {task} has none of")
        return ObjectKind(task)
    lengths = [len(each["keypoints"]) for each in content["annotations"] if each.get("keypoints")]
    if not lengths:
        raise YoloDynError(f"truth={path} has no annotation with keypoints")
    number = lengths[0] // 3
    return ObjectKind(task, (number, 3), oks_sigmas(number, 3, sigmas, "sigmas"))


def read_detections(path: Path, truth: ForeignTruth) -> Detections:
    """Read detections; a box that is not given is that around the mask or the keypoints.

    Raises:
        YoloDynError: naming the file and the detection that is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise YoloDynError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, list):
        raise YoloDynError(f"{path} must hold a list of detections, got {type(content).__name__}")
    rows, shapes = np.empty((len(content), 7)), np.empty(len(content), object)
    for number, detection in enumerate(content):
        rows[number], shapes[number] = _read(detection, truth, f"{path}: detection {number}")
    wrong = ~np.isfinite(rows).all(1) | (rows[:, 3:5] < 0).any(1)
    if wrong.any():
        number = int(wrong.argmax())
        kept = {key: content[number].get(key) for key in ("bbox", "score")}
        raise YoloDynError(f"{path}: detection {number} must have finite numbers and no negative size, got {kept}")
    kind = truth.images.kind
    if kind.task == "pose":
        shapes = np.array(shapes.tolist(), np.float32).reshape(-1, *(kind.kpt_shape or ()))
    return Detections(rows, {}, {}, {}, shapes=objects.joined(kind, [shapes]))


def _read(detection: Any, truth: ForeignTruth, place: str) -> tuple[list[float], Any]:
    """A row of `scores.evaluate`, and what the task adds to it."""
    kind = truth.images.kind
    member = MEMBERS[kind.task]
    try:
        confidence, given = float(detection["score"]), detection[member]
        image = truth.image_ids.get(detection["image_id"])
        category = truth.class_ids.get(detection["category_id"])
        box = [float(value) for value in detection["bbox"]] if "bbox" in detection else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise YoloDynError(f"{place} must have image_id, category_id, {member} and score: {error!r}") from error
    if image is None or category is None:
        key = "image_id" if image is None else "category_id"
        raise YoloDynError(f"{place}: {key} {detection[key]!r} is not in the truth")
    if box is not None and len(box) != 4:
        raise YoloDynError(f"{place}: bbox must be four numbers (left, top, width, height), got {detection['bbox']!r}")
    shape = _shape(kind, given, truth.size(image), place)
    return [image, *(_around(kind, shape, truth.size(image)) if box is None else box), confidence, category], shape


def _shape(kind: ObjectKind, given: Any, size: tuple[int, int], place: str) -> Any:
    """What a detection has beside its box, see `objects`."""
    if kind.task == "segment":
        if reason := misfit(given, size):
            raise YoloDynError(f"{place}: segmentation must be {reason}, got {str(given)[:60]}")
        counts = run_lengths(given, size)["counts"]
        return counts if isinstance(counts, bytes) else counts.encode()
    if kind.task == "pose":
        number = (kind.kpt_shape or (0, 0))[0]
        numbers = given if isinstance(given, list) else []
        if len(numbers) != 3 * number or not all(map(is_number, numbers)) or not np.isfinite(numbers).all():
            raise YoloDynError(f"{place}: keypoints must be x, y, score of {number}, got {str(given)[:60]}")
        return np.reshape(numbers, (number, 3)).tolist()
    return None


def _around(kind: ObjectKind, shape: Any, size: tuple[int, int]) -> list[float]:
    from pycocotools import mask

    if kind.task == "segment":
        return mask.toBbox({"size": list(size), "counts": shape}).tolist()
    low, high = np.min(shape, 0)[:2], np.max(shape, 0)[:2]
    return [*low.tolist(), *(high - low).tolist()]
