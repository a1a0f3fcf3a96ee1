"""Blur: out of focus, through frosted glass, from motion, from zooming."""

import functools
import math

import cv2
import numpy as np

from yolo_dyn.robustness.corruptions.benchmark import benchmark, truncated
from yolo_dyn.robustness.corruptions.draws import integers, number
from yolo_dyn.robustness.corruptions.filters import gaussian, motion, zoom_matrix
from yolo_dyn.robustness.corruptions.registry import Image


@benchmark((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
def defocus_blur(image: Image, radius: float, alias: float, *, bits: np.random.Philox) -> Image:
    """Mean over a disk of that radius with soft edges."""
    return truncated(255 * cv2.filter2D(image / 255, -1, disk(radius, alias)))


@functools.lru_cache(maxsize=8)
def disk(radius: float, alias: float) -> np.ndarray:
    """Disk smoothed by a Gaussian of `alias` pixels, float32, without the zeros around it.

    Smoothing reflects what reaches the border of the grid, as the benchmark does: from a radius of 8 on the weights
    come to more than 1, and images brighten by 1 %.
    """
    reach = max(8, math.ceil(radius))
    i = np.arange(-reach, reach + 1)
    inside = (i**2 + i[:, None] ** 2 <= radius**2).astype(np.float32)
    inside /= inside.sum()
    side = 3 if radius <= 8 else 5
    kernel = cv2.GaussianBlur(inside, (side, side), alias)
    empty = int((kernel != 0).any(0).argmax())
    return kernel[empty : len(kernel) - empty, empty : len(kernel) - empty]


@benchmark((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
def glass_blur(image: Image, sigma: float, reach: float, iterations: float, *, bits: np.random.Philox) -> Image:
    """Blur, give pixels the colour of another one up to `reach` away, blur.

    The benchmark means to swap two pixels; on its views of colour images this copies one over the other.
    """
    levels = truncated(255 * gaussian(image / 255, sigma))
    for _ in range(round(iterations)):
        levels = scattered(levels, round(reach), bits)
    return truncated(255 * gaussian(levels / 255, sigma))


def scattered(levels: Image, reach: int, bits: np.random.Philox) -> Image:
    """One pass from the last pixel to the first, each copied from where it points to, in a few steps over all at once.

    A pixel that points forward reads what that one, done before it, has got: following such jumps to their end tells
    which of the old pixels it comes from.
    """
    height, width = levels.shape[:2]
    right, down = (integers(bits, (height, width), 2 * reach) - reach for _ in range(2))
    done = np.zeros((height, width), bool)
    done[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    offset = np.where(done, down * width + right, 0).ravel()
    source = np.arange(height * width) + offset
    jump = np.where((offset > 0) & done.ravel()[source], source, np.arange(height * width))
    while not np.array_equal(further := jump[jump], jump):
        jump = further
    return levels.reshape(-1, levels.shape[2])[source[jump]].reshape(levels.shape)


@benchmark((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
def motion_blur(image: Image, radius: float, sigma: float, *, bits: np.random.Philox) -> Image:
    """Mean along a ray in a random direction within 45 degrees of the rows."""
    return truncated(motion(image.astype(np.float32), radius, sigma, number(bits, -45, 45)))


@benchmark((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11))
def zoom_blur(image: Image, step: float, count: float, *, bits: np.random.Philox) -> Image:
    """Mean of the image and of its zooms by 1, 1 + step, ...: the first of which is the image once more."""
    height, width, channels = image.shape
    clean = image.astype(np.float32) / np.float32(255)
    total = cv2.transpose(clean)  # [W, H, C]
    factors = np.arange(1, 1 + step * (round(count) - 0.5), step).tolist()  # numpy's own sums of steps
    for factor in factors[1:]:
        rows = zoom_matrix(height, factor) @ clean.reshape(height, -1)
        turned = cv2.transpose(rows.reshape(height, width, channels)).reshape(width, -1)
        total += (zoom_matrix(width, factor) @ turned).reshape(total.shape)
    return truncated(np.float32(255) * ((clean + cv2.transpose(total)) / np.float32(len(factors) + 1)))


@benchmark(1, 2, 3, 4, 6)
def gaussian_blur(image: Image, sigma: float, *, bits: np.random.Philox) -> Image:
    """Mean weighted by a Gaussian of that many pixels."""
    return truncated(255 * gaussian(image / 255, sigma))
