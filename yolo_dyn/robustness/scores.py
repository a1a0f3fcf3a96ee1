"""Scores of detections: COCO's, and their uncertainty by a bootstrap over images.

The bootstrap does not match again: what was matched once is kept for each class and threshold, and a resample only
counts each image as often as it was drawn. The draws depend on a seed and the number of images alone, so two models
scored on the same images are resampled together, and their difference is a paired one.

Boxes, masks and keypoints are scored by COCO's rules, rotated boxes by those of Ultralytics' own validator.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtr, ndtri

from yolo_dyn.data.tasks import BOXES, ObjectKind
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import compat
from yolo_dyn.robustness import matching, rotated
from yolo_dyn.robustness.corruptions import bit_generator
from yolo_dyn.robustness.matching import ClassRecords
from yolo_dyn.robustness.tasks import COCO, SCORINGS, ULTRALYTICS, scoring

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the intersection over union
RECALLS = np.linspace(0, 1, 101)
SCORES = SCORINGS["detect"].scores  # of COCO's twelve
RESAMPLED = ("AP", "AP50")
CHUNK = 500_000  # values at a time: bounds the memory of a bootstrap


@dataclass(frozen=True)
class Result:
    """Scores of one model on one set of images, and the records to resample."""

    scores: dict[str, float]  # those of the task; a size without objects is absent
    per_class: dict[str, float]  # AP of each class that has objects
    records: list[ClassRecords]
    images: int
    rules: str = COCO  # by which the AP is computed


def evaluate(
    truth: dict[str, Any],
    detections: np.ndarray,
    engine: str = "",
    kind: ObjectKind = BOXES,
    shapes: np.ndarray | None = None,
) -> Result:
    """Score detections as pycocotools does, rotated boxes as Ultralytics does.

    Args:
        truth: COCO's format: `images`, `annotations` (with `area` and `iscrowd`), `categories`.
        detections: ``[n, 7]``: image id, left, top, width, height in pixels, score, category id.
        engine: what scores, which decides no number: see `matching.engine`.
        kind: of the objects.
        shapes: what the detections have beside their boxes, see `objects`.

    Returns:
        The scores; without any detection they are 0.

    Raises:
        YoloDynError: if a detection names an unknown image or category.
    """
    _check(truth, detections)
    if kind.task == "obb":
        return _of_rotated_boxes(truth, detections, shapes)
    scored = matching.score(matching.engine(engine, kind), truth, detections, kind, shapes)
    coco = scored.evaluation
    precision = coco.eval["precision"][:, :, :, 0, -1]  # [T, recall, class], all areas, 100 detections an image
    names = {c["id"]: c["name"] for c in truth["categories"]}
    means = {names[c]: precision[..., k].mean() for k, c in enumerate(coco.params.catIds)}
    return Result(
        {name: float(coco.stats[at]) for name, at in scoring(kind).scores.items() if coco.stats[at] >= 0},
        {name: float(value) for name, value in means.items() if value >= 0},
        scored.records,
        len(coco.params.imgIds),
    )


def _of_rotated_boxes(truth: dict[str, Any], detections: np.ndarray, shapes: np.ndarray | None) -> Result:
    """Scores by Ultralytics' rules; none if there is no object."""
    records = rotated.match(truth, detections, np.zeros((0, 5)) if shapes is None else shapes, THRESHOLDS)
    once = np.ones((1, len(truth["images"])), int)
    at = dict(zip(THRESHOLDS.round(2).tolist(), average_precision(records, once, ULTRALYTICS)[0], strict=True))
    means = {
        category["name"]: average_precision([record], once, ULTRALYTICS).mean()
        for category, record in zip(sorted(truth["categories"], key=lambda c: c["id"]), records, strict=True)
    }
    found = {"AP": np.mean(list(at.values())), "AP50": at[0.5], "AP75": at[0.75]}
    return Result(
        {name: float(value) for name, value in found.items() if not np.isnan(value)},
        {name: float(value) for name, value in means.items() if not np.isnan(value)},
        records,
        len(truth["images"]),
        ULTRALYTICS,
    )


def _check(truth: dict[str, Any], detections: np.ndarray) -> None:
    for column, key, what in ((0, "images", "image"), (6, "categories", "category")):
        known = [entry["id"] for entry in truth[key]]
        unknown = np.setdiff1d(detections[:, column], known)
        if len(unknown):
            raise YoloDynError(f"a detection names the {what} {unknown[0]:g}, which the annotations lack")


def average_precision(records: list[ClassRecords], times: np.ndarray, rules: str = COCO) -> np.ndarray:
    """AP over all classes when each image counts so many times; COCO's 101 recalls and ten thresholds.

    Args:
        records: of all classes.
        times: how often each image counts in each resample, ``[R, images]``.
        rules: `tasks.COCO`, or `tasks.ULTRALYTICS` for the area under the curve as Ultralytics draws it.

    Returns:
        AP of each resample at each threshold, ``[R, T]``: the mean over the classes that have an object there; NaN
        if none has.
    """
    drawn = np.ascontiguousarray(times.T, np.int32)  # [images, R]: what one image adds to all resamples lies together
    objects = csr_array(np.reshape([r.objects for r in records], (len(records), len(drawn)))) @ drawn  # [classes, R]
    total = np.zeros((len(THRESHOLDS), len(times)))
    for r, own in zip(records, objects, strict=True):
        counted = np.flatnonzero((r.hits | r.ignored).any(0))
        step = max(1, CHUNK // (len(counted) + 1))
        for some in (slice(i, i + step) for i in range(0, len(times), step)):
            total[:, some] += _class_precision(r, counted, drawn[:, some], own[some], rules)
    classes = np.count_nonzero(objects, 0)
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0).T


def _class_precision(
    r: ClassRecords, counted: np.ndarray, drawn: np.ndarray, objects: np.ndarray, rules: str
) -> np.ndarray:
    """AP of one class, ``[T, R]``; 0 if it has no object. Precision falls between hits: only hits are looked at.

    Args:
        r: of the class.
        counted: positions of the detections that match something at any threshold, ``[n]``.
        drawn: how often each image counts in each resample, ``[images, R]``.
        objects: number of objects in each resample, ``[R]``.
        rules: of `tasks`.
    """
    starts = np.concatenate([[0], counted + 1])
    ones = np.ones(starts[-1], np.int32)
    up_to_each = csr_array((ones, r.images[: starts[-1]], starts), (len(counted), len(drawn)))
    seen = (up_to_each @ drawn).cumsum(0, np.int32)  # [n, R], detections so far
    each = drawn[r.images[counted]]  # [n, R]
    found = np.zeros((len(THRESHOLDS), drawn.shape[1]))
    for t in range(len(THRESHOLDS)):
        at, aside = np.flatnonzero(r.hits[t, counted]), np.flatnonzero(r.ignored[t, counted])
        if not len(at):
            continue
        hits, all_found = each[at].cumsum(0, np.int32), seen[at]  # [hits, R]
        if len(aside):
            ignored = np.pad(each[aside].cumsum(0, np.int32), ((1, 0), (0, 0)))
            all_found -= ignored[np.searchsorted(aside, at)]
        precision = hits / np.maximum(all_found, 1, out=all_found)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        recall = hits / np.maximum(objects, 1)
        if rules == ULTRALYTICS:
            found[t] = _area(recall, envelope, hits[-1] / np.maximum(drawn[r.images].sum(0), 1))
            continue
        reached = (100 * recall + 1e-9).astype(np.int32)  # the last of RECALLS that is reached,
        reached -= RECALLS[reached] > recall  # which are no exact hundredths either
        reached[1:] -= reached[:-1].copy()
        reached[:1] += 1
        found[t] = (envelope * reached).cumsum(0)[-1] / len(RECALLS)  # one by one, whatever else is in the chunk
    return found * (objects > 0)


def _area(recall: np.ndarray, envelope: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The area under the curve as Ultralytics computes it, by the trapezoids between 101 recalls, ``[R]``.

    Its curve is drawn through every detection, and is as high between two hits as at the second; so only hits are
    looked at. Behind the last hit it is 0, or falls to 0 at recall 1 in a straight line: see `compat`.

    Args:
        recall: at each hit, ``[hits, R]``.
        envelope: highest precision there or beyond, ``[hits, R]``.
        last: precision of all detections, ``[R]``.
    """
    below = np.searchsorted(RECALLS, recall)  # how many recalls the curve has passed at each hit
    halves = np.maximum(2 * below - 1, 0)  # what these count, in half steps: the first recall counts one
    halves[1:] -= halves[:-1].copy()
    area = (envelope * halves).sum(0)
    if compat.precision_falls_in_a_line():
        left, missing = 100 - below[-1], 1 - recall[-1]
        area += np.divide(last * left * (left + 1) / 100, missing, out=np.zeros_like(last), where=missing > 0)
    return area / 200


@functools.lru_cache(maxsize=1)  # all cells of a sweep ask for the same
def draw_images(images: int, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """How often each image is drawn in each resample, ``[R, images]``; the same on every machine."""
    bits = bit_generator(seed, "", "bootstrap", images)
    words = bits.random_raw(resamples * images) >> np.uint64(32)
    drawn = ((words * np.uint64(images)) >> np.uint64(32)).astype(np.int64).reshape(resamples, images)
    times = np.stack([np.bincount(row, minlength=images) for row in drawn])
    times.flags.writeable = False  # others get the same array
    return times


def resample(result: Result, resamples: int = 1000) -> np.ndarray:
    """AP and AP50 of bootstrap samples of the images, ``[R, 2]``."""
    precision = average_precision(result.records, draw_images(result.images, resamples), result.rules)
    return np.stack([precision.mean(1), precision[:, 0]], 1)


def interval(
    resampled: np.ndarray, scores: dict[str, float], images: int, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Bias-corrected and accelerated (BCa) intervals of AP and AP50.

    The highest precision at a recall or beyond grows when images are drawn twice, so most resamples score higher than
    the images themselves, and an interval from their percentiles leans upward. BCa shifts it back by twice the lean.

    Args:
        resampled: scores of bootstrap samples, ``[R, 2]``, from `resample`; NaN where a sample has no object.
        scores: of the images themselves.
        images: number of images that were resampled.
        level: share of such intervals that hold the true score.

    Returns:
        Lower and upper end of each score; none if no resample has an object.

    Source:
        Efron, Better bootstrap confidence intervals (1987), Sec. 2 and 6; the influence of an image, whose skewness is
        the acceleration, is the covariance of score and draws (Efron, Estimation and accuracy after model selection,
        2014), which needs no scoring without that image.
    """
    scored = ~np.isnan(resampled).any(1)
    if not scored.any():
        return {}
    drawn = draw_images(images, len(resampled))[scored]
    columns = zip(RESAMPLED, resampled[scored].T, strict=True)
    return {name: _bca(values, scores[name], drawn, level) for name, values in columns if name in scores}


def _bca(values: np.ndarray, score: float, drawn: np.ndarray, level: float) -> tuple[float, float]:
    """The interval of one score, from its resampled values ``[R]`` and the images of each resample, ``[R, images]``."""
    least = 0.5 / len(values)
    lower = ((values < score).mean() + (values <= score).mean()) / 2
    lean = ndtri(np.clip(lower, least, 1 - least))
    influence = (values - values.mean()) @ (drawn - 1)
    spread = (influence**2).sum() ** 1.5
    acceleration = (influence**3).sum() / (6 * spread) if spread > 0 else 0.0
    ends = lean + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(values, ndtr(lean + ends / np.maximum(1 - acceleration * ends, 0.1)))
    return float(low), float(high)


def paired_interval(
    first: np.ndarray, other: np.ndarray, differences: dict[str, float], images: int, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Intervals of the other model's scores less the first's, from the same resamples of the same images.

    Raises:
        YoloDynError: if the two were not resampled equally often.
    """
    if first.shape != other.shape:
        raise YoloDynError(f"the models do not pair: {len(first)} and {len(other)} resamples")
    return interval(other - first, differences, images, level)


def mean_performance(scores: list[float]) -> float | None:
    """mPC: the mean score over the corruptions and strengths that were run; None if none was."""
    return sum(scores) / len(scores) if scores else None


def relative_performance(clean: float | None, scores: list[float]) -> float | None:
    """rPC: the share of the clean score that is kept, mPC / P; None if it is not defined."""
    mean = mean_performance(scores)
    return None if mean is None or not clean else mean / clean
