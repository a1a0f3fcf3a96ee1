"""Linear light: what a camera measures, from the levels of a picture and back.

The curve is sRGB's (IEC 61966-2-1) or none, and on top of it the tone curve of Brooks et al. 2019 (arXiv 1811.11127),
``3 v^2 - 2 v^3``.
"""

import functools

import numpy as np

TRANSFERS = ("srgb", "linear")
FINE = 1 << 18  # steps of linear light, so that even next to black one level is 79 of them wide


def to_light(share: np.ndarray, transfer: str = "srgb", tone: bool = False) -> np.ndarray:
    """Linear light of values of a picture, both from 0 to 1, in float64 and of any shape."""
    share = np.asarray(share, np.float64)
    if tone:
        share = 0.5 - np.sin(np.arcsin(1 - 2 * share) / 3)
    if transfer == "linear":
        return share
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def from_light(light: np.ndarray, transfer: str = "srgb", tone: bool = False) -> np.ndarray:
    """The inverse of `to_light`; light outside 0 to 1 is clipped."""
    share = np.clip(light, 0, 1)
    if transfer == "srgb":
        share = np.where(share <= 0.0031308, 12.92 * share, 1.055 * share ** (1 / 2.4) - 0.055)
    return 3 * share**2 - 2 * share**3 if tone else share


@functools.lru_cache(maxsize=8)
def light_of_levels(most: int, transfer: str = "srgb", tone: bool = False) -> np.ndarray:
    """Linear light of each level from 0 to `most`, float32 ``[most + 1]``."""
    return to_light(np.arange(most + 1) / most, transfer, tone).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _levels_of_light(transfer: str, tone: bool) -> np.ndarray:
    return np.rint(255 * from_light(np.arange(FINE + 1) / FINE, transfer, tone)).astype(np.uint8)


def nearest_levels(light: np.ndarray, transfer: str = "srgb", tone: bool = False) -> np.ndarray:
    """The nearest of 256 levels to light, float32 of any shape, clipped to 0 to 1: uint8 of that shape."""
    places = np.clip(light, 0, 1) * np.float32(FINE) + np.float32(0.5)
    return _levels_of_light(transfer, tone)[places.astype(np.int32)]
