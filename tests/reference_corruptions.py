"""The benchmark's corruptions once more: float64, RGB, formula by formula, as slow as they come.

Those without random numbers meet the hashes of what imagecorruptions itself gave (robustness/cococ_reference.json).
"""

import math
from io import BytesIO

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage


def truncated(x: np.ndarray) -> np.ndarray:
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)


def gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([ndimage.gaussian_filter(x[..., c], sigma, mode="nearest", truncate=4) for c in range(3)], 2)


def gaussian_blur(image, severity):
    return truncated(gaussian(image / 255.0, [1, 2, 3, 4, 6][severity - 1]))


def defocus_blur(image, severity):
    radius, alias = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)][severity - 1]
    reach, side = (8, 3) if radius <= 8 else (radius, 5)
    disk = np.zeros((2 * reach + 1, 2 * reach + 1))
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            disk[i + reach, j + reach] = i * i + j * j <= radius * radius
    kernel = disk.astype(np.float32)
    kernel /= kernel.sum()
    kernel = cv2.GaussianBlur(kernel, ksize=(side, side), sigmaX=alias)
    x = image / 255.0
    return truncated(np.stack([cv2.filter2D(x[..., c], -1, kernel) for c in range(3)], 2))


def zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle of float32 ``[H, W, 3]``, enlarged by linear interpolation."""
    middle = [math.ceil(n / factor) for n in x.shape[:2]]
    top, left = ((n - m) // 2 for n, m in zip(x.shape[:2], middle, strict=True))
    part = x[top : top + middle[0], left : left + middle[1]]
    return ndimage.zoom(part, (factor, factor, 1), order=1)


def zoom_blur(image, severity):
    stops = [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)]
    last, step = stops[severity - 1]
    x = (image / 255.0).astype(np.float32)
    total, factors = np.zeros_like(x), np.arange(1, last, step)
    for factor in factors:
        total += zoomed(x, factor)[: x.shape[0], : x.shape[1]]
    return truncated((x + total) / (len(factors) + 1))


def hsv(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue in turns, saturation and value of RGB from 0 to 1."""
    r, g, b = x[..., 0], x[..., 1], x[..., 2]
    v, d = x.max(2), x.max(2) - x.min(2)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.where(d == 0, 0, d / v)
        h = np.zeros_like(v)
        h = np.where(r == v, (g - b) / d, h)
        h = np.where(g == v, 2 + (b - r) / d, h)
        h = np.where(b == v, 4 + (r - g) / d, h)
    return np.where(d == 0, 0, (h / 6) % 1), s, v


def rgb(h: np.ndarray, s: np.ndarray, v: np.ndarray) -> np.ndarray:
    """RGB from 0 to 1."""
    sextant = np.floor(h * 6)
    f = h * 6 - sextant
    p, q, t = v * (1 - s), v * (1 - f * s), v * (1 - (1 - f) * s)
    orders = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)]
    return np.choose((sextant.astype(int) % 6)[..., None], [np.stack(order, 2) for order in orders])


def brightness(image, severity):
    h, s, v = hsv(image / 255.0)
    return truncated(rgb(h, s, np.clip(v + [0.1, 0.2, 0.3, 0.4, 0.5][severity - 1], 0, 1)))


def saturate(image, severity):
    factor, more = [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)][severity - 1]
    h, s, v = hsv(image / 255.0)
    return truncated(rgb(h, np.clip(s * factor + more, 0, 1), v))


def contrast(image, severity):
    x = image / 255.0
    mean = x.mean((0, 1), keepdims=True)
    return truncated((x - mean) * [0.4, 0.3, 0.2, 0.1, 0.05][severity - 1] + mean)


def pixelate(image, severity):
    height, width = image.shape[:2]
    scale = [0.6, 0.5, 0.4, 0.3, 0.25][severity - 1]
    small = Image.fromarray(image).resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
    return np.array(small.resize((width, height), Image.Resampling.NEAREST))


def jpeg_compression(image, severity):
    stream = BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=[25, 18, 15, 10, 7][severity - 1])
    return np.array(Image.open(stream))


DETERMINISTIC = {
    function.__name__: function
    for function in (
        gaussian_blur,
        defocus_blur,
        zoom_blur,
        brightness,
        contrast,
        pixelate,
        jpeg_compression,
        saturate,
    )
}


def scattered(levels: np.ndarray, dx: np.ndarray, dy: np.ndarray, reach: int) -> np.ndarray:
    """One pass of glass blur, pixel by pixel: what is meant to be a swap copies one pixel."""
    levels = levels.copy()
    height, width = levels.shape[:2]
    for h in range(height - reach, reach, -1):
        for w in range(width - reach, reach, -1):
            levels[h, w] = levels[h + dy[h, w], w + dx[h, w]]
    return levels


def motion(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Mean along a ray, sample by sample, in float64."""
    height, width = image.shape[:2]
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    blurred = np.zeros(image.shape)
    for i, weight in enumerate(weights):
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        if abs(down) >= height or abs(right) >= width:
            break
        for y in range(height):
            for x in range(width):
                there = image[min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)]
                blurred[y, x] += weight / sum(weights) * there
    return blurred
