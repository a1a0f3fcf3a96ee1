"""Sensor noise: what a camera adds in linear light, before colours are made of what it counted.

The noise of a photosite is Gaussian with ``variance = a raw + b`` (Foi et al. 2008, "Practical Poissonian-Gaussian
noise modeling and fitting for single-image raw-data"): `a` is that of counted photons, `b` that of the read-out. Each
row of the sensor has an offset of its own (Wei et al. 2020, arXiv 2003.12751). What is added to a picture is the noise
alone, brought through the mosaic of colour filters, the white balance and the colour matrix of Brooks et al. 2019
(arXiv 1811.11127); the picture itself goes through none of them, so no detail of it is blurred.
"""

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np

from yolo_dyn.output.arguments import Range
from yolo_dyn.robustness.corruptions.draws import normal
from yolo_dyn.robustness.corruptions.light import light_of_levels, nearest_levels
from yolo_dyn.robustness.corruptions.registry import Image

PIPELINES = ("mosaic", "simple")
ROW = 0.12  # between those of a Nikon D850, 0.07, and of a Sony A7S2, 0.16, as Wei et al. fit them
TO_RGB = np.array(  # of the colours of a camera: the mean of the four cameras of Brooks et al.
    [[1.6215, -0.5658, -0.0558], [-0.1820, 1.4761, -0.2941], [0.0228, -0.4260, 1.4031]]
)
TO_CAMERA = np.linalg.inv(TO_RGB)
GAINS = np.array([2.15, 1, 1.70])  # of the white balance, in the middle of the ranges of Brooks et al.
SITES = ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2))  # row, column and colour of RGGB
AROUND = np.array([0.5, 1, 0.5])  # bilinear, for the colours that a quarter of the sites have
ACROSS = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4  # bilinear, for green


@dataclass(frozen=True)
class Sensor:
    """The noise of a camera, for linear light from 0 to 1."""

    a: Annotated[float, Range(0, 1)]  # variance for each unit of light
    b: Annotated[float, Range(0, 1)]  # variance in the dark
    row: Annotated[float, Range(0, 10)] = ROW  # deviation of a row's offset, as a share of that of the read-out
    bits: Annotated[int, Range(8, 16)] = 12  # of the converter
    pipeline: str = PIPELINES[0]  # "simple": no colour filters, each value is a photosite
    transfer: str = "srgb"  # of the pictures
    tone: bool = False  # whether the pictures have the tone curve of Brooks et al.

    def noisy(self, image: Image, exposure: float, bits: np.random.Philox) -> Image:
        """The image as the camera sees it with that share of the light, made as bright again.

        Args:
            image: uint8 ``[H, W, C]`` in RGB. Only three channels have colour filters: others have the simple pipeline.
            exposure: more than 0; 1 is the light that the image has.
            bits: of the noise; first that of the photosites, then that of the rows.
        """
        if self.a == self.b == 0:
            return image
        light = light_of_levels(255, self.transfer, self.tone)[image]
        filtered = self.pipeline == "mosaic" and image.shape[2] == 3
        noise = (self._mosaic if filtered else self._simple)(light, exposure, bits)
        return nearest_levels(light + noise, self.transfer, self.tone)

    def _simple(self, light: np.ndarray, exposure: float, bits: np.random.Philox) -> np.ndarray:
        """Noise of light, float32 ``[H, W, C]``, of which every value is counted by itself."""
        return self._counted(light * np.float32(exposure), bits) / np.float32(exposure)

    def _mosaic(self, light: np.ndarray, exposure: float, bits: np.random.Philox) -> np.ndarray:
        """Noise of light, float32 RGB ``[H, W, 3]``, that is counted through the colour filters and made colours of."""
        camera = cv2.transform(light, TO_CAMERA * (exposure / GAINS)[:, None])
        raw = np.empty(light.shape[:2], np.float32)
        for top, left, colour in SITES:
            raw[top::2, left::2] = camera[top::2, left::2, colour]
        noise = self._counted(raw, bits)
        return cv2.transform(demosaiced(noise), TO_RGB * (GAINS / exposure))

    def _counted(self, raw: np.ndarray, bits: np.random.Philox) -> np.ndarray:
        """What the converter gives for raw light, float32 ``[H, W]`` or ``[H, W, C]``, less that light."""
        deviation = np.sqrt(np.float32(self.a) * raw + np.float32(self.b))
        rows = normal(bits, raw.shape) * deviation
        rows += normal(bits, (raw.shape[0], *[1] * (raw.ndim - 1))) * np.float32(self.row * self.b**0.5)
        steps = np.float32(2**self.bits - 1)
        return np.minimum(np.rint((raw + rows) * steps) / steps, 1) - raw


def demosaiced(mosaic: np.ndarray) -> np.ndarray:
    """Bilinear colours of an RGGB mosaic, float32 ``[H, W]``: ``[H, W, 3]``, mirrored beyond the borders."""
    planes = np.zeros((3, *mosaic.shape), np.float32)
    for top, left, colour in SITES:
        planes[colour, top::2, left::2] = mosaic[top::2, left::2]
    red, blue = (cv2.sepFilter2D(planes[colour], -1, AROUND, AROUND) for colour in (0, 2))
    return cv2.merge([red, cv2.filter2D(planes[1], -1, ACROSS), blue])
