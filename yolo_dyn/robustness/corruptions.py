"""Corruptions of images whose pixels are the same on every machine, in any order, process and batch.

The noise of an image depends on (seed, image file name, corruption, strength) and on nothing else. Their SHA-256 is the
key of a Philox counter-based generator, whose raw bits numpy promises (it does not promise the stream of `normal`).
Every 16 of them choose an entry of a table of 65,536 quantiles; what follows are single multiplications, additions and
roundings, which IEEE 754 fixes.

Noise at severities 1 to 5 has the constants of ImageNet-C and COCO-C. Blur, weather and digital corruptions are those
of albumentations under the field's names, with the constants below; they are the same for one version of it.
"""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from yolo_dyn.errors import YoloDynError, nearest, needed

Image = np.ndarray  # uint8 [H, W, C]
Function = Callable[[Image, float, np.random.Philox], Image]
SEVERITIES = (1, 2, 3, 4, 5)
ENTRY_POINT_GROUP = "yolo_dyn.corruptions"  # by which packages declare theirs: name = "module:function"


@dataclass(frozen=True)
class Corruption:
    """A pure function of (image, strength, bit generator), and its strengths at severities 1 to 5."""

    name: str
    function: Function
    strengths: tuple[float, ...]
    unit: str = ""  # of the strength

    def __reduce__(self) -> Any:
        """Our own travel to other processes by name, a user's as it is, since it may not be registered there."""
        ours = CORRUPTIONS.get(self.name) is self and self.function.__module__ == __name__
        return (find, (self.name,)) if ours else (Corruption, (self.name, self.function, self.strengths, self.unit))

    def at(self, severity: int) -> float:
        """The strength of a severity.

        Raises:
            YoloDynError: if there is no such severity.
        """
        if severity not in SEVERITIES:
            raise YoloDynError(f"severity must be one of {', '.join(map(str, SEVERITIES))}, got {severity!r}")
        return self.strengths[severity - 1]

    def apply(self, image: Image, strength: float, seed: int, name: str) -> Image:
        """Corrupt one image; see `corrupt`."""
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise YoloDynError(f"image {name!r} must be uint8 [H, W, C], got {found}")
        if self.name == "gaussian_noise" and strength == 0:
            return image
        corrupted = self.function(image, strength, bit_generator(seed, name, self.name, strength))
        if corrupted.shape != image.shape or corrupted.dtype != np.uint8:
            raise YoloDynError(
                f"corruption {self.name!r} must keep shape and type, got {corrupted.dtype} {list(corrupted.shape)}"
            )
        return corrupted


CORRUPTIONS: dict[str, Corruption] = {}


def register_corruption(name: str, strengths: tuple[float, ...], unit: str = "") -> Callable[[Function], Function]:
    """Make a function known as a corruption; used as a decorator.

    Args:
        name: what the commands call it.
        strengths: of severities 1 to 5.
        unit: of the strength, for tables and pictures.

    Raises:
        YoloDynError: if the name is taken, or there are not five strengths.

    Examples:
        >>> import numpy as np
        >>> @register_corruption("darkness", (0.8, 0.6, 0.4, 0.2, 0.1))
        ... def darkness(image, strength, bits):
        ...     return (image * strength).astype(np.uint8)
        >>> corrupt(np.full((1, 1, 3), 200, np.uint8), "darkness", severity=5)
        array([[[20, 20, 20]]], dtype=uint8)
    """
    if name in CORRUPTIONS:
        raise YoloDynError(f"the corruption {name!r} is registered already")
    if len(strengths) != len(SEVERITIES):
        raise YoloDynError(f"corruption {name!r}: strengths must be five, one a severity, got {strengths!r}")

    def add(function: Function) -> Function:
        CORRUPTIONS[name] = Corruption(name, function, tuple(strengths), unit)
        return function

    return add


def known_corruptions() -> list[str]:
    """Names of all corruptions, registered or declared by installed packages."""
    return list(dict.fromkeys((*CORRUPTIONS, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP)))))


def find(corruption: str) -> Corruption:
    """The corruption of that name; a declared one is imported at first use, and registers itself.

    Raises:
        YoloDynError: if there is none.
    """
    if corruption not in CORRUPTIONS:
        for point in entry_points(group=ENTRY_POINT_GROUP, name=corruption):
            point.load()
    if corruption not in CORRUPTIONS:
        known = known_corruptions()
        raise YoloDynError(f"unknown corruption {corruption!r}{nearest(corruption, known)} (known: {', '.join(known)})")
    return CORRUPTIONS[corruption]


def corrupt(
    image: Image,
    corruption: str = "gaussian_noise",
    *,
    sigma: float | None = None,
    severity: int | None = None,
    strength: float | None = None,
    seed: int = 0,
    name: str = "",
) -> Image:
    """Corrupt one image.

    Args:
        image: uint8 ``[H, W, C]``; it is not changed.
        corruption: name of a registered corruption.
        sigma: standard deviation of Gaussian noise in grey levels (0-255).
        severity: 1 to 5, the strengths of the field.
        strength: the corruption's own, in its unit; one of these three must be given.
        seed: another seed gives other noise.
        name: file name of the image, without its folder.

    Returns:
        uint8 ``[H, W, C]``. At sigma 0 the image itself.

    Raises:
        YoloDynError: for an unknown corruption, none or several strengths, or an image that is no uint8 ``[H, W, C]``.
    """
    chosen = find(corruption)
    return chosen.apply(image, _strength(chosen, sigma, severity, strength), seed, name)


def _strength(chosen: Corruption, sigma: float | None, severity: int | None, strength: float | None) -> float:
    given = [value for value in (sigma, severity, strength) if value is not None]
    if len(given) != 1:
        raise YoloDynError(f"give one of sigma, severity and strength, got {len(given)}")
    if sigma is not None and chosen.name != "gaussian_noise":
        raise YoloDynError(f"sigma is the strength of gaussian_noise; {chosen.name} takes severity or strength")
    if severity is not None:
        return chosen.at(severity)
    amount = float(given[0])
    if not 0 <= amount < float("inf"):
        raise YoloDynError(f"the strength of {chosen.name} must be at least 0, got {amount}")
    return amount


def bit_generator(seed: int, name: str, corruption: str, strength: float) -> np.random.Philox:
    """The generator of one image's noise, keyed by the first 128 bits of a SHA-256.

    The hashed text is ``seed/name/corruption/strength`` in UTF-8, the strength with six significant digits.
    """
    digest = hashlib.sha256(f"{seed}/{name}/{corruption}/{strength:.6g}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))


def uniform16(bits: np.random.Philox, shape: tuple[int, ...]) -> np.ndarray:
    """Independent integers in [0, 65536), four from each raw word, low bits first, on any machine."""
    count = int(np.prod(shape))
    words = bits.random_raw(-(-count // 4)).astype("<u8", copy=False)
    return words.view("<u2")[:count].reshape(shape)


@functools.cache
def normal_quantiles() -> np.ndarray:
    """Standard normal quantiles at (i + 0.5) / 65536, float32 ``[65536]``."""
    from scipy.special import ndtri

    return ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)


def gaussian_noise_values(shape: tuple[int, ...], sigma: float, bits: np.random.Philox) -> np.ndarray:
    """The noise alone, in grey levels, rounded: int16 of that shape."""
    return np.rint(np.float32(sigma) * normal_quantiles()).astype(np.int16)[uniform16(bits, shape)]


@register_corruption("gaussian_noise", tuple(255 * c for c in (0.08, 0.12, 0.18, 0.26, 0.38)), "grey levels")
def gaussian_noise(image: Image, sigma: float, bits: np.random.Philox) -> Image:
    """Add zero-mean noise, independent for each pixel and channel."""
    import cv2

    noise = gaussian_noise_values(image.shape, sigma, bits)
    return cv2.add(image, noise, dtype=cv2.CV_8U).reshape(image.shape)  # saturates at 0 and 255


@register_corruption("shot_noise", (60, 25, 12, 5, 3), "photons at white")
def shot_noise(image: Image, photons: float, bits: np.random.Philox) -> Image:
    """Count photons: a Poisson number with a mean of `photons` for a white pixel."""
    return _poisson_levels(photons)[image, uniform16(bits, image.shape)]


@functools.lru_cache(maxsize=2)
def _poisson_levels(photons: float) -> np.ndarray:
    """Grey level for each level of the clean image and each uniform number, uint8 ``[256, 65536]``."""
    from scipy.stats import poisson

    means = np.arange(256) / 255 * photons
    counts = np.arange(int(photons + 12 * photons**0.5 + 30))
    cumulative = poisson.cdf(counts[None], means[:, None])  # [256, counts]
    uniform = (np.arange(65536) + 0.5) / 65536
    levels = np.clip(np.rint(counts / photons * 255), 0, 255).astype(np.uint8)
    return np.stack([levels[np.searchsorted(row, uniform).clip(max=len(counts) - 1)] for row in cumulative])


@register_corruption("impulse_noise", (0.03, 0.06, 0.09, 0.17, 0.27), "share of values")
def impulse_noise(image: Image, share: float, bits: np.random.Philox) -> Image:
    """Set a share of all values to black or to white, half of it each."""
    uniform = uniform16(bits, image.shape)
    low, high = round(65536 * share / 2), round(65536 * (1 - share / 2))
    return np.where(uniform < low, 0, np.where(uniform >= high, 255, image)).astype(np.uint8)


@register_corruption("speckle_noise", (0.15, 0.2, 0.35, 0.45, 0.6), "standard deviation")
def speckle_noise(image: Image, deviation: float, bits: np.random.Philox) -> Image:
    """Multiply each value by one plus zero-mean noise."""
    factor = np.float32(1) + np.float32(deviation) * normal_quantiles()[uniform16(bits, image.shape)]
    return np.clip(np.rint(image * factor), 0, 255).astype(np.uint8)


@register_corruption("contrast", (0.4, 0.3, 0.2, 0.1, 0.05), "share kept")
def contrast(image: Image, share: float, bits: np.random.Philox) -> Image:
    """Move each value towards its channel's mean."""
    mean = image.mean((0, 1), keepdims=True, dtype=np.float64)
    return np.clip(np.rint(mean + share * (image - mean)), 0, 255).astype(np.uint8)


def _albumentations(name: str, make: Callable[[Any, float], Any]) -> Function:
    """A transform of albumentations, seeded like our own noise."""

    def apply(image: Image, strength: float, bits: np.random.Philox) -> Image:
        # takes two seconds: only if it is used
        albumentations = needed("albumentations", f"the corruption {name}", "albumentations")
        seed = int(bits.random_raw(1)[0] % 2**32)
        return albumentations.Compose([make(albumentations, strength)], seed=seed)(image=image)["image"]

    return apply


_ALBUMENTATIONS: dict[str, tuple[tuple[float, ...], str, Callable[[Any, float], Any]]] = {
    "gaussian_blur": ((1, 2, 3, 4, 6), "pixels", lambda a, s: a.GaussianBlur(sigma_limit=(s, s), blur_limit=0, p=1)),
    "defocus_blur": (
        (3, 4, 6, 8, 10),
        "pixels",
        lambda a, s: a.Defocus(radius=(int(s), int(s)), alias_blur=(0.1, 0.1), p=1),
    ),
    "motion_blur": ((7, 11, 15, 21, 27), "pixels", lambda a, s: a.MotionBlur(blur_limit=(int(s), int(s)), p=1)),
    "zoom_blur": (
        (1.06, 1.11, 1.16, 1.21, 1.26),
        "zoom",
        lambda a, s: a.ZoomBlur(max_factor=(s, s), step_factor=(0.01, 0.01), p=1),
    ),
    "glass_blur": (
        (0.5, 0.7, 0.9, 1.1, 1.5),
        "pixels",
        lambda a, s: a.GlassBlur(sigma=s, max_delta=2, iterations=1, p=1),
    ),
    "fog": ((0.2, 0.35, 0.5, 0.65, 0.8), "density", lambda a, s: a.RandomFog(fog_coef_range=(s, s), p=1)),
    "snow": ((0.1, 0.2, 0.3, 0.4, 0.5), "snow point", lambda a, s: a.RandomSnow(snow_point_range=(s, s), p=1)),
    "brightness": (
        (0.1, 0.2, 0.3, 0.4, 0.5),
        "share of white",
        lambda a, s: a.RandomBrightnessContrast((s, s), (0, 0), p=1),
    ),
    "pixelate": ((0.6, 0.5, 0.4, 0.3, 0.25), "scale", lambda a, s: a.Downscale(scale_range=(s, s), p=1)),
    "jpeg_compression": (
        (25, 18, 15, 10, 7),
        "quality",
        lambda a, s: a.ImageCompression(quality_range=(int(s), int(s)), p=1),
    ),
}
for _name, (_strengths, _unit, _make) in _ALBUMENTATIONS.items():
    register_corruption(_name, _strengths, _unit)(_albumentations(_name, _make))
