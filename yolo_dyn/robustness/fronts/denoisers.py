"""The denoisers of OpenCV that an edge device can afford.

Parameters are functions of the noise's standard deviation sigma in grey levels, those of the highest PSNR on photos
with Gaussian noise of 10 to 97 grey levels. Other corruptions get the same ones.
"""

import time
from collections.abc import Callable

import cv2
import numpy as np

from yolo_dyn.robustness.corruptions import Image
from yolo_dyn.robustness.fronts.registry import register_front

HEAVY = 40.0  # sigma from which on a bilateral filter takes too many noisy pixels for edges: on photos both are equal
DIAMETER, SPREAD = 7, 3.0  # of the bilateral filter, pixels
PATCH, WINDOW = 5, 11  # sides of what non-local means compares, and of where it looks, pixels


def _by_colour(denoise: Callable[[Image], Image], image: Image) -> Image:
    """Grey images and colours as a whole; any other channels each for itself."""
    if image.shape[2] in (1, 3):
        return denoise(image).reshape(image.shape)
    return np.stack([denoise(np.ascontiguousarray(image[..., c])) for c in range(image.shape[2])], 2)


@register_front("bilateral", by_sigma=True, clock=time.thread_time)
def bilateral(image: Image, sigma: float) -> Image:
    """A bilateral filter, under heavy noise behind a 3x3 median."""
    if sigma >= HEAVY:
        image = _by_colour(lambda x: cv2.medianBlur(x, 3), image)
    colour = (2 if sigma >= HEAVY else 4) * sigma
    # from 1 on: OpenCV 4 takes 1 in the place of 0, OpenCV 5 does nothing
    return _by_colour(lambda x: cv2.bilateralFilter(x, DIAMETER, max(1.0, colour), SPREAD), image)


@register_front("median", clock=time.thread_time)
def median(image: Image) -> Image:
    """A 3x3 median: against single wrong pixels, and the cheapest there is."""
    return _by_colour(lambda x: cv2.medianBlur(x, 3), image)


@register_front("median5", clock=time.thread_time)
def median5(image: Image) -> Image:
    """A 5x5 median."""
    return _by_colour(lambda x: cv2.medianBlur(x, 5), image)


@register_front("nlm", by_sigma=True, clock=time.thread_time)
def nlm(image: Image, sigma: float) -> Image:
    """Non-local means (Buades et al. 2005), on all colours together."""
    return _by_colour(lambda x: cv2.fastNlMeansDenoising(x, None, 0.9 * sigma, PATCH, WINDOW), image)
