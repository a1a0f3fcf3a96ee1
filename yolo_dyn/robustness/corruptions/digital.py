"""Digital: contrast, elastic deformation, large pixels, JPEG and colour saturation."""

import cv2
import numpy as np

from yolo_dyn.robustness.corruptions.benchmark import benchmark, truncated, with_hsv
from yolo_dyn.robustness.corruptions.draws import uniform
from yolo_dyn.robustness.corruptions.filters import gaussian_taps, sampled
from yolo_dyn.robustness.corruptions.registry import Image


@benchmark(0.4, 0.3, 0.2, 0.1, 0.05, any_channels=True)
def contrast(image: Image, share: float, *, bits: np.random.Philox) -> Image:
    """Move each value towards its channel's mean."""
    x = np.arange(256)[:, None] / 255
    mean = (image / 255).mean((0, 1))  # of the shares of white: the mean of levels would differ in its last bit
    table = truncated(255 * np.clip((x - mean) * share + mean, 0, 1))  # [256, C]
    return np.stack([table[image[..., c], c] for c in range(image.shape[2])], 2)


@benchmark(12.5, 16.25, 21.25, 25, 30)
def elastic_transform(image: Image, alpha: float, *, bits: np.random.Philox) -> Image:
    """Shift pixels by smooth random vectors. Boxes are not moved, as in the benchmark."""
    height, width = image.shape[:2]
    most = 0.005 * height  # for columns too
    down_taps, right_taps = (gaussian_taps(0.01 * length, truncate=3) for length in (height, width))
    right, down = (
        np.float32(alpha)
        * cv2.sepFilter2D(
            uniform(bits, (height, width), -most, most), -1, right_taps, down_taps, borderType=cv2.BORDER_REFLECT
        )
        for _ in range(2)
    )
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return truncated(sampled(image.astype(np.float32), y + down, x + right))


@benchmark(0.6, 0.5, 0.4, 0.3, 0.25)
def pixelate(image: Image, scale: float, *, bits: np.random.Philox) -> Image:
    """Make the image smaller by means over boxes, and large again by repeating pixels."""
    from PIL.Image import Resampling, fromarray

    height, width = image.shape[:2]
    small = fromarray(image).resize((max(1, int(width * scale)), max(1, int(height * scale))), Resampling.BOX)
    return np.array(small.resize((width, height), Resampling.NEAREST))


@benchmark(25, 18, 15, 10, 7)
def jpeg_compression(image: Image, quality: float, *, bits: np.random.Philox) -> Image:
    """Compress as JPEG of that quality, chroma at half the resolution, and decode."""
    _, file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, round(quality)])
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR))[..., ::-1]


@benchmark((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))
def saturate(image: Image, factor: float, more: float, *, bits: np.random.Philox) -> Image:
    """Change S of HSV to ``factor S + more``. Greys have the hue of red, and turn red where `more` is not 0."""
    return with_hsv(image, lambda saturation, value: (np.clip(factor * saturation + more, 0, 1), value))
