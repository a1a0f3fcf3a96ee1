"""Cameras: how strong the noise of `sensor` is at each severity, by the ranges of the field, by ISO, or from a file."""

import functools
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from yolo_dyn.errors import MissingFileError, YoloDynError, nearest
from yolo_dyn.output.arguments import check_fields
from yolo_dyn.robustness.corruptions.light import TRANSFERS
from yolo_dyn.robustness.corruptions.registry import CORRUPTIONS, FILE, GROUPS, SEVERITIES, Corruption, Image
from yolo_dyn.robustness.corruptions.sensor import PIPELINES, Sensor

SHOT = (6e-4, 1.8e-3, 5e-3, 1.2e-2, 2.2e-2)  # from the least of SIDD to the most of DND (1.2e-2) and of SIDD
GAINS = (1.0, 2.0, 4.0, 8.0, 16.0)  # at severities 1 to 5 where a file names no exposures
DARK = (2.0, 4.0, 8.0, 16.0, 32.0)
PHONE_ISO = (400.0, 800.0, 1600.0, 3200.0, 6400.0)
FULL_FRAME_ISO = (1600.0, 3200.0, 6400.0, 12800.0, 25600.0)
FULL_FRAME_ROW = 0.16  # of a Sony A7S2 (Wei et al. 2020)
WHITE = 15583  # levels of a full-frame camera's 14 bits between black and white
CHOICES = {"pipeline": PIPELINES, "transfer": TRANSFERS}
MEASURED = "measured"  # a key of the file for what else the calibration found; nothing depends on it


def read_noise(a: float) -> float:
    """Variance in the dark that goes with `a` in the pictures of DND: Brooks et al. 2019 (arXiv 1811.11127)."""
    return math.exp(2.18 * math.log(a) + 1.2)


def full_frame(iso: float) -> Sensor:
    """A full-frame camera, with the read-out noise that goes with the gain in the fits of Wei et al. 2020."""
    a = 2.7e-7 * iso
    levels = math.exp(0.563 * math.log(WHITE * a) + 0.8)
    return Sensor(a, (levels / WHITE) ** 2, FULL_FRAME_ROW)


def phone(iso: float) -> Sensor:
    """The camera of a telephone."""
    return Sensor(1.6e-6 * iso, read_noise(1.6e-6 * iso))


# What a strength stands for: (strength) -> (sensor, exposure)


def by_severity(severity: float) -> tuple[Sensor, float]:
    if not SEVERITIES[0] <= severity <= SEVERITIES[-1]:
        raise YoloDynError(f"the severity of sensor_noise must be from 1 to 5, got {severity:g}")
    a, b = (float(np.interp(severity, SEVERITIES, column)) for column in (SHOT, [read_noise(a) for a in SHOT]))
    return Sensor(a, b), 1.0


def by_iso(iso: float, camera: Callable[[float], Sensor], most: float = 409600) -> tuple[Sensor, float]:
    if not 0 < iso <= most:
        raise YoloDynError(
            f"the strength of this sensor noise must be an ISO above 0 and at most {most:g}, got {iso:g}"
        )
    return camera(iso), 1.0


def by_gain(gain: float, sensor: Sensor) -> tuple[Sensor, float]:
    if not 0 < gain <= 1024:
        raise YoloDynError(f"the gain of a sensor must be above 0 and at most 1024, got {gain:g}")
    return sensor, 1 / gain


@dataclass(frozen=True)
class SensorNoise:
    """Sensor noise as a function of (BGR image, strength, bit generator)."""

    at: Callable[[float], tuple[Sensor, float]]

    def __call__(self, image: Image, strength: float, bits: np.random.Philox) -> Image:
        sensor, exposure = self.at(strength)
        turned = np.ascontiguousarray(image[..., ::-1] if image.shape[2] == 3 else image)
        noisy = sensor.noisy(turned, exposure, bits)
        return np.ascontiguousarray(noisy[..., ::-1] if image.shape[2] == 3 else noisy)


@dataclass(frozen=True)
class CameraNoise(Corruption):
    """Sensor noise that takes a camera's parameters from a file."""

    def with_file(self, file: str) -> Corruption:
        sensor, gains = read_camera(Path(file))
        digest = hashlib.sha256(json.dumps(asdict(sensor)).encode()).hexdigest()[:16]
        function = SensorNoise(functools.partial(by_gain, sensor=sensor))
        return Corruption(f"{self.name}{FILE}{file}", function, gains, "gain", f"camera {digest}")


DARK_CAMERA = Sensor(SHOT[0], read_noise(SHOT[0]))
CORRUPTIONS["sensor_noise"] = CameraNoise("sensor_noise", SensorNoise(by_severity), SEVERITIES, "severity")
for _name, _at, _strengths, _unit in (
    ("low_light", functools.partial(by_gain, sensor=DARK_CAMERA), DARK, "gain"),
    ("sensor_noise_phone", functools.partial(by_iso, camera=phone), PHONE_ISO, "ISO"),
    ("sensor_noise_full_frame", functools.partial(by_iso, camera=full_frame), FULL_FRAME_ISO, "ISO"),
):
    CORRUPTIONS[_name] = Corruption(_name, SensorNoise(_at), _strengths, _unit)
GROUPS["sensor"] = ["sensor_noise", "low_light", "sensor_noise_phone", "sensor_noise_full_frame"]


def read_camera(file: Path) -> tuple[Sensor, tuple[float, ...]]:
    """A sensor and its gains at severities 1 to 5, from a YAML such as `noise-calibrate` writes.

    Its keys are the fields of `Sensor`, of which `a` and `b` are needed, and `exposure`, five shares of the light.

    Raises:
        YoloDynError: if the file is missing, is no such YAML, or a key or value of it does not fit.
    """
    content = _mapping(file)
    exposures = content.pop("exposure", [1 / gain for gain in GAINS])
    content.pop(MEASURED, None)
    known = [field.name for field in fields(Sensor)]
    for key in content:
        if key not in known:
            accepted = ", ".join([*known, "exposure", MEASURED])
            raise YoloDynError(f"{file}: unknown key {key!r}{nearest(str(key), known)} (keys: {accepted})")
    missing = [field.name for field in fields(Sensor) if field.default is MISSING and field.name not in content]
    if missing:
        raise YoloDynError(f"{file}: the key {missing[0]!r} is missing; noise-calibrate writes it")
    for key, choices in CHOICES.items():
        if content.get(key, choices[0]) not in choices:
            raise YoloDynError(f"{file}: {key} must be one of {', '.join(choices)}, got {content[key]!r}")
    try:
        sensor = check_fields(Sensor(**content))
    except TypeError as error:
        raise YoloDynError(f"{file}: {error}") from error
    return sensor, _gains(file, exposures)


def _mapping(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise MissingFileError(f"sensor_noise{FILE}{file}: the file of a camera's parameters does not exist")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise YoloDynError(f"{file} is no YAML of a camera: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise YoloDynError(f"{file} is no YAML of a camera: it must map keys such as a and b to numbers")
    return content


def _gains(file: Path, exposures: Any) -> tuple[float, ...]:
    fits = isinstance(exposures, list) and len(exposures) == len(SEVERITIES)
    if not fits or not all(isinstance(e, int | float) and 1 / 1024 <= e <= 1024 for e in exposures):
        raise YoloDynError(
            f"{file}: exposure must be five shares of the light, at severities 1 to 5, from 1/1024 to 1024,"
            f" got {exposures!r}"
        )
    return tuple(1 / e for e in exposures)
