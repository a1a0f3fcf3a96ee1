"""What an arm with a seed comes to, typed, and the one small file that keeps it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from yolo_dyn.errors import YoloDynError
from yolo_dyn.output import files
from yolo_dyn.robustness.records import CLEAN, MEAN, CellScores
from yolo_dyn.robustness.scores import mean_performance, relative_performance
from yolo_dyn.study.columns import OF_EXPERTS

TIMING = "timing.json"


@dataclass(frozen=True)
class Training:
    """How long a training was."""

    epochs: int
    best_epoch: int
    seconds: float | None = None  # not kept by earlier versions

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training and its scores: a detector's under each condition, or a classifier's."""

    arm: str
    what: str  # the arm in words
    seed: int
    command: str  # that trains it
    weights: str  # SHA-256 of the tensors; of the file in the first records
    parameters: int
    training: Training
    environment: dict[str, Any]  # versions and machine
    data: dict[str, Any]  # what was scored: images, fingerprint, split; a classifier's training_images
    cells: list[CellScores] = field(default_factory=list)  # a detector's, the clean one first
    scores: dict[str, float] = field(default_factory=dict)  # a classifier's: top1, top5
    experts: dict[str, float] = field(default_factory=dict)  # columns.OF_EXPERTS, if they were asked for and it has any

    def as_dict(self) -> dict[str, Any]:
        scored = {"scores": self.scores} if self.scores else {"cells": [cell.as_dict() for cell in self.cells]}
        own = {name: getattr(self, name) for name in _OWN}
        return {
            **own,
            "training": self.training.as_dict(),
            **scored,
            **({"experts": self.experts} if self.experts else {}),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "RunRecord":
        """Read its form in JSON.

        Raises:
            KeyError: if a key is missing.
        """
        scored = (
            {"scores": content["scores"]}
            if "scores" in content
            else {"cells": [CellScores.from_dict(cell) for cell in content["cells"]]}
        )
        own = {name: content[name] for name in _OWN}
        training = Training(**content["training"])
        return RunRecord(**own, training=training, **scored, experts=content.get("experts", {}))

    def conditions(self) -> dict[str, dict[str, float]]:
        """A detector's scores by condition; mPC, if there is noise, is their mean."""
        scores = {str(cell.condition): cell.scores for cell in self.cells}
        noisy = [cell.scores for cell in self.cells if not cell.condition.clean]
        if noisy:
            means = {name: mean_performance([each[name] for each in noisy if name in each]) for name in noisy[0]}
            scores[MEAN] = {name: mean for name, mean in means.items() if mean is not None}
        return scores

    def score(self, column: str, metric: str) -> float | None:
        """A column's score, or the metric under a condition; None if it was not measured."""
        if self.scores or column in OF_EXPERTS:
            return (self.scores | self.experts).get(column)
        conditions = self.conditions()
        clean = conditions.get(CLEAN, {})
        if column == "rPC":
            mean = conditions.get(MEAN, {}).get(metric)
            return relative_performance(clean.get(metric), [] if mean is None else [mean])
        return conditions[column].get(metric) if column in conditions else clean.get(column)


@dataclass(frozen=True)
class ImageTimes:
    """Milliseconds of an image of each arm, and the ratio to the base in the same rounds."""

    what: str  # how they were measured
    ms: dict[str, float]
    ratio: dict[str, float]


@dataclass(frozen=True)
class EpochTimes:
    """Seconds of an epoch of each arm."""

    what: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class Timing:
    """How long the arms of a study take."""

    image: ImageTimes | None = None
    epoch: EpochTimes | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Timing":
        image, epoch = content.get("image"), content.get("epoch")
        return Timing(image and ImageTimes(**image), epoch and EpochTimes(**epoch), content["environment"])


_OWN = ("arm", "what", "seed", "command", "weights", "parameters", "environment", "data")


def result_file(out: Path, arm: str, seed: int) -> Path:
    return out / f"{arm}-seed{seed}.json"


def write_record(file: Path, record: RunRecord) -> None:
    """Write a result file whole."""
    write_json(file, record.as_dict())


def write_json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(file, content)


def read_record(file: Path) -> RunRecord:
    """Read a result file.

    Raises:
        YoloDynError: if it is damaged, or is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise YoloDynError(f"the result {file} is damaged ({error}): delete it, and it is measured again") from error
    try:
        return RunRecord.from_dict(content)
    except KeyError as error:
        raise YoloDynError(f"{file} is no result of a study: it has no {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise YoloDynError(f"{file} is no result of a study: {error}") from error


def read_timing(file: Path) -> Timing:
    """How long the arms take; empty if it was not measured.

    Raises:
        YoloDynError: if the file is damaged.
    """
    if not file.is_file():
        return Timing()
    try:
        return Timing.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise YoloDynError(f"{file} is damaged ({error!r}): delete it, and seconds=True measures it again") from error
