"""Filters that several corruptions share, on images of floating point, ``[H, W]`` or ``[H, W, C]``."""

import functools
import math
from typing import Any

import cv2
import numpy as np


def gaussian(image: np.ndarray, sigma: float, edge: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    """Gaussian blur with the taps and the edges of scikit-image (4 sigma to each side, edge pixels repeated)."""
    taps = gaussian_taps(sigma)
    return cv2.sepFilter2D(image, -1, taps, taps, borderType=edge).reshape(image.shape)


def gaussian_taps(sigma: float, truncate: float = 4) -> np.ndarray:
    """Weights ``exp(-t^2 / 2 sigma^2)`` to `truncate` sigma to each side; their sum is 1."""
    radius = int(truncate * sigma + 0.5)
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return taps / taps.sum()


def motion(image: np.ndarray, radius: float, sigma: float, angle: float) -> np.ndarray:
    """Mean along a ray of ``2 radius + 1`` whole-pixel steps at `angle` degrees, its weights half a Gaussian.

    The pixels at the edge go on outside. A ray that would leave the image altogether is cut off, which darkens it.
    """
    height, width = image.shape[:2]
    steps = np.arange(2 * round(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    radians = math.radians(angle)
    down = np.ceil(steps * math.sin(radians) - 0.5).astype(int)
    right = np.ceil(steps * math.cos(radians) - 0.5).astype(int)
    outside = (abs(down) >= height) | (abs(right) >= width)
    count = int(outside.argmax()) if outside.any() else len(steps)
    down, right = down[:count], right[:count]
    top, left = max(0, -down.min(initial=0)), max(0, -right.min(initial=0))
    below, beyond = max(0, down.max(initial=0)), max(0, right.max(initial=0))
    padded = cv2.copyMakeBorder(image, top, below, left, beyond, cv2.BORDER_REPLICATE)
    blurred = np.zeros_like(image)
    for y, x, weight in zip(down + top, right + left, weights, strict=False):
        blurred = cv2.scaleAdd(padded[y : y + height, x : x + width], float(weight), blurred)
    return blurred


@functools.lru_cache(maxsize=64)
def zoom_matrix(length: int, factor: float, whole: bool = False) -> Any:
    """Linear interpolation that zooms an axis into its middle: sparse float32 ``[n, length]``.

    The middle ``c = ceil(length / factor)`` pixels become ``round(c factor)``, the ends meeting the ends. The benchmark
    keeps the first `length` of them, not the middle ones; `whole` keeps all.
    """
    from scipy.sparse import csr_array

    middle = math.ceil(length / factor)
    top, count = (length - middle) // 2, round(middle * factor)
    position = top + np.arange(count) * ((middle - 1) / max(count - 1, 1))
    position = position if whole else position[:length]
    low = np.minimum(position.astype(int), max(length - 2, 0))
    share = position - low
    columns = np.stack([low, np.minimum(low + 1, length - 1)], 1)
    rows = np.repeat(np.arange(len(position)), 2)
    values = np.stack([1 - share, share], 1).astype(np.float32)
    return csr_array((values.ravel(), (rows, columns.ravel())), shape=(len(position), length))


def sampled(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear samples of ``[H, W, C]`` at float32 coordinates ``[h, w]``; outside it is mirrored at its edge."""
    height, width, channels = image.shape
    flat = image.reshape(-1, channels)
    top, left = np.floor(y), np.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    above, below = (_reflected(top + step, height) * width for step in (0, 1))
    before, after = (_reflected(left + step, width) for step in (0, 1))
    upper = _between(flat, above + before, above + after, right)
    lower = _between(flat, below + before, below + after, right)
    lower -= upper
    lower *= down
    lower += upper
    return lower


def _between(flat: np.ndarray, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    start, end = flat.take(first, 0), flat.take(second, 0)
    end -= start
    end *= share
    end += start
    return end


def _reflected(index: np.ndarray, length: int) -> np.ndarray:
    index = index.astype(np.int32)
    if index.min() < 0 or index.max() >= length:
        index %= 2 * length
        index = np.minimum(index, 2 * length - 1 - index)
    return index
