"""One model on one set of corrupted images, through the stock validation pipeline.

Images are read from their files, corrupted at full resolution and then resized as the stock loader does it, so no cache
of decoded or resized images can come between. Every image is letterboxed to a square: what the network sees of it
depends on that image alone, not on the batch it is in. Nothing is given up for time.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info
from ultralytics.data import YOLODataset
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import LOGGER, ops

from yolo_dyn.data.images import EvaluationSet, read_image, resized
from yolo_dyn.errors import YoloDynError, without_traceback
from yolo_dyn.integration import compat
from yolo_dyn.integration.precision import compute_in_float32
from yolo_dyn.output.files import OPENCV
from yolo_dyn.robustness.corruptions import Corruption, Image, find_for
from yolo_dyn.robustness.fronts import Front
from yolo_dyn.robustness.processes import end_with_parent
from yolo_dyn.robustness.records import Condition


@dataclass(frozen=True)
class Settings:
    """What besides model, images and corruption decides the numbers: stock arguments, and torch's threads."""

    imgsz: int = 640
    batch: int = 16
    conf: float = 0.001  # least score of a detection
    iou: float = 0.7  # of non-maximum suppression
    max_det: int = 300
    half: bool = False
    device: str = "cpu"
    threads: int = 0  # of torch on a CPU, which decides the last bits of the numbers; 0: as Ultralytics sets them

    def stock(self) -> dict[str, Any]:
        """As arguments of the stock validator."""
        shared = {key: value for key, value in asdict(self).items() if key not in ("half", "threads")}
        return shared | (compat.half_precision() if self.half else {})


@dataclass(frozen=True)
class Corrupter:
    """One corruption at one strength, as the data loader's workers apply it; without a corruption images stay clean."""

    corruption: Corruption | None
    strength: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, condition: Condition, seed: int) -> "Corrupter":
        """What makes the pixels of a condition."""
        if condition.strength is None:
            return cls(None, seed=seed)
        return cls(find_for(condition.corruption, condition.severity), condition.strength, seed)

    def __call__(self, image: Image, name: str) -> Image:
        return self.corruption.apply(image, self.strength, self.seed, name) if self.corruption else image

    def hashes(self, image: Image, name: str) -> dict[str, str]:
        """SHA-256 of the decoded image, of the corruption on plain grey of its size, and of the two together."""
        shown = {"decoded": image, "noise": self(np.full_like(image, 128), name), "used": self(image, name)}
        return {key: hashlib.sha256(value.tobytes()).hexdigest() for key, value in shown.items()}


@dataclass(frozen=True)
class Detections:
    """What a model found, and what the stock validator made of it."""

    found: np.ndarray  # [n, 7], as scores.evaluate takes it
    ultralytics: dict[str, float]  # AP50 and AP by its own interpolation and matching
    milliseconds: dict[str, float]  # an image: preprocess, inference, postprocess
    hashes: dict[str, dict[str, str]]  # of each image file's pixels, if they were asked for
    front_milliseconds: float = 0.0  # an image, of the front if there is one


class CorruptedImages(YOLODataset):
    """The stock data set, its images corrupted before they are resized, its labels those of the evaluation set."""

    def __init__(
        self, images: EvaluationSet, corrupter: Corrupter, hashes: bool, front: Front | None = None, **stock: Any
    ) -> None:
        self._images, self._corrupter, self._front, self._hashes = images, corrupter, front, hashes
        self._told: dict[str, Any] = {}  # of the image that was just read, beside its label
        super().__init__(img_path=[], data={"names": images.names, "channels": images.channels}, augment=False, **stock)

    def get_img_files(self, img_path: Any) -> list[str]:
        return [str(file) for file in self._images.files]

    def get_labels(self) -> list[dict[str, Any]]:
        """Labels for the stock metrics: objects that count, centre and size as fractions of the image."""
        boxes: list[list[dict[str, Any]]] = [[] for _ in self.im_files]
        for annotation in self._images.coco["annotations"]:
            if not annotation["iscrowd"]:
                boxes[annotation["image_id"]].append(annotation)
        return [
            self._label(file, found, image["width"], image["height"])
            for file, found, image in zip(self.im_files, boxes, self._images.coco["images"], strict=True)
        ]

    @staticmethod
    def _label(file: str, found: list[dict[str, Any]], width: int, height: int) -> dict[str, Any]:
        corners = np.array([box["bbox"] for box in found], np.float32).reshape(-1, 4)
        centres = corners[:, :2] + corners[:, 2:] / 2
        size = np.array([width, height] * 2, np.float32)
        return {
            "im_file": file,
            "shape": (height, width),
            "cls": np.array([[box["category_id"]] for box in found], np.float32).reshape(-1, 1),
            "bboxes": np.concatenate([centres, corners[:, 2:]], 1) / size,
            "segments": [],
            "keypoints": None,
            "normalized": True,
            "bbox_format": "xywh",
        }

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


class CorruptedValidator(DetectionValidator):
    """The stock validator on corrupted images, which keeps all detections in pixels of the original images."""

    def __init__(
        self,
        images: EvaluationSet,
        corrupter: Corrupter,
        front: Front | None,
        workers: int,
        hashes: bool,
        progress: Callable[[int], None] | None,
        save_dir: Path,
        **arguments: Any,
    ) -> None:
        super().__init__(save_dir=save_dir, args={**arguments, "rect": False, "plots": False, "verbose": False})
        self._images, self._corrupter, self._front = images, corrupter, front
        self._workers, self._hashes, self._progress = workers, hashes, progress
        self._ids = {str(file): number for number, file in enumerate(images.files)}
        self.found: list[np.ndarray] = []
        self.hashes: dict[str, dict[str, str]] = {}
        self.front_seconds: list[float] = []

    def build_dataset(self, img_path: str, mode: str = "val", batch: int | None = None) -> CorruptedImages:
        return CorruptedImages(
            self._images,
            self._corrupter,
            self._hashes,
            self._front,
            imgsz=self.args.imgsz if isinstance(self.args.imgsz, int) else max(self.args.imgsz),
            hyp=self.args,
            rect=False,
            stride=self.stride,
        )

    def get_dataloader(self, dataset_path: str, batch_size: int) -> Any:
        """The stock loader, with workers on a CPU too if they are asked for."""
        dataset = self.build_dataset(dataset_path, batch=batch_size)
        return compat.build_dataloader(dataset, batch_size, self._workers, self.device)

    def init_metrics(self, model: torch.nn.Module) -> None:
        """The stock metrics; the first call that is given the opened model, before its first batch."""
        super().init_metrics(model)
        compute_in_float32(model, self.args.model)

    def postprocess(self, preds: torch.Tensor) -> Any:
        """The stock non-maximum suppression without its time limit, which on a busy machine drops whole images."""
        self._rows = compat.non_max_suppression(
            preds,
            self.args.conf,
            self.args.iou,
            multi_label=True,
            agnostic=self.args.agnostic_nms,
            max_det=self.args.max_det,
            max_time_img=math.inf,
            end2end=getattr(self, "end2end", False),
        )
        return compat.detections(self._rows)

    def update_metrics(self, preds: Any, batch: dict[str, Any]) -> None:
        super().update_metrics(preds, batch)
        for i, rows in enumerate(self._rows):
            self.found.append(self._in_pixels(rows, i, batch))
        for file, hashes in zip(batch["im_file"], batch.get("hashes", ()), strict=False):
            self.hashes[file] = hashes
        self.front_seconds += batch.get("front_seconds", ())
        if self._progress:
            self._progress(len(preds))

    def _in_pixels(self, rows: torch.Tensor, i: int, batch: dict[str, Any]) -> np.ndarray:
        """Detections of one image, ``[n, 7]``: image id, left, top, width, height, score, class."""
        shapes = batch["img"].shape[2:], batch["ori_shape"][i], batch["ratio_pad"][i]
        boxes = ops.scale_boxes(shapes[0], rows[:, :4].clone().float(), shapes[1], ratio_pad=shapes[2])
        boxes[:, 2:] -= boxes[:, :2]
        number = torch.full_like(rows[:, :1], self._ids[batch["im_file"][i]])
        columns = [number, boxes, rows[:, 4:6]]
        return torch.cat([column.double().cpu() for column in columns], 1).numpy()


def detect(
    model: str,
    images: EvaluationSet,
    corrupter: Corrupter,
    settings: Settings,
    workers: int = 0,
    hashes: bool = False,
    progress: Callable[[int], None] | None = None,
    folder: str | Path = ".",
    front: Front | None = None,
) -> Detections:
    """Detect in every image of the set.

    Args:
        model: a checkpoint, or a file or folder that `yolo export` wrote.
        images: what to detect in.
        corrupter: applied to each image at full resolution.
        settings: of the network and its post-processing.
        workers: processes that read and corrupt images; the numbers do not depend on it.
        hashes: also hash the pixels, as they are before a front.
        progress: called with the number of images done.
        folder: existing folder, which Ultralytics asks for; nothing is written into it.
        front: applied to each corrupted image at full resolution.

    Raises:
        YoloDynError: if a corruption or a front does not take an image.
    """
    validator = CorruptedValidator(
        images,
        corrupter,
        front,
        workers,
        hashes,
        progress,
        Path(folder),
        model=model,
        dnn=model.endswith(OPENCV),
        data=images.data,
        split=images.split,
        **settings.stock(),
    )
    if settings.threads:  # set once more, since the stock set-up of a device sets its own number
        validator.add_callback("on_val_start", lambda _: torch.set_num_threads(settings.threads))
    level = LOGGER.level
    LOGGER.setLevel("ERROR")  # one validation's own progress and table are noise among many
    try:
        validator()
    except YoloDynError as error:
        raise YoloDynError(without_traceback(error)) from error
    finally:
        LOGGER.setLevel(level)
    box = validator.metrics.box
    return Detections(
        np.concatenate([*validator.found, np.zeros((0, 7))]),
        {"AP": float(box.map), "AP50": float(box.map50)},
        {key: value for key, value in validator.speed.items() if key != "loss"},
        validator.hashes,
        1000 * float(np.mean(validator.front_seconds or [0.0])),
    )
