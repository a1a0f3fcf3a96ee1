"""What the result files of a study come to: scores of arms and seeds, and comparisons of seeds that may be paired."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolo_dyn.errors import MissingFileError, YoloDynError
from yolo_dyn.runs.seeds import Comparison, compare_seeds, shared
from yolo_dyn.runs.tradeoff.scores import ies, rcs
from yolo_dyn.study.definition import Study
from yolo_dyn.study.records import TIMING, RunRecord, Timing, read_record, read_timing


class RunKey(NamedTuple):
    """A training among those of its arm: a seed leads to other weights with another torch or kind of processor."""

    seed: int
    machine: str  # what decides that, in words


RunScores = dict[RunKey, float]
SeedScores = dict[int, float]


@dataclass(frozen=True)
class StudyResults:
    """Records of a study by arm and run, arms in the study's order; and how long its arms take."""

    study: Study
    records: dict[str, dict[RunKey, RunRecord]]
    timing: Timing

    @classmethod
    def read(cls, study: Study, source: Path) -> "StudyResults":
        """All result files of a folder.

        Raises:
            YoloDynError: if one is damaged, or of an arm that the study does not have.
        """
        records: dict[str, dict[RunKey, RunRecord]] = {arm: {} for arm in study.arms}
        for file in sorted(source.glob("*-seed*.json")):
            record = read_record(file)
            if record.arm not in records:
                raise YoloDynError(f"{file} is of the arm {record.arm!r}, which study {study.name} does not have")
            run = RunKey(record.seed, machine(record.environment))
            if run in records[record.arm]:
                raise YoloDynError(f"{file} is of an arm, a seed and a machine that another file is of: delete one")
            records[record.arm][run] = record
        return cls(study, {arm: runs for arm, runs in records.items() if runs}, read_timing(source / TIMING))

    def require(self, source: Path) -> "StudyResults":
        if not self.records and self.timing == Timing():
            raise MissingFileError(f"no result in {source}: `yolo-dyn study {self.study.source}` makes them")
        return self

    @property
    def conditions(self) -> list[str]:
        """Clean, each sigma, and mPC if there is noise."""
        some = next(iter(next(iter(self.records.values())).values()), None) if self.records else None
        return list(some.conditions()) if some else []

    def scores(self, arm: str, column: str) -> SeedScores:
        """A column's score of each seed; also of a condition. Empty if it was not measured."""
        return _by_seed(self.runs(arm, column))

    def runs(self, arm: str, column: str) -> RunScores:
        """A column's score of each run."""
        found = {run: record.score(column, self.study.metric) for run, record in self.records.get(arm, {}).items()}
        return {run: value for run, value in found.items() if value is not None}

    def timed(self, arm: str, column: str) -> float | None:
        """Seconds of an epoch, milliseconds of an image, or what follows from them; None if it was not timed."""
        image, epoch = self.timing.image, self.timing.epoch
        if column in ("ratio", "ms"):
            return (image.ratio if column == "ratio" else image.ms).get(arm) if image else None
        seconds = epoch.seconds.get(arm) if epoch else None
        if seconds is None or column == "seconds":
            return seconds
        reached = list(self.scores(arm, self.study.metric).values())
        if not reached:
            return None
        images = next(iter(self.records[arm].values())).data.get("training_images")
        mean = float(np.mean(reached))
        return ies(seconds, mean) if column == "ies" else rcs(seconds, mean, images) if images else None

    def compared(self, arm: str, to: str, column: str) -> Comparison | None:
        """One arm less another over the seeds that both were trained with alike; None if there are none."""
        first, other = map(_by_seed, shared(self.runs(to, column), self.runs(arm, column)))
        return compare_seeds(first, other) if first else None

    @property
    def machines(self) -> list[str]:
        """What the trainings ran on, in words."""
        return sorted({run.machine for runs in self.records.values() for run in runs})


def _by_seed(runs: RunScores) -> SeedScores:
    """A seed that was trained on several machines counts once, by its mean: its runs are not independent."""
    seeds = sorted({run.seed for run in runs})
    return {seed: float(np.mean([value for run, value in runs.items() if run.seed == seed])) for seed in seeds}


def machine(environment: dict[str, Any]) -> str:
    """What decides the weights that a seed leads to, in words."""
    kind = f" ({environment['processor_kind']})" if environment.get("processor_kind") else ""
    device = environment.get("device", "cpu")
    on = "" if device == "cpu" else f", device {device}"
    versions = f"ultralytics {environment['ultralytics']}, torch {environment['torch']}"
    return f"{environment['processor']}{kind}, {environment['cores']} cores{on}, {versions}"
