"""Frost: a texture of ice over the image, from the benchmark's pictures or drawn to their statistics.

The six pictures of imagecorruptions name no author, so they are not part of this package. Whoever has them names their
folder in the environment variable `YOLO_DYN_FROST`, and gets the benchmark's frost. Without it frost is drawn: noise
with the spectrum and the colours of these pictures, called frost_procedural in every result. Its images match the
benchmark's in mean, contrast and SSIM, but have no needles.
"""

import functools
import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from yolo_dyn.errors import MissingFileError, YoloDynError
from yolo_dyn.robustness.corruptions.benchmark import UNIT, Benchmark, benchmark, truncated
from yolo_dyn.robustness.corruptions.draws import integer, normal
from yolo_dyn.robustness.corruptions.filters import gaussian
from yolo_dyn.robustness.corruptions.registry import CORRUPTIONS, SEVERITIES, Corruption, Image

VARIABLE = "YOLO_DYN_FROST"
DRAWN = "frost_procedural"
PICTURES = [f"frost{number}" for number in range(1, 7)]
SUFFIXES = (".png", ".jpg", ".jpeg")
USED = 5  # the benchmark never draws the sixth
WEIGHTS = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # of image and texture
LEVELS = (0, 0.5, 2, 5, 10, 25, 50, 75, 90, 95, 98, 99.5, 100)  # percent, of the quantiles
FREQUENCIES = np.array(
    (0.006, 0.0084, 0.0118, 0.0167, 0.0234, 0.0329, 0.0462, 0.0649, 0.0912, 0.1282, 0.1802, 0.2532, 0.3558, 0.5)
)  # cycles a pixel
BINS = 4096  # of the histogram that ranks values


@dataclass(frozen=True)
class Texture:
    """Statistics of one of the benchmark's pictures."""

    height: int
    width: int
    power: tuple[float, ...]  # natural logarithm, at `FREQUENCIES`
    quantiles: tuple[tuple[float, ...], ...]  # of R, G and B at `LEVELS`


TEXTURES = (  # measured on frost1, frost2 (frost3 has its pixels), frost4 and frost5
    Texture(
        600,
        900,
        (2.38, 0.52, -0.28, -0.79, -1.76, -2.74, -3.69, -4.22, -4.56, -4.87, -5.12, -5.45, -6.15, -7.48),
        (
            (15, 28, 34, 40, 46, 57, 74, 95, 115, 127, 142, 157, 201),
            (99, 114, 119, 123, 128, 137, 148, 160, 171, 178, 185, 194, 230),
            (115, 132, 137, 141, 146, 155, 166, 176, 186, 191, 197, 207, 235),
        ),
    ),
    Texture(
        315,
        560,
        (2.16, 0.4, 0.41, -0.21, -0.46, -1.26, -1.38, -1.72, -2.55, -3.32, -3.77, -4.44, -5.31, -6.88),
        (
            (55, 127, 147, 162, 173, 189, 204, 216, 225, 230, 237, 244, 253),
            (56, 129, 150, 165, 176, 193, 209, 221, 230, 235, 241, 248, 255),
            (60, 135, 157, 172, 184, 202, 218, 231, 240, 244, 248, 251, 255),
        ),
    ),
    Texture(
        350,
        527,
        (2.18, -0.44, -0.04, 0.15, -0.25, -0.74, -0.84, -1.42, -1.82, -2.13, -2.59, -3.18, -3.95, -5.37),
        (
            (15, 59, 79, 91, 102, 120, 138, 155, 171, 183, 203, 231, 251),
            (24, 73, 93, 105, 118, 135, 153, 170, 186, 199, 218, 246, 255),
            (31, 82, 102, 115, 129, 147, 165, 183, 201, 214, 234, 255, 255),
        ),
    ),
    Texture(
        495,
        660,
        (1.65, 0.94, 0.86, 0.6, -0.04, -0.67, -1.35, -1.93, -2.58, -3.23, -3.9, -4.48, -5.08, -5.53),
        (
            (14, 30, 39, 48, 59, 79, 107, 140, 174, 195, 219, 243, 255),
            (25, 41, 50, 60, 70, 91, 119, 151, 183, 203, 225, 246, 255),
            (36, 53, 62, 72, 83, 104, 131, 161, 192, 211, 231, 250, 255),
        ),
    ),
)
CHOICES = (0, 1, 1, 2, 3)  # for each of the five pictures that the benchmark draws from


def blended(image: Image, texture: Image, kept: float, added: float, bits: np.random.Philox) -> Image:
    """The image and a random part of the texture, which is first made larger than the image, both weighted."""
    height, width = image.shape[:2]
    factor = 1.1 * max(1, height / texture.shape[0], width / texture.shape[1])
    tall, wide = (math.ceil(factor * length) for length in texture.shape[:2])
    large = cv2.resize(texture, (wide, tall), interpolation=cv2.INTER_CUBIC)
    top, left = integer(bits, tall - height), integer(bits, wide - width)
    part = large[top : top + height, left : left + width]
    return truncated(np.float32(kept) * image + np.float32(added) * part)


@benchmark(*WEIGHTS, luma=True)
def frost_procedural(image: Image, kept: float, added: float, *, bits: np.random.Philox) -> Image:
    """Frost of a drawn texture."""
    return blended(image, drawn(TEXTURES[CHOICES[integer(bits, USED)]], bits), kept, added, bits)


def of_pictures(image: Image, kept: float, added: float, *, bits: np.random.Philox, folder: str) -> Image:
    """Frost of the pictures in a folder."""
    return blended(image, pictures(folder)[integer(bits, USED)], kept, added, bits)


@dataclass(frozen=True)
class Frost(Corruption):
    """Frost of the user's pictures if there are any, else of drawn textures under their own name."""

    def resolved(self) -> Corruption:
        if not os.environ.get(VARIABLE):
            return CORRUPTIONS[DRAWN]
        folder = str(Path(os.environ[VARIABLE]).absolute())  # other processes may be in another folder
        function = Benchmark("frost", functools.partial(of_pictures, folder=folder), WEIGHTS, luma=True)
        return Corruption("frost", function, SEVERITIES, UNIT, f"textures {_hashed(folder)}")


def _unresolved(image: Image, severity: float, bits: np.random.Philox) -> Image:
    return CORRUPTIONS["frost"].resolved().function(image, severity, bits)


CORRUPTIONS["frost"] = Frost("frost", _unresolved, SEVERITIES, UNIT)


def _files(folder: str) -> list[Path]:
    """The six pictures of a folder.

    Raises:
        YoloDynError: if one is missing.
    """
    if not Path(folder).is_dir():
        raise MissingFileError(f"{VARIABLE} must be a folder of textures, and {folder!r} is none")
    found = {file.stem: file for file in sorted(Path(folder).iterdir()) if file.suffix.lower() in SUFFIXES}
    missing = [name for name in PICTURES if name not in found]
    if missing:
        raise YoloDynError(
            f"{VARIABLE}={folder} must hold six pictures, frost1 to frost6 ({', '.join(SUFFIXES)});"
            f" {', '.join(missing)} not found among {len(found)}"
        )
    return [found[name] for name in PICTURES]


@functools.lru_cache(maxsize=2)
def pictures(folder: str) -> list[Image]:
    """The textures of a folder in RGB.

    Raises:
        YoloDynError: if one is missing or is no picture.
    """
    read = []
    for file in _files(folder):
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            raise YoloDynError(f"{VARIABLE}: {file} is no picture that OpenCV reads")
        read.append(np.ascontiguousarray(image[..., ::-1]))
    return read


def _hashed(folder: str) -> str:
    return hashlib.sha256(b"".join(image.tobytes() for image in pictures(folder))).hexdigest()[:16]


def drawn(texture: Texture, bits: np.random.Philox) -> Image:
    """A new texture of these statistics: uint8 RGB ``[height, width, 3]``.

    White noise, stronger in some places than in others, gets the radial spectrum, then by rank each channel's values.
    In the first picture red and green do not follow blue everywhere: a second, smoother field parts them.
    """
    height, width = texture.height, texture.width
    uneven = normal(bits, (height, width)) * np.exp(1.2 * _clouds(height, width, height / 40, bits))
    ranks = _ranks(_with_spectrum(uneven, texture.power))
    shares = [ranks] * 3
    if texture is TEXTURES[0]:
        scores, smooth = _normal_scores()[ranks], _clouds(height, width, height / 12, bits)
        shares[:2] = _ranks(0.62 * scores + 0.78 * smooth), _ranks(0.97 * scores + 0.24 * smooth)
    middles = (np.arange(BINS) + 0.5) / BINS * 100
    channels = zip(texture.quantiles, shares, strict=True)
    return np.stack([np.interp(middles, LEVELS, q).round().astype(np.uint8)[share] for q, share in channels], 2)


def _clouds(height: int, width: int, sigma: float, bits: np.random.Philox) -> np.ndarray:
    """Noise of unit variance, smoothed by `sigma` pixels: made at a quarter of the size, which is enough for it."""
    small = gaussian(normal(bits, (-(-height // 4), -(-width // 4))), sigma / 4, cv2.BORDER_REFLECT)
    return cv2.resize((small - small.mean()) / small.std(), (width, height), interpolation=cv2.INTER_LINEAR)


def _with_spectrum(field: np.ndarray, power: tuple[float, ...]) -> np.ndarray:
    """The field with another radial power spectrum."""
    from scipy.fft import irfft2, rfft2

    spectrum = rfft2(field)
    spectrum[0, 0] = 0
    radius, ring, middles = _rings(*field.shape)
    own = np.bincount(ring, (abs(spectrum) ** 2).ravel()) / np.bincount(ring)
    gain = np.interp(radius, np.log(FREQUENCIES), power) - np.interp(radius, middles, np.log(own))
    return irfft2(spectrum * np.exp(gain / 2).astype(np.float32), s=field.shape)


@functools.lru_cache(maxsize=4)
def _rings(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a real transform the log of each frequency's radius, the ring it is in, and the log of the rings' middles.

    There are 32 rings of equal ratio; those that no frequency is in are left out.
    """
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    radius[0, 0] = radius[0, 1]
    edges = np.geomspace(radius.min(), radius.max() * 1.0001, 33)
    taken, ring = np.unique(np.digitize(radius.ravel(), edges) - 1, return_inverse=True)
    return np.log(radius), ring.ravel(), (np.log(edges[:-1] * edges[1:]) / 2)[taken]


def _ranks(field: np.ndarray) -> np.ndarray:
    """Rank of each value among all, 0 to `BINS` - 1, by a histogram."""
    low, high = field.min(), field.max()
    place = ((field - low) * (BINS / (high - low))).astype(np.int32).clip(max=BINS - 1)
    counts = np.bincount(place.ravel(), minlength=BINS)
    below = (np.cumsum(counts) - counts / 2) / place.size
    return (below * BINS).astype(np.uint16).clip(max=BINS - 1)[place]


@functools.cache
def _normal_scores() -> np.ndarray:
    """Standard normal quantile of each rank, float32."""
    from scipy.special import ndtri

    return ndtri((np.arange(BINS) + 0.5) / BINS).astype(np.float32)
