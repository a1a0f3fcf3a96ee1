"""Fronts by name: functions that clean an image before a model sees it, ours, a user's and other packages'."""

import hashlib
import importlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points

import numpy as np

from yolo_dyn.errors import YoloDynError, first_line, nearest
from yolo_dyn.robustness.corruptions import Image, corrupt
from yolo_dyn.robustness.fronts.level import noise_level

Function = Callable[..., Image]  # (image), or (image, sigma) of one that is told the noise
Clock = Callable[[], float]  # seconds
ENTRY_POINT_GROUP = "yolo_dyn.fronts"  # by which packages declare theirs: name = "module:function"
COLON = ":"  # between a front and how it learns sigma, or a module and its function
ORACLE = "oracle"
PROBED = (0.0, 20.0, 60.0)  # sigmas of the images that tell one definition of a front from another


@dataclass(frozen=True)
class Front:
    """A function that denoises, and how it learns the standard deviation of the noise."""

    name: str  # as it is asked for: bilateral, bilateral:20, bilateral:oracle
    function: Function
    by_sigma: bool = False  # the function takes sigma, in grey levels
    sigma: float | None = None  # that it is told; estimated from each image if it is None
    oracle: bool = False  # it is to be told what the corruption has added
    clock: Clock = time.perf_counter

    def told(self, sigma: float | None) -> "Front":
        """The same under a corruption that has added Gaussian noise of so many grey levels, None for any other.

        Raises:
            YoloDynError: if it must know and there is nothing to know.
        """
        if not self.oracle:
            return self
        if sigma is None:
            raise YoloDynError(f"front={self.name} is told the sigma of gaussian_noise; other corruptions have none")
        return replace(self, sigma=sigma)

    def apply(self, image: Image, name: str = "") -> Image:
        """Denoise one image.

        Args:
            image: uint8 ``[H, W, C]`` in OpenCV's order of colours.
            name: of the image, for messages.

        Raises:
            YoloDynError: if the front fails, or gives another shape or type.
        """
        try:
            found = self.function(image, self._sigma(image)) if self.by_sigma else self.function(image)
        except Exception as error:  # a user's function may fail in any way
            what = f"{type(error).__name__}: {first_line(error)}"
            raise YoloDynError(f"front {self.name!r} failed on image {name!r}: {what}") from error
        if isinstance(found, np.ndarray) and found.shape == image.shape[:2] and image.shape[2] == 1:
            found = found[..., None]  # OpenCV leaves out the axis of a single channel
        if not isinstance(found, np.ndarray) or found.shape != image.shape or found.dtype != np.uint8:
            got = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
            wanted = f"uint8 {list(image.shape)}"
            raise YoloDynError(f"front {self.name!r} must keep shape and type, {wanted}, got {got} on image {name!r}")
        return np.ascontiguousarray(found)

    def timed(self, image: Image, name: str) -> tuple[Image, float]:
        """The denoised image, and the seconds that it took."""
        start = self.clock()
        found = self.apply(image, name)
        return found, self.clock() - start

    def _sigma(self, image: Image) -> float:
        return noise_level(image) if self.sigma is None else self.sigma

    def definition(self, channels: int) -> str:
        """Name and hash of what it makes of some noisy images: another one if its code has changed.

        Raises:
            YoloDynError: if it fails on them, or makes other pixels of the same image each time.
        """
        digest = hashlib.sha256()
        for sigma in PROBED:
            front = self.told(sigma)
            image = np.resize(np.arange(64, dtype=np.uint8) * 3, (61, 64, channels))  # slopes and edges, an odd side
            image = corrupt(image, sigma=sigma, name="probe")
            found, again = (front.apply(image.copy(), "probe") for _ in range(2))
            if not np.array_equal(found, again):
                raise YoloDynError(f"front {self.name!r} must make the same of the same image, whenever it is called")
            digest.update(found.tobytes())
        return f"{self.name} {digest.hexdigest()[:16]}"


FRONTS: dict[str, Front] = {}


def register_front(
    name: str, by_sigma: bool = False, clock: Clock = time.perf_counter
) -> Callable[[Function], Function]:
    """Make a function known as a front; used as a decorator.

    Args:
        name: what the commands call it.
        by_sigma: the function is called as ``function(image, sigma)``, sigma being the standard deviation of the noise
            in grey levels; else as ``function(image)``. Images are uint8 ``[H, W, C]``, colours in OpenCV's order.
        clock: that times it; elapsed time by default, since it may keep threads or a GPU busy.

    Raises:
        YoloDynError: if the name is taken or holds a colon.

    Examples:
        >>> import numpy as np
        >>> @register_front("posterised")
        ... def posterised(image):
        ...     return image // 64 * 64
        >>> denoise(np.full((1, 1, 3), 200, np.uint8), "posterised")
        array([[[192, 192, 192]]], dtype=uint8)
    """
    if name in FRONTS:
        raise YoloDynError(f"the front {name!r} is registered already")
    if not name or COLON in name or "," in name:
        raise YoloDynError(f"front {name!r}: a name may not be empty nor hold a comma or {COLON!r}")

    def add(function: Function) -> Function:
        FRONTS[name] = Front(name, function, by_sigma, clock=clock)
        return function

    return add


def known_fronts() -> list[str]:
    """Names of all fronts, registered or declared by installed packages."""
    return list(dict.fromkeys((*FRONTS, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP)))))


def find_front(front: str) -> Front:
    """The front of that name; a declared one is imported at first use, and registers itself.

    Args:
        front: a name, which a colon and a sigma in grey levels or ``oracle`` may follow; or ``module:function``, a
            function of the image alone.

    Raises:
        YoloDynError: if there is none, or it takes no sigma.
    """
    name, colon, how = front.partition(COLON)
    if name not in FRONTS:
        for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
            point.load()
    if name in FRONTS:
        return _with_sigma(FRONTS[name], front, how) if colon else FRONTS[name]
    if colon and name and how:
        return Front(front, _imported(front, name, how))
    known = known_fronts()
    also = f"; and module{COLON}function for one of your own"
    raise YoloDynError(f"unknown front {front!r}{nearest(name, known)} (known: {', '.join(known)}{also})")


def _with_sigma(front: Front, asked: str, how: str) -> Front:
    if not front.by_sigma:
        raise YoloDynError(f"front={asked}: {front.name} takes no sigma")
    if how == ORACLE:
        return replace(front, name=f"{front.name}{COLON}{ORACLE}", oracle=True)
    try:
        sigma = float(how)
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma <= 255:
        raise YoloDynError(f"front={asked}: sigma must be grey levels from 0 to 255 or {ORACLE}, got {how!r}")
    return replace(front, name=f"{front.name}{COLON}{sigma:g}", sigma=sigma)


def _imported(asked: str, module: str, function: str) -> Function:
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # another's module may fail in any way
        known = ", ".join(known_fronts())
        raise YoloDynError(f"front={asked} cannot be imported: {first_line(error)} (known: {known})") from error
    if not callable(found):
        raise YoloDynError(f"front={asked} is no function, got {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def chosen_fronts(names: list[str] | None) -> tuple[Front, ...]:
    """Fronts of these names, each once.

    Raises:
        YoloDynError: for an unknown one.
    """
    return tuple({(found := find_front(name)).name: found for name in names or ()}.values())


def denoise(image: Image, front: str = "bilateral", sigma: float | None = None) -> Image:
    """Denoise one image as a front does.

    Args:
        image: uint8 ``[H, W, C]`` in OpenCV's order of colours; it is not changed.
        front: see `find_front`.
        sigma: what ``front="bilateral:oracle"`` is told.

    Returns:
        uint8 ``[H, W, C]``.

    Raises:
        YoloDynError: for an unknown front, or one that fails.
    """
    return find_front(front).told(sigma).apply(image)
