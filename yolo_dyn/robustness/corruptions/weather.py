"""Weather: snow, fog, bright light and spatter; frost is a file of its own."""

import cv2
import numpy as np

from yolo_dyn.robustness.corruptions.benchmark import benchmark, grey, truncated, with_hsv
from yolo_dyn.robustness.corruptions.draws import normal, number, uniform
from yolo_dyn.robustness.corruptions.filters import gaussian, motion, zoom_matrix
from yolo_dyn.robustness.corruptions.registry import Image

WATER, MUD = (175, 238, 238), (63, 42, 20)  # RGB


@benchmark(
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
def snow(
    image: Image,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    kept: float,
    *,
    bits: np.random.Philox,
) -> Image:
    """Flakes, zoomed and blurred along their fall, once more turned by 180 degrees, over a whitened image."""
    height, width = image.shape[:2]
    layer = np.float32(mean) + np.float32(deviation) * normal(bits, (height, width))
    angle = number(bits, -135, -45)
    layer = zoom_matrix(height, zoom, whole=True) @ layer
    layer = (zoom_matrix(width, zoom, whole=True) @ np.ascontiguousarray(layer.T)).T
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1).astype(np.float32)
    flakes = np.rint(255 * motion(np.ascontiguousarray(layer), radius, sigma, angle)[:height, :width]) / 255
    x = image.astype(np.float32) / 255
    whitened = np.maximum(x, 1.5 * grey(x)[..., None] + 0.5)
    falling = (flakes + flakes[::-1, ::-1])[..., None]
    return truncated(255 * (kept * x + (1 - kept) * whitened + falling))


@benchmark((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
def fog(image: Image, amount: float, decay: float, *, bits: np.random.Philox) -> Image:
    """Add a plasma fractal, and darken so that the brightest value stays: a black image stays black."""
    height, width = image.shape[:2]
    x = image.astype(np.float32) / 255
    brightest = x.max()
    if not brightest:
        return image.copy()
    plasma = np.float32(amount) * plasma_fractal(max(height, width), decay, bits)[:height, :width, None]
    return truncated(255 * ((x + plasma) * (brightest / (brightest + np.float32(amount)))))


def plasma_fractal(side: int, decay: float, bits: np.random.Philox) -> np.ndarray:
    """Diamond-square fractal from 0 to 1 on a torus, float32 ``[n, n]``, n the next power of two.

    The middle of each square of four is their mean and a random number, then the middles of the edges between; then
    the same at half the step. The benchmark multiplies the random numbers by the amplitude twice.
    """
    n = step = max(2, 1 << (side - 1).bit_length())
    plasma = np.zeros((n, n), np.float32)
    wobble = 100.0

    def near(four: np.ndarray) -> np.ndarray:
        return four / 4 + np.float32(wobble) * uniform(bits, four.shape, -wobble, wobble)

    while step >= 2:
        half = step // 2
        corners = plasma[::step, ::step]
        rows = corners + np.roll(corners, -1, 0)
        plasma[half::step, half::step] = near(rows + np.roll(rows, -1, 1))
        middles = plasma[half::step, half::step]
        plasma[::step, half::step] = near(middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1))
        plasma[half::step, ::step] = near(middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0))
        step, wobble = half, wobble / decay
    plasma -= plasma.min()
    return plasma / plasma.max()


@benchmark(0.1, 0.2, 0.3, 0.4, 0.5)
def brightness(image: Image, more: float, *, bits: np.random.Philox) -> Image:
    """Raise V of HSV, the largest of R, G and B, by a share of white; hue and saturation stay, and black turns grey."""
    return with_hsv(image, lambda saturation, value: (saturation, np.minimum(value + more, 1)))


@benchmark(
    (0.65, 0.3, 4, 0.69, 0.6, 0),
    (0.65, 0.3, 3, 0.68, 0.6, 0),
    (0.65, 0.3, 2, 0.68, 0.5, 0),
    (0.65, 0.3, 1, 0.65, 1.5, 1),
    (0.67, 0.4, 1, 0.65, 1.5, 1),
    luma=True,
)
def spatter(
    image: Image,
    mean: float,
    deviation: float,
    sigma: float,
    threshold: float,
    amount: float,
    mud: float,
    *,
    bits: np.random.Philox,
) -> Image:
    """Drops of water, at severities 4 and 5 of mud, on the lens."""
    noise = np.float32(mean) + np.float32(deviation) * normal(bits, image.shape[:2])
    liquid = gaussian(noise, sigma)
    liquid[liquid < threshold] = 0
    x = image.astype(np.float32)
    if mud < 0.5:
        return truncated(x + np.float32(amount) * _shining(liquid)[..., None] * np.array(WATER, np.float32))
    cover = gaussian((liquid > threshold).astype(np.float32), amount)
    cover[cover < 0.8] = 0
    return truncated(x * (1 - cover[..., None]) + cover[..., None] * np.array(MUD, np.float32))


def _shining(liquid: np.ndarray) -> np.ndarray:
    """Share of the water's colour: drops with light and shade along their edges, at most 1."""
    levels = truncated(255 * liquid)
    distance = cv2.distanceTransform(255 - cv2.Canny(levels, 50, 150), cv2.DIST_L2, 5)
    near = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    relief = cv2.filter2D(cv2.equalizeHist(near), cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32))
    shining = levels * cv2.blur(relief, (3, 3)).astype(np.float32)
    return shining / max(shining.max(), 1)
