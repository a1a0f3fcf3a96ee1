"""Do arms differ over seeds? Mean, standard deviation, and a two-sided paired t-test (A2D2C paper, its ablations)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolo_dyn.errors import MissingFileError, YoloDynError
from yolo_dyn.output.arguments import checked
from yolo_dyn.output.outcome import Text
from yolo_dyn.runs.read import best_value, metric_column, read_run

RUN = re.compile(r"(?P<arm>.+)-seed(?P<seed>\d+)")  # the name of its folder
Scores = dict[Any, float]  # by seed


@dataclass(frozen=True)
class Comparison:
    """An arm less another over the seeds that both were trained with."""

    seeds: list[int]
    difference: float  # mean over the seeds
    deviation: float | None  # of the differences over the seeds; None for one seed
    low: float | None  # 95 % interval of the mean difference; None if there is no test, like all that follows
    high: float | None
    p: float | None  # two-sided

    def __str__(self) -> str:
        if self.p is None:
            return f"{self.difference:+.3f} ({'one seed' if len(self.seeds) < 2 else 'in all seeds'}: no test)"
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}], p = {self.p:.3f}, {len(self.seeds)} seeds"


def compare_seeds(first: Scores, other: Scores) -> Comparison:
    """Compare two arms by a paired t-test over seeds; there is none for one seed, or if all differences are equal.

    Args:
        first: score of each seed of the arm to compare with.
        other: score of each seed of the other arm.

    Raises:
        YoloDynError: if the seeds do not pair.
    """
    from scipy import stats

    if sorted(first) != sorted(other):
        raise YoloDynError(f"the seeds do not pair: {sorted(first)} and {sorted(other)}")
    seeds = sorted(first)
    a, b = (np.array([scores[seed] for seed in seeds]) for scores in (first, other))
    deviation = float((b - a).std(ddof=1)) if len(seeds) > 1 else None
    if not deviation:
        return Comparison(seeds, float((b - a).mean()), deviation, None, None, None)
    test = stats.ttest_rel(b, a)
    low, high = test.confidence_interval(0.95)
    return Comparison(seeds, float((b - a).mean()), deviation, float(low), float(high), float(test.pvalue))


def shared(first: Scores, other: Scores) -> tuple[Scores, Scores]:
    """Both arms restricted to the seeds that both have."""
    common = sorted(set(first) & set(other))
    return {seed: first[seed] for seed in common}, {seed: other[seed] for seed in common}


@checked
def seeds(source: str = "runs/repeat", base: str = "", metric: str = "") -> Text:
    """Compare arms over seeds: mean, standard deviation, and a paired t-test to the first arm.

    Args:
        source: folder of stock training runs of any task, called ``<arm>-seed<n>``.
        base: arm to compare with; the first by name if it is empty.
        metric: column of results.csv, for example mAP50-95, mAP50(M), top1; if it is empty the task's own: AP of
            keypoints, masks or boxes, or top-1. A run's score is that of its best epoch.

    Returns:
        A table. Arms with one seed are listed without a test.

    Raises:
        YoloDynError: if there is no run, no such arm or column, runs are of different tasks, or seeds do not pair.
    """
    column, arms = read_runs(Path(source), metric)
    base = base or next(iter(arms))
    if base not in arms:
        raise YoloDynError(f"no arm {base!r} in {source} (it has {', '.join(arms)})")
    wide = 2 + max(map(len, arms))
    lines = [f"{column} of the best epoch", "", f"{'arm':<{wide}}{'seeds':>6}{'mean':>8}{'sd':>8}  less {base}"]
    for arm, scores in arms.items():
        values = list(scores.values())
        sd = f"{np.std(values, ddof=1):.3f}" if len(values) > 1 else "-"
        difference = "" if arm == base else str(compare_seeds(arms[base], scores))
        lines.append(f"{arm:<{wide}}{len(values):>6}{np.mean(values):>8.3f}{sd:>8}  {difference}")
    return Text("\n".join(lines))


def read_runs(source: Path, metric: str) -> tuple[str, dict[str, Scores]]:
    """The column that a metric names, and its best value for each arm and seed.

    Raises:
        YoloDynError: if there is no run, a run lacks the column, or runs are of different tasks.
    """
    arms: dict[str, Scores] = {}
    first = ("", "")  # run, column
    for file in sorted(source.glob("*/results.csv")):
        match = RUN.fullmatch(file.parent.name)
        if not match:
            continue
        columns = read_run(file.parent)
        column = metric_column(metric, columns, str(file))
        first = first if first[1] else (str(file), column)
        if column != first[1]:
            raise YoloDynError(f"runs of different tasks do not compare: {first[0]} has {first[1]}, {file} {column}")
        scores = arms.setdefault(match["arm"], {})
        scores[int(match["seed"])] = best_value(columns[column], column, str(file))
    if not arms:
        raise MissingFileError(f"no run called <arm>-seed<n> with a results.csv in {source}")
    return first[1], arms
