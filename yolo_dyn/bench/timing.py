"""Several things timed in turn (A B A B ...), so that a machine whose speed drifts favours none."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from yolo_dyn.integration import image_channels


@dataclass(frozen=True)
class Times:
    """How long a model takes, in milliseconds."""

    model: str
    median_ms: float
    p95_ms: float  # 95th percentile
    ratio: float  # median over the rounds of its time to that of the first model in the same round
    ms: list[float]  # of each round


def summary(name: str, series: list[float], first: list[float]) -> Times:
    """What a model's series comes to beside that of the first model, both in milliseconds by round."""
    ratio = statistics.median(t / reference for t, reference in zip(series, first, strict=True))
    p95 = sorted(series)[min(len(series) - 1, round(0.95 * len(series)))]
    return Times(name, statistics.median(series), p95, ratio, series)


def in_turn(
    steps: list[Callable[[], Any]], rounds: int, warmup: int, synchronize: Callable[[], None]
) -> list[list[float]]:
    """Run the steps in turn; milliseconds of each, ``[step][round]``."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(warmup + rounds):
        for step, series in zip(steps, times, strict=True):
            synchronize()
            start = time.perf_counter()
            step()
            synchronize()
            if turn >= warmup:
                series.append((time.perf_counter() - start) * 1e3)
    return times


def inference_step(model: nn.Module, imgsz: int, batch: int, device: str) -> Callable[[], Any]:
    """A call that runs a model once on random images, as the stock predictor would run it."""
    layout = torch.channels_last if device == "cpu" else torch.contiguous_format
    model = model.fuse(verbose=False).eval().to(device).to(memory_format=layout)  # type: ignore[operator]
    images = torch.rand(batch, image_channels(model), imgsz, imgsz, device=device).to(memory_format=layout)

    def step() -> None:
        with torch.inference_mode():
            model(images)

    return step
