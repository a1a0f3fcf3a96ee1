"""What noise costs: a corruption on one core, and a noisy pass over a data set beside a clean one."""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from yolo_dyn.deploy.latency import in_turn
from yolo_dyn.robustness.corruptions import find
from yolo_dyn.robustness.evaluate import Corrupter, Settings, detect
from yolo_dyn.robustness.images import evaluation_set
from yolo_dyn.robustness.plan import chosen_device, chosen_threads


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
    """Time a corruption of a 640x480 image on one core, and a corrupted pass over a data set to a clean one, in turn.

    Args:
        model: checkpoint or exported model.
        data: an Ultralytics data YAML.
        corruption: name of a registered corruption.
        severity: 1 to 5.
        split: "train", "val" or "test".
        imgsz: images are letterboxed to a square of so many pixels.
        batch: images a batch.
        device: torch device; the first GPU where there is one, else the CPU.
        workers: processes that read and corrupt images.
        rounds: passes of each kind, after one of each that does not count.
    """
    chosen = find(corruption)
    strength = chosen.strengths[severity - 1]
    cv2.setNumThreads(1)
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    times = []
    for number in range(60):
        start = time.perf_counter()
        chosen.apply(image, strength, 0, f"{number}.jpg")
        times.append((time.perf_counter() - start) * 1e3)
    print(f"{corruption}, severity {severity}: {statistics.median(times[10:]):.1f} ms a 640x480 image on one core")

    images = evaluation_set(data, split)
    settings = Settings(imgsz, batch, device=chosen_device(device), threads=chosen_threads(0))
    with tempfile.TemporaryDirectory() as folder:
        passes: list[Callable[[], Any]] = [
            functools.partial(detect, model, images, corrupter, settings, workers, folder=folder)
            for corrupter in (Corrupter(None), Corrupter(chosen, strength))
        ]
        clean, noisy = in_turn(passes, rounds, 1, lambda: None)
    ratio = statistics.median(b / a for a, b in zip(clean, noisy, strict=True))
    seconds = (f"{statistics.median(series) / 1e3:.1f} s" for series in (clean, noisy))
    print(
        f"{' and '.join(seconds)} for a clean and a noisy pass over {len(images.files)} images at {imgsz} px,"
        f" {rounds} rounds in turn, ratio {ratio:.3f}"
    )
