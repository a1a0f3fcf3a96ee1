"""Models against each other, paired on the same resampled images, and over which corruptions mPC is the mean."""

from collections.abc import Iterable

import numpy as np

from yolo_dyn.robustness import scores
from yolo_dyn.robustness.corruptions import SEVERITIES
from yolo_dyn.robustness.corruptions.benchmark import COCOC
from yolo_dyn.robustness.corruptions.frost import DRAWN
from yolo_dyn.robustness.records import MEAN, CellRecord, Condition, Difference, Estimate, Performance

Key = tuple[str, Condition]  # model, condition


def key(record: CellRecord) -> Key:
    """By which resampled scores are kept."""
    return record.model, record.condition


def averaged(conditions: Iterable[Condition]) -> set[Condition]:
    """Those over which mPC is the mean: COCO-C's 15 corruptions at 5 severities if all are there, else all not clean.

    The four extra corruptions are no part of the benchmark's mean.
    """
    corrupted = {condition for condition in conditions if not condition.clean}
    return {c for c in corrupted if c.severity and _as_cococ(c) in COCOC} if whole(corrupted) else corrupted


def whole(conditions: Iterable[Condition]) -> bool:
    found = {(_as_cococ(c), c.severity) for c in conditions}
    return found >= {(name, severity) for name in COCOC for severity in SEVERITIES}


def _as_cococ(condition: Condition) -> str:
    return "frost" if condition.corruption == DRAWN else condition.corruption


def performance(records: list[CellRecord], name: str) -> Performance:
    """P, mPC and rPC of one score of one model. A cell that was not run is absent, never 0."""
    scored = [record for record in records if name in record.scores]
    clean = next((record.scores[name] for record in scored if record.condition.clean), None)
    among = averaged(record.condition for record in scored)
    corrupted = [record.scores[name] for record in scored if record.condition in among]
    mean, relative = scores.mean_performance(corrupted), scores.relative_performance(clean, corrupted)
    return Performance(clean, mean, relative, len(corrupted))


def differences(records: list[CellRecord], resampled: dict[Key, np.ndarray]) -> list[Difference]:
    """Each other model less the first, cell by cell and for the mean over corrupted cells (mPC; see `averaged`)."""
    models = list(dict.fromkeys(record.model for record in records))
    return [row for other in models[1:] for row in difference(records, resampled, other, models[0])]


def difference(records: list[CellRecord], resampled: dict[Key, np.ndarray], model: str, to: str) -> list[Difference]:
    """One model less another, cell by cell and for the mean over corrupted cells."""
    scored = {key(record): record for record in records if set(scores.RESAMPLED) <= set(record.intervals)}
    both = [c for of, c in scored if of == to and (model, c) in scored]
    pairs = {condition: [(scored[to, condition], scored[model, condition])] for condition in both}
    among = averaged(pairs)
    corrupted = [pair for condition, (pair,) in pairs.items() if condition in among]
    if corrupted:
        pairs[Condition(MEAN)] = corrupted
    return [Difference(model, to, c, *_estimates(these, resampled)) for c, these in pairs.items()]


def _estimates(pairs: list[tuple[CellRecord, CellRecord]], resampled: dict[Key, np.ndarray]) -> list[Estimate]:
    """Mean difference over pairs of cells, with its interval, of AP and AP50."""
    first, second = (np.mean([resampled[key(pair[i])] for pair in pairs], 0) for i in (0, 1))
    means = {name: float(np.mean([b.scores[name] - a.scores[name] for a, b in pairs])) for name in scores.RESAMPLED}
    intervals = scores.paired_interval(first, second, means, pairs[0][0].images)
    return [Estimate(means[name], *intervals[name]) for name in scores.RESAMPLED]
