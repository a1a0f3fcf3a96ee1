"""The embedded data sets: drawn shapes on textured backgrounds, made offline at first use from a seed.

The images are the same for every task: detection, segmentation, poses and rotated boxes (see `outlines`).

Every byte is the same on every machine: the randomness is Python's ``random.Random.random`` and the raw bits of numpy's
PCG64, both of which promise their stream, and all drawing is integer arithmetic. Images are BMP, whose bytes do not
depend on a compressor.
"""

import math
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from yolo_dyn.data.outlines import COS, SIN, STAR, TURNS, UNIT, Shape, label
from yolo_dyn.errors import YoloDynError

SEED = 0
SIZE = 192  # pixels, height and width
SPLITS = {"train": 800, "val": 200}
NAMES = ("circle", "square", "triangle", "bar", "cross", "star", "crescent")

_FINE = 2  # fine pixels along a pixel: masks are drawn at this multiple of the resolution, for smooth edges

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def _star(u: Ints, v: Ints, r: int) -> Mask:
    """A pentagram: inside at least four of the five half-planes at distance r cos(72 degrees)."""
    inside = [u * c + v * s <= r * 309 * UNIT // 1000 for c, s in STAR]
    return np.sum(inside, 0) >= 4


# u and v are coordinates along the shape's own axes, r its circumscribed radius, all in 1/1024 of a fine pixel
_INSIDE: dict[str, Callable[[Ints, Ints, int], Mask]] = {
    "circle": lambda u, v, r: u * u + v * v <= r * r,
    "square": lambda u, v, r: np.maximum(abs(u), abs(v)) <= r * 3 // 4,
    "triangle": lambda u, v, r: (v >= -r // 2) & (1000 * v + 1732 * abs(u) <= 1000 * r),
    "bar": lambda u, v, r: (abs(u) <= r) & (abs(v) <= r // 4),
    "cross": lambda u, v, r: (np.minimum(abs(u), abs(v)) <= r // 4) & (np.maximum(abs(u), abs(v)) <= r),
    "star": _star,
    "crescent": lambda u, v, r: (u * u + v * v <= r * r) & ((u - r // 2) ** 2 + v * v > (r * 4 // 5) ** 2),
}


def draw(folder: str | Path, task: str = "detect") -> None:
    """Draw the whole data set, images and YOLO labels of a task, into a folder, unless it is there.

    The folder appears only when it is complete, whichever of several processes is the first. Called by the
    ``download:`` keys of ``datasets/shapes.yaml`` and its siblings.

    Raises:
        YoloDynError: if there is a folder that is not the whole data set.
    """
    from ultralytics.utils import TQDM

    folder = Path(folder)
    if _is_complete(folder):
        return
    if folder.exists():
        raise YoloDynError(f"{folder} exists but is not the complete shapes data set; move it away to draw it anew")
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    try:
        for split, count in SPLITS.items():
            images, labels = partial / "images" / split, partial / "labels" / split
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for index in TQDM(range(count), desc=f"drawing {split}"):
                image, rows = draw_image(split, index, task)
                cv2.imwrite(str(images / f"{index:04}.bmp"), image)
                (labels / f"{index:04}.txt").write_bytes("".join(f"{row}\n" for row in rows).encode())
        try:
            partial.rename(folder)
        except OSError:
            if not _is_complete(folder):  # else another process was faster, and has drawn the same
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_complete(folder: Path) -> bool:
    return all(len(list((folder / "images" / split).glob("*.bmp"))) == count for split, count in SPLITS.items())


def draw_image(split: str, index: int, task: str = "detect") -> tuple[NDArray[np.uint8], list[str]]:
    """Draw one image and its labels.

    Args:
        split: "train" or "val".
        index: number of the image within its split.
        task: "detect", "segment", "pose" or "obb".

    Returns:
        The image, uint8 ``[H, W, 3]`` in BGR, and one row a shape, in fractions of the image: ``class x y w h``, or as
        Ultralytics has it for another task.
    """
    image, found = draw_shapes(split, index)
    return image, [label(shape, task, NAMES.index(shape.name), SIZE) for shape in found]


def draw_shapes(split: str, index: int) -> tuple[NDArray[np.uint8], list[Shape]]:
    """Draw one image, uint8 ``[H, W, 3]`` in BGR; with its shapes, in the order in which they were drawn."""
    seed = (SEED * len(SPLITS) + list(SPLITS).index(split)) * 1_000_000 + index
    rng, bits = random.Random(seed), np.random.PCG64(seed)
    canvas = _background(rng, bits)
    visible: list[Mask] = []
    areas: list[int] = []
    found: list[Shape] = []
    for _ in range(_between(rng, 3, 8)):
        name = NAMES[_between(rng, 0, len(NAMES) - 1)]
        shape, outlined = _placed(rng, name)
        coverage = _coverage(shape, outlined)  # [H, W], 0 .. 4 fine pixels
        mask = coverage >= _FINE
        if int(mask.sum()) < 30 or any(
            (seen & ~mask).sum() * 2 < area for seen, area in zip(visible, areas, strict=True)
        ):
            continue  # too little of it in the image, or it would hide more than half of an earlier shape
        visible = [seen & ~mask for seen in visible] + [mask]
        areas.append(int(mask.sum()))
        found.append(replace(shape, box=_box(mask)))
        canvas = _paint(canvas, coverage, _contrasting(rng, canvas[mask].mean(0).astype(np.int64)))
    for _ in range(max(0, _between(rng, -3, 2))):
        canvas = _blur(canvas)
    noise = _raw(bits, (SIZE, SIZE, 3), 1 + 2 * _between(rng, 0, 8))
    return np.clip(canvas + noise - noise.max() // 2, 0, 255).astype(np.uint8), found


def _between(rng: random.Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


def _raw(bits: np.random.PCG64, shape: tuple[int, ...], below: int) -> Ints:
    """Uniform integers from the generator's raw bits, whose stream numpy promises."""
    return (bits.random_raw(math.prod(shape)).reshape(shape) % below).astype(np.int64)


def _color(rng: random.Random) -> Ints:
    return np.array([_between(rng, 0, 255) for _ in range(3)], np.int64)


def _contrasting(rng: random.Random, background: Ints) -> Ints:
    colors = [_color(rng) for _ in range(4)]
    return max(colors, key=lambda color: int(abs(color - background).sum()))


def _background(rng: random.Random, bits: np.random.PCG64) -> Ints:
    """Two colours mixed by a texture: gradient, stripes, checks or clouds."""
    y, x = np.mgrid[:SIZE, :SIZE]
    a, b = _between(rng, -4, 4), _between(rng, -4, 4)
    period, kind = _between(rng, 8, 40), _between(rng, 0, 3)
    if kind == 0:
        mix = (a * x + b * y) % (8 * SIZE) * 255 // (8 * SIZE)
    elif kind == 1:
        mix = (a * x + b * y) // (2 * period) % 2 * 255
    elif kind == 2:
        mix = (x // period + y // period) % 2 * 255
    else:
        cells = SIZE // 12
        mix = np.kron(_raw(bits, (cells, cells), 256), np.ones((12, 12), np.int64))
        for _ in range(8):
            mix = _blur(mix)
    first, second = _color(rng), _color(rng)
    second = (first * 2 + second) // 3  # a texture of low contrast
    return (first * mix[..., None] + second * (255 - mix[..., None])) // 255


def _placed(rng: random.Random, name: str) -> tuple[Shape, bool]:
    """A shape somewhere in the image, and whether it is outlined."""
    radius = _between(rng, 8, 20) if rng.random() < 0.5 else _between(rng, 20, 48)
    cx, cy = (_between(rng, 0, SIZE) for _ in range(2))
    return Shape(name, (cx, cy), radius, _between(rng, 0, TURNS - 1), ""), rng.random() < 0.4


def _coverage(shape: Shape, outlined: bool) -> Ints:
    """Fine pixels of each pixel that a rotated shape covers, filled or outlined, ``[H, W]`` in 0 .. 4."""
    radius, turn, (cx, cy) = shape.radius, shape.turn, shape.centre
    reach = radius + 1  # a margin of background, from which an outline is cut
    (top, bottom), (left, right) = ((max(0, c - reach), min(SIZE, c + reach)) for c in (cy, cx))
    y, x = np.mgrid[top * _FINE : bottom * _FINE, left * _FINE : right * _FINE]
    x, y = x - cx * _FINE, y - cy * _FINE
    u, v = x * COS[turn] + y * SIN[turn], y * COS[turn] - x * SIN[turn]
    mask = _INSIDE[shape.name](u, v, radius * _FINE * UNIT)
    if outlined:
        line = max(2, radius * _FINE // 8)
        mask &= cv2.erode(mask.astype(np.uint8), np.ones((2 * line + 1, 2 * line + 1), np.uint8)) == 0
    coverage = np.zeros((SIZE, SIZE), np.int64)
    coverage[top:bottom, left:right] = mask.reshape(bottom - top, _FINE, right - left, _FINE).sum((1, 3))
    return coverage


def _paint(canvas: Ints, coverage: Ints, color: Ints) -> Ints:
    full = _FINE * _FINE
    return (canvas * (full - coverage[..., None]) + color * coverage[..., None]) // full


def _blur(image: Ints) -> Ints:
    """Binomial 3x3 blur."""
    for axis in (0, 1):
        before, after = (np.take(image, i, axis) for i in ([0, *range(SIZE - 1)], [*range(1, SIZE), SIZE - 1]))
        image = (before + 2 * image + after) // 4
    return image


def _box(mask: Mask) -> str:
    """Centre and size of a mask's box, in fractions of the image."""
    edges = [(np.flatnonzero(mask.any(axis))[[0, -1]] + (0, 1)).tolist() for axis in (0, 1)]
    (x1, x2), (y1, y2) = edges
    return " ".join(
        f"{value:.6f}" for value in ((x1 + x2) / 2 / SIZE, (y1 + y2) / 2 / SIZE, (x2 - x1) / SIZE, (y2 - y1) / SIZE)
    )
