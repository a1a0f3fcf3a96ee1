"""The stock data set on corrupted images, with the labels of the evaluation set as Ultralytics takes them."""

from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info
from ultralytics.data import YOLODataset

from yolo_dyn.data.images import EvaluationSet, read_image, resized
from yolo_dyn.data.masks import outline
from yolo_dyn.data.tasks import ObjectKind
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.fronts import Front
from yolo_dyn.robustness.processes import end_with_parent


class CorruptedImages(YOLODataset):
    """The stock data set, its images corrupted before they are resized, its labels those of the evaluation set."""

    def __init__(
        self, images: EvaluationSet, corrupter: Corrupter, hashes: bool, front: Front | None = None, **stock: Any
    ) -> None:
        self._images, self._corrupter, self._front, self._hashes = images, corrupter, front, hashes
        self._told: dict[str, Any] = {}  # of the image that was just read, beside its label
        data = {"names": images.names, "channels": images.channels}
        if images.kind.kpt_shape:
            data["kpt_shape"] = list(images.kind.kpt_shape)
        super().__init__(img_path=[], data=data, task=images.kind.task, augment=False, **stock)

    def get_img_files(self, img_path: Any) -> list[str]:
        return [str(file) for file in self._images.files]

    def get_labels(self) -> list[dict[str, Any]]:
        """Labels for the stock metrics: objects that count."""
        objects: list[list[dict[str, Any]]] = [[] for _ in self.im_files]
        for annotation in self._images.coco["annotations"]:
            if not annotation["iscrowd"]:
                objects[annotation["image_id"]].append(annotation)
        return [
            stock_label(self._images.kind, file, found, image["width"], image["height"])
            for file, found, image in zip(self.im_files, objects, self._images.coco["images"], strict=True)
        ]

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> Any:
        """Read, corrupt, clean, resize the long side to `imgsz`; ``uint8 [h, w, C]``, original and resized (h, w)."""
        name = Path(self.im_files[i]).name
        image = read_image(self.im_files[i], self._images.channels)
        self._told = {"hashes": self._corrupter.hashes(image, name)} if self._hashes else {}
        image = self._corrupter(image, name)
        if self._front:
            image, self._told["front_seconds"] = self._front.timed(image, name)
        small = resized(image, self.imgsz)
        return small, image.shape[:2], small.shape[:2]

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """The stock label, with what else is to be told of the image that was just read."""
        if get_worker_info():  # the stock loader has started its workers when it is returned: no other place is ours
            end_with_parent()
        return super().get_image_and_label(index) | self._told


def stock_label(kind: ObjectKind, file: str, objects: list[dict[str, Any]], width: int, height: int) -> dict[str, Any]:
    """The label of an image: classes, boxes (centre and size), and what the task adds, as fractions of the image."""
    corners = np.array([o["bbox"] for o in objects], np.float32).reshape(-1, 4)
    centres = corners[:, :2] + corners[:, 2:] / 2
    size = np.array([width, height] * 2, np.float32)
    return {
        "im_file": file,
        "shape": (height, width),
        "cls": np.array([[o["category_id"]] for o in objects], np.float32).reshape(-1, 1),
        "bboxes": np.concatenate([centres, corners[:, 2:]], 1) / size,
        "segments": _segments(kind, objects, width, height),
        "keypoints": _keypoints(kind, objects, width, height),
        "normalized": True,
        "bbox_format": "xywh",
    }


def _segments(kind: ObjectKind, objects: list[dict[str, Any]], width: int, height: int) -> list[np.ndarray]:
    """A polygon for each object; several of one are connected as Ultralytics does it."""
    if kind.task not in ("segment", "obb"):
        return []
    polygons = (outline(o["segmentation"], (height, width)) for o in objects)
    return [(polygon / [width, height]).astype(np.float32) for polygon in polygons]


def _keypoints(kind: ObjectKind, objects: list[dict[str, Any]], width: int, height: int) -> np.ndarray | None:
    """``[n, K, 3]``: x, y, visibility."""
    if kind.task != "pose":
        return None
    points = np.array([o["keypoints"] for o in objects], np.float32)
    points = points.reshape(len(objects), (kind.kpt_shape or (0, 0))[0], 3)
    return points / np.array([width, height, 1], np.float32)
