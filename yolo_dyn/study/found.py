"""What the result files of a study come to: scores of arms and seeds, and comparisons of seeds that may be paired."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolo_dyn.errors import MissingFileError, YoloDynError
from yolo_dyn.robustness.cells import CLEAN
from yolo_dyn.robustness.results import MEAN
from yolo_dyn.robustness.scores import mean_performance
from yolo_dyn.study.definition import Study
from yolo_dyn.study.measure import Record, read_record
from yolo_dyn.study.significance import Comparison, Scores, compare_seeds
from yolo_dyn.study.tradeoff_scores import ies, rcs

TIMING = "timing.json"
ALIKE = ("ultralytics", "torch", "processor", "processor_kind", "device")  # decide the weights that a seed leads to


@dataclass(frozen=True)
class Found:
    """Records of a study by arm and seed, arms in the study's order; and how long its arms take."""

    study: Study
    records: dict[str, dict[int, Record]]
    timing: dict[str, Any]  # see `timing.time_arms`

    @classmethod
    def read(cls, study: Study, source: Path) -> "Found":
        """All result files of a folder.

        Raises:
            YoloDynError: where one is damaged, or of an arm that the study does not have.
        """
        records: dict[str, dict[int, Record]] = {arm: {} for arm in study.arms}
        for file in sorted(source.glob("*-seed*.json")):
            record = read_record(file)
            if record["arm"] not in records:
                raise YoloDynError(f"{file} is of the arm {record['arm']!r}, which study {study.name} does not have")
            records[record["arm"]][record["seed"]] = record
        timed = source / TIMING
        timing = json.loads(timed.read_text(encoding="utf-8")) if timed.is_file() else {}
        return cls(study, {arm: seeds for arm, seeds in records.items() if seeds}, timing)

    def require(self, source: Path) -> "Found":
        if not self.records and not self.timing:
            raise MissingFileError(f"no result in {source}: `yolo-dyn study {self.study.name}` makes them")
        return self

    @property
    def conditions(self) -> list[str]:
        """Clean, each sigma, and mPC where there is noise."""
        some = next(iter(next(iter(self.records.values())).values()), None) if self.records else None
        return list(conditions(some)) if some else []

    def scores(self, arm: str, column: str) -> Scores:
        """A column's score of each seed; also of a condition. Empty where it was not measured."""
        found = {seed: score(record, column, self.study.metric) for seed, record in self.records.get(arm, {}).items()}
        return {seed: value for seed, value in found.items() if value is not None}

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
        """One arm less another over the seeds that were trained alike; None where there are none.

        The same seed leads to other weights with another version of torch or on another kind of processor, so it pairs
        only with what was trained by the same.
        """
        first, other = self.scores(to, column), self.scores(arm, column)
        paired = [seed for seed in sorted(first.keys() & other.keys()) if self._alike(arm, to, seed)]
        if not paired:
            return None
        return compare_seeds({seed: first[seed] for seed in paired}, {seed: other[seed] for seed in paired})

    def _alike(self, arm: str, to: str, seed: int) -> bool:
        one, two = (self.records[name][seed]["environment"] for name in (arm, to))
        return all(one.get(key) == two.get(key) for key in ALIKE)

    @property
    def machines(self) -> list[str]:
        """What the trainings ran on, in words."""
        words = set()
        for seeds in self.records.values():
            for record in seeds.values():
                e = record["environment"]
                kind = f" ({e['processor_kind']})" if e.get("processor_kind") else ""
                device = "" if e.get("device", "cpu") == "cpu" else f", device {e['device']}"
                words.add(
                    f"{e['processor']}{kind}, {e['cores']} cores{device}, ultralytics {e['ultralytics']}, torch "
                    f"{e['torch']}"
                )
        return sorted(words)


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
