"""The photon transfer curve: variance against mean of a burst of equal frames, and the noise that is fitted to it.

Janesick 2007, "Photon Transfer", plots it; ``variance = a mean + b`` is the model of Foi et al. 2008. What is not noise
is left out first: pixels that move, slopes of the picture, values at the ends of the range, and what rounding adds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from yolo_dyn.robustness.corruptions.light import light_of_levels

BINS = 64  # of pixels with about the same mean, in each channel
FAR = 6  # deviations from a pixel's mean that noise alone does not reach
SLOPE = 0.02  # of the mean a pixel
SMOOTH = 2.0  # pixels, before slopes are taken of a mean that is itself noisy
CLIPPED = 0.001  # share of a bin's values at either end of the range, above which the bin is left out
FINEST = 0.3  # steps of the levels: noise of less deviation is not seen through them
ROUNDS = 4  # of the fit, each with weights from the one before


@dataclass(frozen=True)
class Channel:
    """One channel of a burst, in linear light."""

    residual: np.ndarray  # float32 [N, H, W], of each frame from the mean
    mean: np.ndarray  # float32 [H, W]
    halves: tuple[np.ndarray, np.ndarray]  # float32 [H, W], means of every second frame and of the others
    variance: np.ndarray  # float32 [H, W], unbiased, with that of the rounding, independent of the halves' means
    step: np.ndarray  # float32 [H, W], of the levels at the mean
    clipped: np.ndarray  # float32 [H, W], share of values at an end of the range
    slope: np.ndarray  # float32 [H, W], of the smoothed mean, a pixel
    flat: np.ndarray  # bool [H, W], no more slope than is allowed
    moved: np.ndarray  # bool [H, W]

    @property
    def kept(self) -> np.ndarray:
        """Pixels that show noise alone."""
        return self.flat & ~self.moved


@dataclass(frozen=True)
class Bins:
    """Pixels of about the same mean, together: arrays of one value a bin."""

    mean: np.ndarray
    variance: np.ndarray  # without that of the rounding
    channel: np.ndarray
    count: np.ndarray  # of pixels
    clipped: np.ndarray  # bool, too many values at an end of the range
    visible: np.ndarray  # bool, more noise than the steps of the levels hide
    steeper: np.ndarray  # variance of the pixels with more slope than the bin's mean, to that of the others

    @property
    def used(self) -> np.ndarray:
        """Whether each bin is part of the fit."""
        return (self.count > 0) & ~self.clipped & self.visible

    @classmethod
    def joined(cls, several: Sequence["Bins"]) -> "Bins":
        """The bins of several channels."""
        return cls(*(np.concatenate(values) for values in zip(*(vars(one).values() for one in several), strict=True)))


@dataclass(frozen=True)
class Fit:
    """``variance = a mean + b``."""

    a: float
    b: float
    b_error: float  # standard error
    r2: float


def channels(frames: np.ndarray, transfer: str) -> Iterator[Channel]:
    """The channels of a burst, uint8 or uint16 ``[N, H, W, C]``, one by one, since each takes four times its memory."""
    most = int(np.iinfo(frames.dtype).max)
    table = light_of_levels(most, transfer)
    for levels in np.moveaxis(frames, 3, 0):
        light = table[levels]  # [N, H, W]
        brightness = light.mean((1, 2), dtype=np.float64)
        light *= (brightness.mean() / brightness).astype(np.float32)[:, None, None]
        even, odd = light[::2], light[1::2]
        halves = even.mean(0), odd.mean(0)
        degrees = len(light) - 2  # of freedom: each half is seen from its own mean
        variance = (len(even) * even.var(0) + len(odd) * odd.var(0)) / degrees
        mean = light.mean(0)
        light -= mean
        step = np.interp(mean, table, np.gradient(table)).astype(np.float32)
        clipped = ((levels == 0) | (levels == most)).mean(0, dtype=np.float32)
        slope = _slope(mean)
        flat = slope <= np.maximum(SLOPE * mean, 4 * _slope_of_noise(variance, len(light)))
        typical = _typical(mean, variance, step, flat, degrees)
        moved = (np.abs(light).max(0) > FAR * np.sqrt(typical)) | (variance > _unlikely(degrees) * typical)
        yield Channel(light, mean, halves, variance, step, clipped, slope, flat, moved)


def _slope(mean: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(mean, (0, 0), SMOOTH, borderType=cv2.BORDER_REPLICATE)
    down, right = np.gradient(smooth)
    return np.hypot(down, right)


def _slope_of_noise(variance: np.ndarray, count: int) -> np.ndarray:
    """Deviation of the slope that the mean of so many noisy frames has by itself, from the derivative of a Gaussian."""
    around = np.maximum(cv2.blur(variance, (15, 15)), 0)  # its running sums round
    return np.sqrt(around / count / (8 * np.pi)) / SMOOTH**2


def _typical(mean: np.ndarray, variance: np.ndarray, step: np.ndarray, flat: np.ndarray, degrees: int) -> np.ndarray:
    """Variance of the noise at each pixel, from medians of pixels of about its mean, which few moving ones change."""
    from scipy.stats import chi2

    place, edges = _binned(mean[flat])
    order = np.argsort(place, kind="stable")
    groups = np.split(variance[flat][order], np.cumsum(np.bincount(place, minlength=len(edges) - 1))[:-1])
    medians = np.array([np.median(group) if len(group) else np.nan for group in groups])
    known = ~np.isnan(medians)
    middles = ((edges[1:] + edges[:-1]) / 2)[known]
    typical = medians[known] * (degrees / chi2.median(degrees))
    return np.maximum(np.interp(mean, middles, typical), step**2 / 12)


def _unlikely(degrees: int) -> float:
    """How many times its true variance one of so many degrees of freedom is once in ten million."""
    from scipy.stats import chi2

    return float(chi2.isf(1e-7, degrees) / degrees)


def _binned(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bin of each pixel, bins having equal numbers of them, and the bins' edges."""
    edges = np.unique(np.quantile(mean, np.linspace(0, 1, BINS + 1)))
    return np.clip(np.searchsorted(edges, mean, side="right") - 1, 0, max(len(edges) - 2, 0)), edges


def bins(channel: Channel, number: int) -> Bins:
    """The bins of a channel of that number.

    One half of the frames says which bin a pixel is in, the other half how bright the bin is: the brightest bin holds
    the pixels whose noise was highest, and its own mean would be too high, the line too flat.
    """
    kept = channel.kept
    mean, variance, step = channel.halves[1][kept], channel.variance[kept], channel.step[kept]
    place, _ = _binned(channel.halves[0][kept])
    count = np.bincount(place)

    def average(values: np.ndarray) -> np.ndarray:
        return np.bincount(place, values) / np.maximum(count, 1)

    own = average(variance) - average(step**2) / 12
    steep = channel.slope[kept] > average(channel.slope[kept])[place]
    sums, many = np.bincount(place, variance * steep, len(count)), np.bincount(place, steep, len(count))
    less = (count * average(variance) - sums) / np.maximum(count - many, 1)
    return Bins(
        mean=average(mean),
        variance=own,
        channel=np.full(len(count), number),
        count=count,
        clipped=average(channel.clipped[kept]) > CLIPPED,
        visible=own > (FINEST * average(step)) ** 2,
        steeper=sums / np.maximum(many, 1) / np.maximum(less, 1e-30),
    )


def fitted(mean: np.ndarray, variance: np.ndarray) -> Fit:
    """Weighted least squares: a variance's own deviation is in proportion to it. `b` is at least 0."""
    weights = 1 / variance**2
    for _ in range(ROUNDS):
        a, b = _line(mean, variance, weights)
        weights = 1 / np.maximum(a * mean + b, 1e-12) ** 2
    off, spread = variance - a * mean - b, variance - np.average(variance, weights=weights)
    about = (weights * off**2).sum() / max(len(mean) - 2, 1)  # the unit of the weights
    normal = np.array([[weights.sum(), (weights * mean).sum()], [(weights * mean).sum(), (weights * mean**2).sum()]])
    r2 = 1 - (weights * off**2).sum() / (weights * spread**2).sum()
    return Fit(a, b, float(np.sqrt(about * np.linalg.inv(normal)[0, 0])), float(r2))


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    x0, y0 = (np.average(values, weights=weights) for values in (x, y))
    a = float((weights * (x - x0) * (y - y0)).sum() / (weights * (x - x0) ** 2).sum())
    b = float(y0 - a * x0)
    return (a, b) if b >= 0 else (float((weights * x * y).sum() / (weights * x * x).sum()), 0.0)
