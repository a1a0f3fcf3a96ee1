"""Typed records of a sweep. Each knows its form in JSON: `as_dict` writes it, and `from_dict` reads what is kept."""

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from yolo_dyn.output.arguments import Finite, OrDefault, Positive, Share, check_fields
from yolo_dyn.robustness.corruptions import GAUSSIAN, SIGMA
from yolo_dyn.robustness.diagnosis import Diagnosis
from yolo_dyn.robustness.tasks import NAMES

CLEAN = "clean"
MEAN = "mPC"  # stands in the corruption's place if a figure is the mean over all of them


@dataclass(frozen=True)
class Condition:
    """What was done to the images: a corruption at a strength. Clean images have no strength."""

    corruption: str
    strength: Finite | None = None
    severity: int | None = None  # by which the strength was chosen; None if it was given itself

    @property
    def clean(self) -> bool:
        return self.corruption == CLEAN

    @property
    def sigma(self) -> float | None:
        """Standard deviation of Gaussian noise in grey levels; None for other corruptions and for severities."""
        return (self.strength or 0.0) if self.corruption in (CLEAN, GAUSSIAN) and not self.severity else None

    @property
    def noise(self) -> float | None:
        """What an oracle knows: the standard deviation of Gaussian noise in grey levels, also of a severity's."""
        return SIGMA.at(self.severity) if self.corruption == GAUSSIAN and self.severity else self.sigma

    def __str__(self) -> str:
        """Short enough for the head of a column."""
        if self.strength is None:
            return self.corruption
        return f"{self.corruption} {self.severity}" if self.severity else f"sigma {self.strength:g}"

    @property
    def kind(self) -> str:
        """The corruption as a part of a file's name; of a file with its parameters no folders."""
        return re.sub(r":(.*[/\\])?", "-", self.corruption)

    @property
    def slug(self) -> str:
        """As a name of files and folders: clean, gaussian_noise_sigma25, fog_severity3."""
        if self.strength is None:
            return self.corruption
        return f"{self.kind}_{f'severity{self.severity}' if self.severity else f'sigma{self.strength:.12g}'}"

    @property
    def title(self) -> str:
        """In words."""
        if self.strength is None:
            return self.corruption
        return f"{self.corruption} at {f'severity {self.severity}' if self.severity else f'{self.strength:g}'}"


@dataclass(frozen=True, kw_only=True)
class CellScores:
    """How well one model detects under one condition."""

    condition: Condition
    seed: OrDefault  # of the corruption
    images: Positive
    skipped: OrDefault  # that could not be read, and are not among the images
    detections: OrDefault
    scores: dict[str, Share]  # names of `tasks.NAMES`; what no object of the data has is absent
    per_class: dict[str, Share]  # AP
    intervals: dict[str, tuple[Finite, Finite]]  # 95 % of AP and AP50
    ultralytics: dict[str, Share]  # AP and AP50 as Ultralytics computes them

    def as_dict(self) -> dict[str, Any]:
        """The form in JSON, the scores side by side with the rest."""
        return {
            "corruption": self.condition.corruption,
            "sigma": self.condition.sigma,
            "seed": self.seed,
            "images": self.images,
            "skipped": self.skipped,
            "detections": self.detections,
            **self.scores,
            "per_class": self.per_class,
            "intervals": self.intervals,
            "ultralytics": self.ultralytics,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "CellScores":
        """Read its form in JSON.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: if it is another.
        """
        return check_fields(CellScores(**_scored(content)))


def _scored(content: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `CellScores`. Studies keep no strength beside sigma; cells of earlier versions no number skipped."""
    strength = content["strength"] if "strength" in content else content["sigma"] or None
    return {
        "condition": check_fields(Condition(content["corruption"], strength, content.get("severity"))),
        "seed": content["seed"],
        "images": content["images"],
        "skipped": content.get("skipped", 0),
        "detections": content["detections"],
        "scores": {name: content[name] for name in NAMES if name in content},
        "per_class": content["per_class"],
        "intervals": {name: (low, high) for name, (low, high) in content["intervals"].items()},
        "ultralytics": content["ultralytics"],
    }


@dataclass(frozen=True)
class FrontRecord:
    """A front that cleaned each image before the model saw it."""

    name: str
    model: str  # label of the model without it
    milliseconds: Finite  # an image, on one thread
    processor: str  # that it ran on


@dataclass(frozen=True, kw_only=True)
class CellRecord(CellScores):
    """A finished cell: its scores, and what they were measured with."""

    model: str  # label
    path: str  # of the model
    weights: str  # SHA-256
    milliseconds: dict[str, Finite]  # an image: preprocess, inference, postprocess
    pixels: dict[str, str]  # SHA-256 over all images, if they were asked for: decoded, noise, used
    seconds: Finite  # that the cell took
    identity: dict[str, Any]  # everything that decides its numbers
    front: FrontRecord | None = None
    diagnosis: Diagnosis | None = None  # what goes wrong; None if an earlier version measured the cell

    def as_dict(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in _OWN}
        own |= {"front": asdict(self.front)} if self.front else {}  # cells from before there were fronts have none
        own |= {"severity": self.condition.severity, "strength": self.condition.strength}
        return own | super().as_dict() | {"diagnosis": self.diagnosis and self.diagnosis.as_dict()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "CellRecord":
        own = {name: content[name] for name in _OWN}
        front = check_fields(FrontRecord(**content["front"])) if content.get("front") else None
        diagnosis = Diagnosis.from_dict(content.get("diagnosis"))
        return check_fields(CellRecord(**_scored(content), **own, front=front, diagnosis=diagnosis))

    def scores_alone(self) -> CellScores:
        """Without what belongs to this machine and folder."""
        return CellScores(**{field.name: getattr(self, field.name) for field in fields(CellScores)})


_OWN = ("model", "path", "weights", "milliseconds", "pixels", "seconds", "identity")


@dataclass(frozen=True)
class Performance:
    """One score of one model over a sweep, as the benchmark of Michaelis et al. has it (arXiv 1907.07484)."""

    p: float | None  # P: on clean images
    mpc: float | None  # mPC: mean over the corrupted cells
    rpc: float | None  # rPC: mPC / P
    cells: int  # corrupted ones

    @property
    def drop(self) -> float | None:
        """How far the mean lies below P."""
        return None if self.p is None or self.mpc is None else self.p - self.mpc

    def as_dict(self) -> dict[str, float | None]:
        return {"P": self.p, "mPC": self.mpc, "rPC": self.rpc, "cells": self.cells}


@dataclass(frozen=True)
class Fall:
    """How one score of one model falls, such as the AP of a class."""

    performance: Performance
    scores: dict[Condition, float]

    def change(self, condition: Condition) -> float | None:
        """The score under a condition less the clean one; None if one of them is absent."""
        clean, score = self.performance.p, self.scores.get(condition)
        return None if clean is None or score is None else score - clean

    def as_dict(self) -> dict[str, Any]:
        changes = {c.slug: self.change(c) for c in self.scores if not c.clean}
        return {**self.performance.as_dict(), "drop": self.performance.drop, "change": changes}


@dataclass(frozen=True)
class Degradation:
    """How the AP of each class and of each size of objects falls for one model; what no object has is absent."""

    model: str
    classes: dict[str, Fall]
    sizes: dict[str, Fall]

    def as_dict(self) -> dict[str, Any]:
        falls = {"classes": self.classes, "sizes": self.sizes}
        return {"model": self.model} | {
            part: {name: fall.as_dict() for name, fall in each.items()} for part, each in falls.items()
        }


@dataclass(frozen=True)
class Summary:
    """What a model's cells come to."""

    model: str
    ap: Performance
    ap50: Performance

    def as_dict(self) -> dict[str, Any]:
        return {"model": self.model, "AP": self.ap.as_dict(), "AP50": self.ap50.as_dict()}


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Difference:
    """One model less another under a condition, or in the mean over all corrupted ones."""

    model: str
    to: str
    condition: Condition
    ap: Estimate
    ap50: Estimate

    def as_dict(self) -> dict[str, Any]:
        models = {"model": self.model, "to": self.to}
        return {**models, **asdict(self.condition), "AP": asdict(self.ap), "AP50": asdict(self.ap50)}
