"""Denoise, train with noise, or change the network? All models, each alone and behind its fronts, in one table."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from yolo_dyn.robustness.differences import Key, difference, performance
from yolo_dyn.robustness.records import MEAN, CellRecord, Condition, Estimate, Performance

ACROSS = 3  # conditions beside each other in the terminal


@dataclass(frozen=True)
class Arm:
    """A model, alone or behind a front."""

    label: str
    model: str  # label of the model alone
    front: str  # empty if there is none
    milliseconds: float  # of the front for an image, the mean over all conditions
    processor: str  # that it ran on
    performance: Performance  # AP
    scores: dict[Condition, float]  # AP
    differences: dict[Condition, Estimate]  # AP less that of the model alone, also of mPC

    def as_dict(self) -> dict[str, Any]:
        cells = [
            {**asdict(condition), "AP": self.score(condition), "less_alone": _as_dict(self.differences.get(condition))}
            for condition in dict.fromkeys((*self.scores, Condition(MEAN)))
        ]
        names = {"model": self.model, "front": self.front or None}
        cost = {"milliseconds": self.milliseconds, "processor": self.processor}
        return {**names, **cost, **self.performance.as_dict(), "conditions": cells}

    @property
    def cost(self) -> str:
        """Milliseconds, as they are shown."""
        return f"{self.milliseconds:.{1 if self.milliseconds >= 1 else 2}f}" if self.front else "-"

    def score(self, condition: Condition) -> float | None:
        """AP under a condition, or mPC."""
        return self.performance.mpc if condition.corruption == MEAN else self.scores.get(condition)

    def text(self, condition: Condition) -> str:
        """AP, and what it is more or less than that of the model alone."""
        score, less = self.score(condition), self.differences.get(condition)
        if score is None:
            return "-"
        return f"{score:.3f}" + (f" {less.value:+.3f} [{less.low:+.3f}, {less.high:+.3f}]" if less else "")


def _as_dict(estimate: Estimate | None) -> dict[str, float] | None:
    return asdict(estimate) if estimate else None


def arms(records: list[CellRecord], resampled: dict[Key, np.ndarray]) -> list[Arm]:
    """All arms, those of one model together; nothing if no model has a front.

    Args:
        records: of all cells.
        resampled: scores of the bootstrap samples of each.
    """
    if not any(record.front for record in records):
        return []
    found = [_arm(label, records, resampled) for label in dict.fromkeys(record.model for record in records)]
    models = list(dict.fromkeys(arm.model for arm in found))
    return sorted(found, key=lambda arm: models.index(arm.model))


def _arm(label: str, records: list[CellRecord], resampled: dict[Key, np.ndarray]) -> Arm:
    own = [record for record in records if record.model == label]
    fronts = [record.front for record in own if record.front]
    model, front = (fronts[0].model, fronts[0].name) if fronts else (label, "")
    # the model alone may have been measured with other weights, by another command
    alone = [r for r in records if r.model == model and r.weights == own[0].weights] if front else []
    return Arm(
        label,
        model,
        front,
        float(np.mean([each.milliseconds for each in fronts])) if fronts else 0.0,
        ", ".join(dict.fromkeys(each.processor for each in fronts)),
        performance(own, "AP"),
        {record.condition: record.scores["AP"] for record in own if "AP" in record.scores},
        {row.condition: row.ap for row in difference([*alone, *own], resampled, label, model)} if alone else {},
    )


def subject(found: list[Arm]) -> str:
    """The models and their fronts in words; empty if there are none."""
    models, fronts = dict.fromkeys(arm.model for arm in found), dict.fromkeys(arm.front for arm in found if arm.front)
    return f"{', '.join(models)}, alone and behind {', '.join(fronts)}" if found else ""


def looks(found: list[Arm]) -> dict[str, tuple[int, int]]:
    """Numbers of colour and style of each arm's lines: one colour for a model, one style for a front."""
    models = list(dict.fromkeys(arm.model for arm in found))
    fronts = list(dict.fromkeys(["", *(arm.front for arm in found)]))
    return {arm.label: (models.index(arm.model), fronts.index(arm.front)) for arm in found}


def processors(found: list[Arm]) -> str:
    """What the fronts ran on."""
    return ", ".join(dict.fromkeys(arm.processor for arm in found if arm.front))


def lines(found: list[Arm], conditions: list[Condition]) -> Iterator[str]:
    """The table as text."""
    yield "denoise, train with noise, or change the network? AP, and AP less that of the same model without a front,"
    yield "with the 95 % interval of a paired bootstrap over images; ms: of the front, for an image, on one thread of"
    yield processors(found)
    columns = [Condition(MEAN), *conditions]
    for start in range(0, len(columns), ACROSS):
        some = columns[start : start + ACROSS]
        rows = [["model", "front", "ms", *map(str, some)]]
        for arm in found:
            rows.append([arm.model, arm.front or "-", arm.cost, *(arm.text(condition) for condition in some)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        yield ""
        yield from ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
