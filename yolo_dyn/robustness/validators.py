"""The stock validators of each task on corrupted images, which keep all detections in the original images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.utils import ops

from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.integration import compat
from yolo_dyn.integration.precision import compute_in_float32
from yolo_dyn.robustness import objects
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.fronts import Front
from yolo_dyn.robustness.loading import CorruptedImages


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
        self.shapes: list[np.ndarray] = []
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

    def postprocess(self, preds: Any) -> Any:
        """The stock one; its time limit would drop whole images on a busy machine."""
        with compat.whole_suppression() as kept:
            found = super().postprocess(preds)
        (self._rows,) = kept
        return found

    def update_metrics(self, preds: Any, batch: dict[str, Any]) -> None:
        for i, rows in enumerate(self._rows):
            self.shapes.append(self._shapes(preds, rows, i, batch))
            self.found.append(self._in_pixels(rows, i, batch))
        super().update_metrics(preds, batch)
        for file, hashes in zip(batch["im_file"], batch.get("hashes", ()), strict=False):
            self.hashes[file] = hashes
        self.front_seconds += batch.get("front_seconds", ())
        if self._progress:
            self._progress(len(self._rows))

    def _in_pixels(self, rows: torch.Tensor, i: int, batch: dict[str, Any]) -> np.ndarray:
        """Detections of one image, ``[n, 7]``: image id, left, top, width, height, score, class."""
        boxes = self._boxes(rows, i, batch)
        number = torch.full_like(rows[:, :1], self._ids[batch["im_file"][i]])
        columns = [number, boxes, rows[:, 4:6]]
        return torch.cat([column.double().cpu() for column in columns], 1).numpy()

    def _boxes(self, rows: torch.Tensor, i: int, batch: dict[str, Any]) -> torch.Tensor:
        """Left, top, width, height in the original image."""
        shapes = batch["img"].shape[2:], batch["ori_shape"][i], batch["ratio_pad"][i]
        boxes = ops.scale_boxes(shapes[0], rows[:, :4].clone().float(), shapes[1], ratio_pad=shapes[2])
        boxes[:, 2:] -= boxes[:, :2]
        return boxes

    def _shapes(self, preds: Any, rows: torch.Tensor, i: int, batch: dict[str, Any]) -> np.ndarray:
        """What the detections of one image have beside their boxes, see `objects`."""
        return np.zeros((len(rows), 0))


class CorruptedSegmentation(CorruptedValidator, SegmentationValidator):
    """Masks as `save_json` makes them: at the size of the network's input, then scaled to the original image."""

    def init_metrics(self, model: torch.nn.Module) -> None:
        super().init_metrics(model)
        self.process = ops.process_mask_native

    def _shapes(self, preds: Any, rows: torch.Tensor, i: int, batch: dict[str, Any]) -> np.ndarray:
        from pycocotools import mask

        if not len(rows):
            return objects.masks([])
        found = compat.masks_of(self, preds, rows, i, tuple(batch["img"].shape[2:]))
        pixels = compat.masks_in_image(found, batch, i)
        return objects.masks([each["counts"] for each in mask.encode(np.asfortranarray(pixels))])


class CorruptedPose(CorruptedValidator, PoseValidator):
    """Keypoints in pixels of the original image, cut off at its border as Ultralytics does it."""

    def _shapes(self, preds: Any, rows: torch.Tensor, i: int, batch: dict[str, Any]) -> np.ndarray:
        shapes = batch["img"].shape[2:], batch["ori_shape"][i], batch["ratio_pad"][i]
        points = rows[:, 6:].clone().float().view(len(rows), *self.kpt_shape)
        return ops.scale_coords(shapes[0], points, shapes[1], ratio_pad=shapes[2]).cpu().numpy()


class CorruptedRotated(CorruptedValidator, OBBValidator):
    """Rotated boxes in pixels of the original image; the boxes around them stand for them where boxes are asked for."""

    def _boxes(self, rows: torch.Tensor, i: int, batch: dict[str, Any]) -> torch.Tensor:
        corners = ops.xywhr2xyxyxyxy(self._rotated(rows, i, batch))
        low, high = corners.amin(1), corners.amax(1)
        return torch.cat([low, high - low], 1)

    def _shapes(self, preds: Any, rows: torch.Tensor, i: int, batch: dict[str, Any]) -> np.ndarray:
        return self._rotated(rows, i, batch).cpu().numpy()

    def _rotated(self, rows: torch.Tensor, i: int, batch: dict[str, Any]) -> torch.Tensor:
        """Centre, width, height, angle, ``[n, 5]``."""
        shapes = batch["img"].shape[2:], batch["ori_shape"][i], batch["ratio_pad"][i]
        boxes = ops.scale_boxes(shapes[0], rows[:, :4].clone().float(), shapes[1], ratio_pad=shapes[2], xywh=True)
        return torch.cat([boxes, rows[:, 6:7].float()], 1)


VALIDATORS = {
    "detect": CorruptedValidator,
    "segment": CorruptedSegmentation,
    "pose": CorruptedPose,
    "obb": CorruptedRotated,
}
