"""One model on one set of corrupted images, through the stock validation pipeline.

Images are read from their files, corrupted at full resolution and then resized as the stock loader does it, so no cache
of decoded or resized images can come between. Every image is letterboxed to a square: what the network sees of it
depends on that image alone, not on the batch it is in. Nothing is given up for time.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.utils import LOGGER

from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.errors import YoloDynError, without_traceback
from yolo_dyn.integration import compat
from yolo_dyn.output.files import OPENCV
from yolo_dyn.robustness import objects
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.fronts import Front
from yolo_dyn.robustness.tasks import scoring
from yolo_dyn.robustness.validators import VALIDATORS


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
class Detections:
    """What a model found, and what the stock validator made of it."""

    found: np.ndarray  # [n, 7], as scores.evaluate takes it
    ultralytics: dict[str, float]  # AP50 and AP by its own interpolation and matching
    milliseconds: dict[str, float]  # an image: preprocess, inference, postprocess
    hashes: dict[str, dict[str, str]]  # of each image file's pixels, if they were asked for
    front_milliseconds: float = 0.0  # an image, of the front if there is one
    shapes: np.ndarray | None = None  # what they have beside their boxes, see objects; None if it is nothing


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
    validator = VALIDATORS[images.kind.task](
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
    metrics = getattr(validator.metrics, scoring(images.kind).of)
    return Detections(
        np.concatenate([*validator.found, np.zeros((0, 7))]),
        {"AP": float(metrics.map), "AP50": float(metrics.map50)},
        {key: value for key, value in validator.speed.items() if key != "loss"},
        validator.hashes,
        1000 * float(np.mean(validator.front_seconds or [0.0])),
        objects.joined(images.kind, validator.shapes),
    )
