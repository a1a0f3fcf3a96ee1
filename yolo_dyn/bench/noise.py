"""What noise costs: a corruption on one core, and a noisy pass over a data set beside a clean one."""

import functools
import itertools
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from yolo_dyn.bench.timing import in_turn
from yolo_dyn.data.images import EvaluationSet, evaluation_set
from yolo_dyn.integration.api import chosen_device, chosen_threads
from yolo_dyn.robustness.corruptions import find
from yolo_dyn.robustness.evaluate import Corrupter, Settings, detect


def bench_noise(
    model: str,
    data: str,
    corruption: str = "gaussian_noise",
    severity: int = 3,
    split: str = "val",
    imgsz: int = 640,
    batch: int = 16,
    device: str = "",
    workers: int = 0,
    rounds: int = 3,
) -> None:
    """Print what a corruption costs: time on one core, and of a corrupted pass over a data set beside a clean one.

    Args:
        model: checkpoint or exported model.
        data: an Ultralytics data YAML.
        corruption: name of a registered corruption.
        severity: 1 to 5.
        split: "train", "val" or "test".
        imgsz: images are letterboxed to a square of so many pixels.
        batch: images a batch.
        device: torch device; the first GPU if there is one, else the CPU.
        workers: processes that read and corrupt images.
        rounds: passes of each kind, after one of each that does not count.

    Raises:
        YoloDynError: for an unknown corruption or severity, or a data set that cannot be read.
    """
    chosen = find(corruption)
    corrupter = Corrupter(chosen, chosen.at(severity))
    print(f"{corruption}, severity {severity}: {corruption_ms(corrupter):.1f} ms a 640x480 image on one core")
    images = evaluation_set(data, split)
    settings = Settings(imgsz, batch, device=chosen_device(device), threads=chosen_threads(0))
    clean, noisy = passes_ms(model, images, corrupter, settings, workers, rounds)
    seconds = (f"{statistics.median(series) / 1e3:.1f} s" for series in (clean, noisy))
    ratio = statistics.median(b / a for a, b in zip(clean, noisy, strict=True))
    print(
        f"{' and '.join(seconds)} for a clean and a noisy pass over {len(images.files)} images at {imgsz} px,"
        f" {rounds} rounds in turn, ratio {ratio:.3f}"
    )


def corruption_ms(corrupter: Corrupter, rounds: int = 50) -> float:
    """Median time of corrupting a 640x480 image on one core, in milliseconds."""
    cv2.setNumThreads(1)
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    names = (f"{number}.jpg" for number in itertools.count())
    (times,) = in_turn([lambda: corrupter(image, next(names))], rounds, 10, lambda: None)
    return statistics.median(times)


def passes_ms(
    model: str, images: EvaluationSet, corrupter: Corrupter, settings: Settings, workers: int, rounds: int
) -> list[list[float]]:
    """Times of a clean and of a corrupted pass over a data set, in turn: ``[pass][round]``, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        passes: list[Callable[[], Any]] = [
            functools.partial(detect, model, images, each, settings, workers, folder=folder)
            for each in (Corrupter(None), corrupter)
        ]
        return in_turn(passes, rounds, 1, lambda: None)
