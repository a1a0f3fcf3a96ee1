"""Corruptions by name: pure functions of (image, strength, bit generator), ours, a user's and other packages'."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.robustness.corruptions.draws import bit_generator, normal_quantiles, uniform16

Image = np.ndarray  # uint8 [H, W, C], its colours in OpenCV's order (BGR)
Function = Callable[[Image, float, np.random.Philox], Image]
SEVERITIES = (1, 2, 3, 4, 5)
GAUSSIAN = "gaussian_noise"  # the one whose strength may be given in grey levels too: sigma
ENTRY_POINT_GROUP = "yolo_dyn.corruptions"  # by which packages declare theirs: name = "module:function"
FILE = ":"  # between the name of a corruption and a file with its parameters
PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class Corruption:
    """A pure function of (image, strength, bit generator), and its strengths at severities 1 to 5."""

    name: str
    function: Function
    strengths: tuple[float, ...]
    unit: str = ""  # of the strength
    material: str = ""  # what besides the code decides the pixels, such as the hash of a user's textures

    def __reduce__(self) -> Any:
        """Our own travel to other processes by name, a user's as it is, since it may not be registered there."""
        ours = CORRUPTIONS.get(self.name) is self and getattr(self.function, "__module__", "").startswith(PACKAGE)
        fields = (self.name, self.function, self.strengths, self.unit, self.material)
        return (find, (self.name,)) if ours else (Corruption, fields)

    @property
    def kind(self) -> str:
        """Its name without the file of parameters that may follow it: other parameters have the same random numbers."""
        return self.name.partition(FILE)[0]

    @property
    def offered(self) -> bool:
        """Whether this installation can run it."""
        return True

    def resolved(self) -> "Corruption":
        """The one that takes its place in this installation: itself, unless it says otherwise."""
        return self

    def with_file(self, file: str) -> "Corruption":
        """The same with the parameters of a file, which its name ends in.

        Raises:
            YoloDynError: if it takes none, or the file does not fit.
        """
        raise YoloDynError(f"{self.name} takes no file of parameters, got {self.name}{FILE}{file}")

    def at(self, severity: int) -> float:
        """The strength of a severity.

        Raises:
            YoloDynError: if there is no such severity.
        """
        if isinstance(severity, bool) or severity not in SEVERITIES:
            raise YoloDynError(f"severity must be one of {', '.join(map(str, SEVERITIES))}, got {severity!r}")
        return self.strengths[SEVERITIES.index(severity)]

    def apply(self, image: Image, strength: float, seed: int, name: str) -> Image:
        """Corrupt one image; see `corrupt`."""
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or not image.size:
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise YoloDynError(f"image {name!r} must be uint8 [H, W, C], got {found}")
        corrupted = self.function(image, strength, bit_generator(seed, name, self.kind, strength))
        if corrupted.shape != image.shape or corrupted.dtype != np.uint8:
            raise YoloDynError(
                f"corruption {self.name!r} must keep shape and type, got {corrupted.dtype} {list(corrupted.shape)}"
            )
        return corrupted


CORRUPTIONS: dict[str, Corruption] = {}
GROUPS: dict[str, list[str]] = {}  # names that stand for several corruptions


def register_corruption(name: str, strengths: tuple[float, ...], unit: str = "") -> Callable[[Function], Function]:
    """Make a function known as a corruption; used as a decorator.

    Args:
        name: what the commands call it.
        strengths: of severities 1 to 5.
        unit: of the strength, for tables and pictures.

    Raises:
        YoloDynError: if the name is taken or holds a colon, or there are not five strengths.

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
    if name in GROUPS:
        raise YoloDynError(f"the name {name!r} stands for several corruptions: {', '.join(GROUPS[name])}")
    if FILE in name:
        raise YoloDynError(f"corruption {name!r}: a name may not hold {FILE!r}, which a file of parameters follows")
    if len(strengths) != len(SEVERITIES):
        raise YoloDynError(f"corruption {name!r}: strengths must be five, one a severity, got {strengths!r}")

    def add(function: Function) -> Function:
        CORRUPTIONS[name] = Corruption(name, function, tuple(strengths), unit)
        return function

    return add


def known_corruptions() -> list[str]:
    """Names of all corruptions that can be run here, registered or declared by installed packages."""
    offered = (name for name, corruption in CORRUPTIONS.items() if corruption.offered)
    return list(dict.fromkeys((*offered, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP)))))


def find(corruption: str) -> Corruption:
    """The corruption of that name; a declared one is imported at first use, and registers itself.

    Args:
        corruption: its name, which the path of a file with its parameters may follow: sensor_noise:camera.yaml.

    Raises:
        YoloDynError: if there is none, or it takes no such file.
    """
    corruption, colon, file = corruption.partition(FILE)
    if corruption not in CORRUPTIONS:
        for point in entry_points(group=ENTRY_POINT_GROUP, name=corruption):
            point.load()
    if corruption not in CORRUPTIONS:
        if corruption in GROUPS:
            raise YoloDynError(f"{corruption!r} stands for several corruptions: {', '.join(GROUPS[corruption])}")
        known = [*known_corruptions(), *GROUPS]
        raise YoloDynError(f"unknown corruption {corruption!r}{nearest(corruption, known)} (known: {', '.join(known)})")
    found = CORRUPTIONS[corruption].resolved()
    return found.with_file(file) if colon else found


def find_for(corruption: str, severity: int | None) -> Corruption:
    """The corruption of a condition: Gaussian noise without a severity has its strength in grey levels.

    Raises:
        YoloDynError: if there is none of that name.
    """
    return SIGMA if corruption == GAUSSIAN and severity is None else find(corruption)


def expanded(names: list[str]) -> list[Corruption]:
    """Corruptions of these names, each once; a group's name (`GROUPS`) stands for all of the group.

    Raises:
        YoloDynError: for an unknown name.
    """
    singles = [name for group in names for name in GROUPS.get(group, [group])]
    return list({(found := find(name)).name: found for name in singles}.values())


def corrupt(
    image: Image,
    corruption: str = GAUSSIAN,
    *,
    sigma: float | None = None,
    severity: int | None = None,
    strength: float | None = None,
    seed: int = 0,
    name: str = "",
) -> Image:
    """Corrupt one image.

    Args:
        image: uint8 ``[H, W, C]`` in OpenCV's order of colours; it is not changed.
        corruption: name of a registered corruption.
        sigma: standard deviation of Gaussian noise in grey levels (0-255), rounded to whole levels.
        severity: 1 to 5, the strengths of the field.
        strength: the corruption's own, in its unit (the benchmark's: a severity, also a fraction of one); one of these
            three must be given.
        seed: another seed gives other noise.
        name: file name of the image, without its folder.

    Returns:
        uint8 ``[H, W, C]``. At sigma 0 the image itself.

    Raises:
        YoloDynError: for an unknown corruption, none or several strengths, or an image that is no uint8 ``[H, W, C]``.
    """
    given = [value for value in (sigma, severity, strength) if value is not None]
    if len(given) != 1:
        raise YoloDynError(f"give one of sigma, severity and strength, got {len(given)}")
    if sigma is not None and corruption != GAUSSIAN:
        raise YoloDynError(f"sigma is the strength of {GAUSSIAN}; {find(corruption).name} takes severity or strength")
    chosen = find(corruption) if sigma is None else SIGMA
    if severity is not None:
        return chosen.apply(image, chosen.at(severity), seed, name)
    amount = float(given[0])
    if not 0 <= amount < float("inf"):
        raise YoloDynError(f"the strength of {chosen.name} must be at least 0, got {amount}")
    return chosen.apply(image, amount, seed, name)


def gaussian_noise_values(shape: tuple[int, ...], sigma: float, bits: np.random.Philox) -> np.ndarray:
    """The noise alone, in grey levels, rounded: int16 of that shape."""
    return np.rint(np.float32(sigma) * normal_quantiles()).astype(np.int16)[uniform16(bits, shape)]


def _add_gaussian_noise(image: Image, sigma: float, bits: np.random.Philox) -> Image:
    """Zero-mean noise of `sigma` grey levels, independent for each pixel and channel, without the benchmark's bias."""
    import cv2

    if sigma == 0:
        return image
    noise = gaussian_noise_values(image.shape, sigma, bits)
    return cv2.add(image, noise, dtype=cv2.CV_8U).reshape(image.shape)  # saturates at 0 and 255


SIGMA = Corruption(GAUSSIAN, _add_gaussian_noise, tuple(255 * c for c in (0.08, 0.12, 0.18, 0.26, 0.38)), "grey levels")
