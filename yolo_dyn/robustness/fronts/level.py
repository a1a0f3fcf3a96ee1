"""How much noise an image has, as far as the image itself can tell: a denoiser on a device knows no more."""

import cv2
import numpy as np

from yolo_dyn.robustness.corruptions import Image

SECOND_DIFFERENCES = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
PER_SIGMA = 6 * 0.6744897501960817  # median size of their response to noise of sigma 1: its standard deviation is 6


def noise_level(image: Image) -> float:
    """The standard deviation of an image's noise in grey levels, estimated from the image alone.

    Second differences in both directions leave out what is flat, a slope or an edge along an axis; the median of their
    absolute values leaves out most of the other edges. Noise that neighbouring pixels share is underestimated, fine
    texture is taken for noise, and noise that black and white have cut off counts as what is left of it.

    Args:
        image: uint8 ``[H, W, C]``.

    Returns:
        The estimate; 0 for an image without an inner pixel.

    Source:
        The mask is Immerkaer's (Fast noise variance estimation, 1996), the median Donoho's (De-noising by
        soft-thresholding, 1995).
    """
    if min(image.shape[:2]) < 3:
        return 0.0
    response = np.abs(cv2.filter2D(image, cv2.CV_16S, SECOND_DIFFERENCES))[1:-1, 1:-1]
    counts = np.bincount(response.ravel())
    return int(np.searchsorted(counts.cumsum(), response.size / 2)) / PER_SIGMA
