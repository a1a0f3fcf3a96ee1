"""What the corruptions of COCO-C and ImageNet-C have in common: tuples of parameters, colours, families.

Hendrycks and Dietterich 2019 (arXiv 1903.12261) defined them, Michaelis et al. 2019 (arXiv 1907.07484) made them a
benchmark for detectors. Ours have the pixels of the latter's code, imagecorruptions, its slips included, since
published scores were measured with these. Only the random numbers are our own.

Each corruption is written on RGB, as the benchmark is; the images here are BGR and are turned before and after. Grey
images are corrupted as three equal channels. The benchmark refuses images with a side below 32 pixels; here the same
formulas go on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from yolo_dyn.errors import YoloDynError
from yolo_dyn.robustness.corruptions.registry import CORRUPTIONS, GROUPS, SEVERITIES, Corruption, Image

RGBFunction = Callable[..., Image]  # (uint8 [H, W, 3] in RGB, *parameters, bits=) -> the same
UNIT = "severity"
FAMILIES = {
    "noise": ["gaussian_noise", "shot_noise", "impulse_noise"],
    "blur": ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"],
    "weather": ["snow", "frost", "fog", "brightness"],
    "digital": ["contrast", "elastic_transform", "pixelate", "jpeg_compression"],
}
COCOC = [name for family in FAMILIES.values() for name in family]  # the 15 over which mPC is a mean
EXTRA = ["speckle_noise", "gaussian_blur", "spatter", "saturate"]  # the 4 that it leaves out
GROUPS |= {"cococ": COCOC, "cococ-extra": [*COCOC, *EXTRA], **FAMILIES}


@dataclass(frozen=True)
class Benchmark:
    """A corruption of the benchmark as a function of (BGR image, severity, bit generator)."""

    name: str
    rgb: RGBFunction
    parameters: tuple[tuple[float, ...], ...]  # at severities 1 to 5
    luma: bool = False  # a grey image takes the result's luminance, since the corruption adds colour
    any_channels: bool = False  # it treats each value alike, so that images of other than 1 and 3 channels may have it

    def __call__(self, image: Image, severity: float, bits: np.random.Philox) -> Image:
        channels = image.shape[2]
        if channels == 3:
            return np.ascontiguousarray(self.on_rgb(np.ascontiguousarray(image[..., ::-1]), severity, bits)[..., ::-1])
        if channels == 1:
            return self._as_grey(self.on_rgb(np.repeat(image, 3, 2), severity, bits))
        if not self.any_channels:
            raise YoloDynError(f"{self.name} takes images of 1 or 3 channels, got {channels}")
        return self.on_rgb(image, severity, bits)

    def on_rgb(self, image: Image, severity: float, bits: np.random.Philox) -> Image:
        """The same on an image in the benchmark's order of colours.

        Raises:
            YoloDynError: if the severity is not from 1 to 5.
        """
        return self.rgb(image, *self.at(severity), bits=bits)

    def at(self, severity: float) -> tuple[float, ...]:
        """Parameters at a severity, linear between whole ones."""
        if not SEVERITIES[0] <= severity <= SEVERITIES[-1]:
            raise YoloDynError(f"the severity of {self.name} must be from 1 to 5, got {severity:g}")
        return tuple(float(np.interp(severity, SEVERITIES, column)) for column in zip(*self.parameters, strict=True))

    def _as_grey(self, corrupted: Image) -> Image:
        if not self.luma:
            return corrupted[..., :1].copy()
        return truncated(corrupted @ np.array([0.2989, 0.587, 0.114]))[..., None]


def benchmark(*parameters: Any, luma: bool = False, any_channels: bool = False) -> Callable[[RGBFunction], RGBFunction]:
    """Register a corruption of the benchmark under its function's name; used as a decorator.

    Args:
        parameters: a tuple, or a number, for each of the severities 1 to 5.
        luma: see `Benchmark`.
        any_channels: see `Benchmark`.
    """

    def add(rgb: RGBFunction) -> RGBFunction:
        name = rgb.__name__
        tuples = tuple(p if isinstance(p, tuple) else (p,) for p in parameters)
        CORRUPTIONS[name] = Corruption(name, Benchmark(name, rgb, tuples, luma, any_channels), SEVERITIES, UNIT)
        return rgb

    return add


def truncated(levels: np.ndarray) -> Image:
    """Grey levels, clipped to 0 to 255 and cut off below the point, as the benchmark has it: 0.5 darker on average."""
    return np.clip(levels, 0, 255).astype(np.uint8)


def grey(image: np.ndarray) -> np.ndarray:
    """Luminance of float32 RGB ``[H, W, 3]``: ``[H, W]``."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def with_hsv(image: Image, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Image:
    """The image with other S and V of HSV, from 0 to 1, and the same hue: ``V (1 - S d)``.

    Here d says how far below V a value lies, as a share of the largest of R, G and B less the smallest: 0 for the
    largest and 1 for the smallest of them. Float64 in the order of scikit-image's formulas, since what comes out a last
    bit below a whole number is cut off a level lower: only the middle one may differ, in its last bit.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        change: new S and V, from S and V ``[H, W, 1]``.
    """
    red, green, blue = (image[..., c : c + 1] for c in range(3))
    value = np.maximum(np.maximum(red, green), blue) / 255
    spread = value - np.minimum(np.minimum(red, green), blue) / 255
    even = spread == 0
    below = (value - image / 255) / np.where(even, 1, spread)
    below[..., 1:] += even  # greys have hue 0, which is red
    saturation, value = change(spread / np.where(even, 1, value), value)
    return truncated(255 * (value * (1 - saturation * below)))
