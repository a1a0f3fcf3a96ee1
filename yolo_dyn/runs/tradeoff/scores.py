"""Accuracy against training time in two scores, IES and RCS (FMDConv paper, Eq. 3-4), and the runs they are of.

What the paper leaves open, and how it is decided here:
- the seconds of an epoch are the median over the epochs (the paper speaks of a mean), so that a pause or a busy hour
  does not count. They are those of the stock trainer, with validation and saving.
- N is the number of images that an epoch trains on: RCS, says the paper, considers the size of the training data. Its
  own N is that on ImageNet (1,281,167), but both splits on CIFAR (60,000), for which `images=60000` is given.
- the accuracy is that of the best epoch; the paper does not say which it reports. A detector's is its AP, which is no
  share of correct images: its scores compare detectors on the same data, and nothing else.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from yolo_dyn.errors import YoloDynError
from yolo_dyn.runs.read import AP, TOP1, read_run, training_images

METRICS = {TOP1: "top-1", AP: "AP"}  # what accuracy is, by the column of results.csv


def ies(seconds: float, top1: float) -> float:
    """Inverse efficiency score: the time of an epoch over its accuracy; lower is better (FMDConv, Eq. 3).

    Args:
        seconds: of an epoch.
        top1: accuracy as a fraction.

    Returns:
        Seconds; infinite for an accuracy of 0.

    Raises:
        YoloDynError: if the seconds are not positive, or the accuracy is no fraction.
    """
    _check(seconds, top1)
    return seconds / top1 if top1 else math.inf


def rcs(seconds: float, top1: float, images: int) -> float:
    """Rate-correct score: correct images a second; higher is better (FMDConv, Eq. 4).

    Args:
        seconds: of an epoch.
        top1: accuracy as a fraction.
        images: N, of an epoch.

    Raises:
        YoloDynError: if the seconds or images are not positive, or the accuracy is no fraction.
    """
    _check(seconds, top1)
    if images < 1:
        raise YoloDynError(f"images must be a positive number, got {images}")
    return top1 * images / seconds


def _check(seconds: float, top1: float) -> None:
    if not 0 < seconds < math.inf:
        raise YoloDynError(f"the seconds of an epoch must be positive, got {seconds:g}")
    if not 0 <= top1 <= 1:
        raise YoloDynError(f"the accuracy must be a fraction between 0 and 1, got {top1:g}")


def seconds_per_epoch(time: list[float]) -> float:
    """Median time of an epoch, from the cumulative `time` of results.csv.

    The first epoch, which warms up, is left out. So is the first after a resume, when the stock trainer's clock starts
    again at 0. (Resumed after a single epoch, the clock may pass the old mark unseen: the median bears that.)

    Args:
        time: seconds since training started or was resumed, at the end of each epoch.

    Returns:
        Seconds; with the warm-up if there is no other epoch.
    """
    later = [end - start for start, end in pairwise(time) if end > start]
    return statistics.median(later or time)


@dataclass(frozen=True)
class Row:
    """One run."""

    run: str
    metric: str  # "top-1" or "AP"
    epochs: int
    best_epoch: int
    images: int  # N
    seconds: float  # of an epoch
    accuracy: float  # a fraction

    @property
    def ies(self) -> float:
        return ies(self.seconds, self.accuracy)

    @property
    def rcs(self) -> float:
        return rcs(self.seconds, self.accuracy, self.images)


def read_row(run: Path, name: str, images: int) -> Row:
    """Read a run's seconds and accuracy.

    Raises:
        YoloDynError: if one of them is not there, or cannot be one.
    """
    columns, file = read_run(run), run / "results.csv"
    column = next((column for column in METRICS if column in columns), None)
    if column is None or "time" not in columns:
        missing = f"accuracy ({' or '.join(METRICS)})" if column is None else "column 'time'"
        raise YoloDynError(f"{file} has no {missing}; it has {', '.join(columns)}")
    accuracies = columns[column]
    best = max(range(len(accuracies)), key=lambda i: -1 if math.isnan(accuracies[i]) else accuracies[i])
    seconds = seconds_per_epoch(columns["time"])
    try:
        _check(seconds, accuracies[best])
    except YoloDynError as error:
        raise YoloDynError(f"{file}: {error}") from error
    epoch = int(columns["epoch"][best]) if "epoch" in columns else best + 1
    return Row(name, METRICS[column], len(accuracies), epoch, images, seconds, accuracies[best])


def counted_images(runs: list[str], arguments: list[dict[str, Any]]) -> Iterator[int]:
    """N of each run; what was counted for one is not counted for another with the same data.

    Raises:
        YoloDynError: if a run's data are not found.
    """
    counted: dict[str, int] = {}
    for run, own in zip(runs, arguments, strict=True):
        key = str([own.get(name) for name in ("task", "data", "fraction")])
        try:
            counted[key] = counted.get(key) or training_images(own)
        except YoloDynError as error:
            raise YoloDynError(
                f"the data of {run} are not found from here: give images=, the number of its training images ({error})"
            ) from error
        yield counted[key]


def check_same_kind(rows: list[Row]) -> None:
    kinds = {metric: [row.run for row in rows if row.metric == metric] for metric in METRICS.values()}
    if all(kinds.values()):
        named = " and ".join(f"{metric} ({', '.join(runs)})" for metric, runs in kinds.items())
        raise YoloDynError(f"classifiers and detectors do not compare: the runs have {named}")
