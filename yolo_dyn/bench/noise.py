"""What noise costs: a corruption on one core, and a noisy pass over a data set beside a clean one."""

import functools
import itertools
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from yolo_dyn.bench.timing import in_turn
from yolo_dyn.data.images import EvaluationSet, evaluation_set
from yolo_dyn.integration.api import chosen_device, chosen_threads
from yolo_dyn.output.arguments import ImageSize, OrDefault, Positive, Severity, checked
from yolo_dyn.output.outcome import Outcome
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.corruptions import find
from yolo_dyn.robustness.evaluate import Settings, detect


@dataclass(frozen=True)
class NoiseCost(Outcome):
    """What a corruption costs alone, and in a pass over a data set."""

    corruption: str
    severity: int
    image_ms: float  # of a 640x480 image on one core
    images: int  # of a pass
    imgsz: int
    rounds: int
    clean_s: float  # median of a pass, seconds
    noisy_s: float
    ratio: float  # median over the rounds of a noisy pass to the clean one of the same round

    def __str__(self) -> str:
        return (
            f"{self.corruption}, severity {self.severity}: {self.image_ms:.1f} ms a 640x480 image on one core\n"
            f"{self.clean_s:.1f} s and {self.noisy_s:.1f} s for a clean and a noisy pass over {self.images} images at"
            f" {self.imgsz} px, {self.rounds} rounds in turn, ratio {self.ratio:.3f}"
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@checked
def bench_noise(
    model: str,
    data: str,
    corruption: str = "gaussian_noise",
    severity: Severity = 3,
    split: str = "val",
    imgsz: ImageSize = 640,
    batch: Positive = 16,
    device: str = "",
    workers: OrDefault = 0,
    rounds: Positive = 3,
) -> NoiseCost:
    """Time what a corruption costs: time on one core, and of a corrupted pass over a data set beside a clean one.

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
    alone = corruption_ms(corrupter)
    images = evaluation_set(data, split)
    settings = Settings(imgsz, batch, device=chosen_device(device), threads=chosen_threads(0))
    clean, noisy = passes_ms(model, images, corrupter, settings, workers, rounds)
    ratio = statistics.median(b / a for a, b in zip(clean, noisy, strict=True))
    clean_s, noisy_s = (statistics.median(series) / 1e3 for series in (clean, noisy))
    return NoiseCost(chosen.name, severity, alone, len(images.files), imgsz, rounds, clean_s, noisy_s, ratio)


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
