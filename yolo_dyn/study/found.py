"""What the result files of a study come to: scores of arms and seeds, and comparisons of seeds that may be paired."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolo_dyn.errors import MissingFileError, YoloDynError
from yolo_dyn.robustness.cells import CLEAN
from yolo_dyn.robustness.results import MEAN
from yolo_dyn.robustness.scores import mean_performance
from yolo_dyn.runs.seeds import Comparison, compare_seeds, shared
from yolo_dyn.runs.tradeoff.scores import ies, rcs
from yolo_dyn.study.definition import Study
from yolo_dyn.study.measure import Record, read_record

TIMING = "timing.json"


class Run(NamedTuple):
    """A training: the same seed leads to other weights with another torch, or on another kind of processor."""

    seed: int
    machine: str  # what decides that, in words


RunScores = dict[Run, float]


@dataclass(frozen=True)
class Found:
    """Records of a study by arm and run, arms in the study's order; and how long its arms take."""

    study: Study
    records: dict[str, dict[Run, Record]]
    timing: dict[str, Any]  # see `timing.time_arms`

    @classmethod
    def read(cls, study: Study, source: Path) -> "Found":
        """All result files of a folder.

        Raises:
            YoloDynError: where one is damaged, or of an arm that the study does not have.
        """
        records: dict[str, dict[Run, Record]] = {arm: {} for arm in study.arms}
        for file in sorted(source.glob("*-seed*.json")):
            record = read_record(file)
            if record["arm"] not in records:
                raise YoloDynError(f"{file} is of the arm {record['arm']!r}, which study {study.name} does not have")
            run = Run(record["seed"], machine(record["environment"]))
            if run in records[record["arm"]]:
                raise YoloDynError(f"{file} is of an arm, a seed and a machine that another file is of: delete one")
            records[record["arm"]][run] = record
        return cls(study, {arm: runs for arm, runs in records.items() if runs}, _timing(source / TIMING))

    def require(self, source: Path) -> "Found":
        if not self.records and not self.timing:
            raise MissingFileError(f"no result in {source}: `yolo-dyn study {self.study.source}` makes them")
        return self

    @property
    def conditions(self) -> list[str]:
        """Clean, each sigma, and mPC where there is noise."""
        some = next(iter(next(iter(self.records.values())).values()), None) if self.records else None
        return list(conditions(some)) if some else []

    def scores(self, arm: str, column: str) -> RunScores:
        """A column's score of each run; also of a condition. Empty where it was not measured."""
        found = {run: score(record, column, self.study.metric) for run, record in self.records.get(arm, {}).items()}
        return {run: value for run, value in found.items() if value is not None}

    def timed(self, arm: str, column: str) -> float | None:
        """Seconds of an epoch, milliseconds of an image, or what follows from them; None where it was not timed."""
        if column in ("ratio", "ms"):
            return self.timing.get("image", {}).get(column, {}).get(arm)
        seconds = self.timing.get("epoch", {}).get("seconds", {}).get(arm)
        if seconds is None or column == "seconds":
            return seconds
        reached = list(self.scores(arm, self.study.metric).values())
        if not reached:
            return None
        images = next(iter(self.records[arm].values()))["data"].get("training_images")
        mean = float(np.mean(reached))
        return ies(seconds, mean) if column == "ies" else rcs(seconds, mean, images) if images else None

    def compared(self, arm: str, to: str, column: str) -> Comparison | None:
        """One arm less another over the seeds that both were trained with alike; None where there are none."""
        first, other = shared(self.scores(to, column), self.scores(arm, column))
        return compare_seeds(first, other) if first else None

    @property
    def machines(self) -> list[str]:
        """What the trainings ran on, in words."""
        return sorted({run.machine for runs in self.records.values() for run in runs})


def machine(environment: dict[str, Any]) -> str:
    """What decides the weights that a seed leads to, in words."""
    kind = f" ({environment['processor_kind']})" if environment.get("processor_kind") else ""
    device = environment.get("device", "cpu")
    on = "" if device == "cpu" else f", device {device}"
    versions = f"ultralytics {environment['ultralytics']}, torch {environment['torch']}"
    return f"{environment['processor']}{kind}, {environment['cores']} cores{on}, {versions}"


def _timing(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        timing = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise YoloDynError(f"{file} is damaged ({error}): delete it, and seconds=True measures it again") from error
    if not isinstance(timing, dict):
        raise YoloDynError(f"{file} must hold a mapping, got {timing!r}")
    return timing


def conditions(record: Record) -> dict[str, dict[str, Any]]:
    """The cells of a detector's record by condition; mPC, where there is noise, is their mean."""
    cells = {_condition(cell): cell for cell in record.get("cells", ())}
    noisy = [cell for name, cell in cells.items() if name != CLEAN]
    if noisy:
        keys = [key for key, value in noisy[0].items() if isinstance(value, float)]
        cells[MEAN] = {key: mean_performance([cell[key] for cell in noisy if key in cell]) for key in keys}
    return cells


def _condition(cell: dict[str, Any]) -> str:
    return CLEAN if cell["corruption"] == CLEAN else f"sigma {cell['sigma']:g}"


def score(record: Record, column: str, metric: str) -> float | None:
    """A column's score of a record, or the metric under a condition; None where it was not measured."""
    if "scores" in record:
        return record["scores"].get(column)
    cells = conditions(record)
    if column == "rPC":
        return cells[MEAN][metric] / cells[CLEAN][metric] if MEAN in cells and cells[CLEAN][metric] else None
    if column in cells:
        return cells[column][metric]
    return cells[CLEAN].get(column)
