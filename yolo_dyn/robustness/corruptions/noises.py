"""Noise: what the benchmark adds to each value of an image by itself."""

import functools

import cv2
import numpy as np

from yolo_dyn.robustness.corruptions.benchmark import benchmark
from yolo_dyn.robustness.corruptions.draws import normal_quantiles, uniform16
from yolo_dyn.robustness.corruptions.registry import Image


@benchmark(0.08, 0.12, 0.18, 0.26, 0.38, any_channels=True)
def gaussian_noise(image: Image, deviation: float, *, bits: np.random.Philox) -> Image:
    """Add zero-mean noise of that share of white; cut off below the point, so that the mean falls by half a level."""
    noise = np.floor(255 * deviation * normal_quantiles().astype(np.float64)).astype(np.int16)
    return cv2.add(image, noise[uniform16(bits, image.shape)], dtype=cv2.CV_8U).reshape(image.shape)  # saturates


@benchmark(60, 25, 12, 5, 3, any_channels=True)
def shot_noise(image: Image, photons: float, *, bits: np.random.Philox) -> Image:
    """Count photons: a Poisson number with a mean of `photons` for a white pixel."""
    return poisson_levels(photons)[image, uniform16(bits, image.shape)]


@functools.lru_cache(maxsize=2)
def poisson_levels(photons: float) -> np.ndarray:
    """Grey level for each level of the clean image and each uniform number, uint8 ``[256, 65536]``."""
    from scipy.stats import poisson

    means = np.arange(256) / 255 * photons
    counts = np.arange(int(photons + 12 * photons**0.5 + 30))
    cumulative = poisson.cdf(counts[None], means[:, None])  # [256, counts]
    uniform = (np.arange(65536) + 0.5) / 65536
    levels = np.minimum(255, np.floor(255 * counts / photons)).astype(np.uint8)
    return np.stack([levels[np.searchsorted(row, uniform).clip(max=len(counts) - 1)] for row in cumulative])


@benchmark(0.03, 0.06, 0.09, 0.17, 0.27, any_channels=True)
def impulse_noise(image: Image, share: float, *, bits: np.random.Philox) -> Image:
    """Set a share of all values to black or to white, half of it each."""
    uniform = uniform16(bits, image.shape)
    low, high = round(65536 * share / 2), round(65536 * (1 - share / 2))
    return np.where(uniform < low, 0, np.where(uniform >= high, 255, image)).astype(np.uint8)


@benchmark(0.15, 0.2, 0.35, 0.45, 0.6, any_channels=True)
def speckle_noise(image: Image, deviation: float, *, bits: np.random.Philox) -> Image:
    """Multiply each value by one plus zero-mean noise."""
    factor = np.float32(1) + np.float32(deviation) * normal_quantiles()
    return np.clip(image * factor[uniform16(bits, image.shape)], 0, 255).astype(np.uint8)
