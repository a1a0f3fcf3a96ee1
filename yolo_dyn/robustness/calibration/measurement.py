"""What a burst says of a camera's noise, and whether it is a camera's at all."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from yolo_dyn.robustness.calibration.photon_transfer import Bins, Fit, bins, channels, fitted
from yolo_dyn.robustness.calibration.residuals import precision, rows, traces

LEAST = 8  # bins of a channel for a fit of its own
MOVED = 0.005  # share of pixels
STEEPER = 1.03  # variance where the picture is steeper, to that where it is flatter
ALIKE = 0.1  # correlation
PEAKED = 0.2  # excess of the fourth moment
STRAIGHT = 0.98  # R^2


@dataclass(frozen=True)
class Measurement:
    """What a burst says of the noise, before anyone judges whether it is that of a camera."""

    size: tuple[int, int, int]  # frames, height, width
    bins: Bins
    moved: float  # share of the pixels
    kept: float
    offsets: float  # variance of the rows'
    right: float  # correlations, see `traces`
    below: float
    later: float
    excess: float

    @classmethod
    def of(cls, frames: np.ndarray, transfer: str) -> "Measurement":
        """Measure a burst, see `read_burst`."""
        own, shares, offsets, found = [], [], [], []
        for number, channel in enumerate(channels(frames, transfer)):
            own.append(bins(channel, number))
            shares.append((channel.moved.mean(), channel.kept.mean()))
            if own[-1].used.any():
                weight = precision(channel, own[-1])
                offsets.append(rows(channel, weight))
                found.append(traces(channel, weight))
        moved, kept = np.mean(shares, 0)
        variance = sum(offsets[1:], offsets[0]).offset_variance if offsets else 0.0
        right, below, later, excess = map(float, np.mean(found, 0)) if found else [0.0] * 4
        return cls(frames.shape[:3], Bins.joined(own), float(moved), float(kept), variance, right, below, later, excess)

    @property
    def steeper(self) -> float:
        """Variance where the picture is steeper, to that where it is flatter."""
        return float(np.average(self.bins.steeper[self.bins.used], weights=self.bins.count[self.bins.used]))

    def fit(self, channel: int | None = None) -> Fit:
        """The line through all bins that are used, or those of a channel."""
        chosen = self.bins.used & (True if channel is None else self.bins.channel == channel)
        return fitted(self.bins.mean[chosen], self.bins.variance[chosen])

    def movement(self) -> Iterator[str]:
        """What shows that the frames are not of one scene at rest."""
        if self.moved > MOVED:
            yield f"{self.moved:.1%} of the pixels change by more than noise (at most {MOVED:.1%}): something moves"
        values = self.bins.count[self.bins.used].sum() * (self.size[0] - 1)
        if self.steeper > STEEPER + 4 * (8 / values) ** 0.5:
            yield (
                f"the variance is {self.steeper:.2f} times as large where the picture is steeper (at most {STEEPER}):"
                " the camera moves"
            )

    def filtering(self) -> Iterator[str]:
        """What shows that the noise is not as the sensor had it."""
        alike = max(self.right, self.below)
        if alike > ALIKE:
            yield f"neighbouring pixels have a correlation of {alike:.2f} (at most {ALIKE}): denoised or demosaiced"
        if self.later > ALIKE:
            yield f"successive frames have a correlation of {self.later:.2f} (at most {ALIKE}): denoised over time"
        if self.excess > PEAKED:
            yield f"the noise has an excess kurtosis of {self.excess:.2f} (at most {PEAKED}): denoised at edges"
        numbers = [
            n for n in np.unique(self.bins.channel) if (self.bins.used & (self.bins.channel == n)).sum() >= LEAST
        ]
        worst = min((self.fit(n).r2 for n in numbers), default=1.0)
        if worst < STRAIGHT:
            yield f"the variance is no line of the mean, R^2 {worst:.3f} (at least {STRAIGHT}): denoised or compressed"
