"""Scores of detections: COCO's, by pycocotools, and their uncertainty by a bootstrap over images.

The bootstrap does not match again: what pycocotools matched once is kept for each class and threshold, and a resample
only counts each image as often as it was drawn. The draws depend on a seed and the number of images alone, so two
models scored on the same images are resampled together, and their difference is a paired one.
"""

import contextlib
import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from yolo_dyn.errors import YoloDynError
from yolo_dyn.robustness.corruptions import bit_generator

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the intersection over union
RECALLS = np.linspace(0, 1, 101)
SCORES = {"AP": 0, "AP50": 1, "AP75": 2, "AP_small": 3, "AP_medium": 4, "AP_large": 5, "AR100": 8}  # COCO's twelve
RESAMPLED = ("AP", "AP50")
CHUNK = 4_000_000  # values at a time: bounds the memory of a bootstrap


@dataclass(frozen=True)
class ClassRecords:
    """What was matched for one class, detections sorted by falling score."""

    images: np.ndarray  # [n], position of each detection's image among the evaluated
    hits: np.ndarray  # bool [T, n], matched to an object at each threshold
    ignored: np.ndarray  # bool [T, n], matched to a crowd or a difficult object: neither hit nor false alarm
    objects: np.ndarray  # [images], number of objects that count, for each image


@dataclass(frozen=True)
class Result:
    """Scores of one model on one set of images, and the records to resample."""

    scores: dict[str, float]  # SCORES; a size without objects is absent
    per_class: dict[str, float]  # AP of each class that has objects
    records: list[ClassRecords]
    images: int


def evaluate(truth: dict[str, Any], detections: np.ndarray) -> Result:
    """Score detections by pycocotools.

    Args:
        truth: COCO's format: `images`, `annotations` (with `area` and `iscrowd`), `categories`.
        detections: ``[n, 7]``: image id, left, top, width, height in pixels, score, category id.

    Returns:
        The scores; without any detection they are 0.

    Raises:
        YoloDynError: if a detection names an unknown image or category.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    _check(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        ground = COCO()
        ground.dataset = {"info": {}, **truth}
        ground.createIndex()
        found = ground.loadRes(detections) if len(detections) else _nothing(ground)
        coco = COCOeval(ground, found, "bbox")
        coco.evaluate()
        coco.accumulate()
        coco.summarize()
    precision = coco.eval["precision"][:, :, :, 0, -1]  # [T, recall, class], all areas, 100 detections an image
    names = {c["id"]: c["name"] for c in truth["categories"]}
    means = {names[c]: precision[..., k].mean() for k, c in enumerate(coco.params.catIds)}
    return Result(
        {name: float(coco.stats[at]) for name, at in SCORES.items() if coco.stats[at] >= 0},
        {name: float(value) for name, value in means.items() if value >= 0},
        _records(coco),
        len(coco.params.imgIds),
    )


def _check(truth: dict[str, Any], detections: np.ndarray) -> None:
    for column, key, what in ((0, "images", "image"), (6, "categories", "category")):
        known = [entry["id"] for entry in truth[key]]
        unknown = np.setdiff1d(detections[:, column], known)
        if len(unknown):
            raise YoloDynError(f"a detection names the {what} {unknown[0]:g}, which the annotations lack")


def _nothing(ground: Any) -> Any:
    """Results without a detection, which `loadRes` does not take."""
    from pycocotools.coco import COCO

    empty = COCO()
    empty.dataset = {**{key: ground.dataset[key] for key in ("info", "images", "categories")}, "annotations": []}
    empty.createIndex()
    return empty


def _records(coco: Any) -> list[ClassRecords]:
    """Keep what was matched for all areas, class by class."""
    p = coco.params
    images, areas = len(p.imgIds), len(p.areaRng)
    records = []
    for k in range(len(p.catIds)):
        found = coco.evalImgs[k * areas * images : k * areas * images + images]  # the first area is all sizes
        objects = np.array([0 if e is None else int((np.asarray(e["gtIgnore"]) == 0).sum()) for e in found])
        some = [(i, e) for i, e in enumerate(found) if e is not None and len(e["dtScores"])]
        limit = p.maxDets[-1]
        scores = np.concatenate([np.asarray(e["dtScores"])[:limit] for _, e in some] or [np.zeros(0)])
        order = np.argsort(-scores, kind="mergesort")  # as pycocotools sorts
        which = np.concatenate([np.full(len(e["dtScores"][:limit]), i) for i, e in some] or [np.zeros(0, int)])
        matched = np.concatenate([e["dtMatches"][:, :limit] != 0 for _, e in some] or [np.zeros((10, 0), bool)], 1)
        ignored = np.concatenate([e["dtIgnore"][:, :limit] != 0 for _, e in some] or [np.zeros((10, 0), bool)], 1)
        records.append(ClassRecords(which[order], (matched & ~ignored)[:, order], ignored[:, order], objects))
    return records


def average_precision(records: list[ClassRecords], times: np.ndarray) -> np.ndarray:
    """AP over all classes when each image counts so many times; COCO's 101 recalls and ten thresholds.

    Args:
        records: of all classes.
        times: how often each image counts in each resample, ``[R, images]``.

    Returns:
        AP of each resample at each threshold, ``[R, T]``: the mean over the classes that have an object there; NaN
        if none has.
    """
    total = np.zeros((len(times), len(THRESHOLDS)))
    classes = np.zeros((len(times), 1))
    for r in records:
        objects = times @ r.objects  # [R]
        step = max(1, CHUNK // max(1, len(r.images)))
        for rows in (slice(i, i + step) for i in range(0, len(times), step)):
            total[rows] += _class_precision(r, times[rows], objects[rows])
        classes += (objects > 0)[:, None]
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)


def _class_precision(r: ClassRecords, times: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """AP of one class, ``[R, T]``; 0 if it has no object. Precision falls between hits: only hits are looked at."""
    drawn = times[:, r.images]  # [R, n], how often each detection counts
    seen = drawn.cumsum(1)
    recalls = torch.from_numpy(np.broadcast_to(RECALLS, (len(times), len(RECALLS))).copy())
    found = np.zeros((len(times), len(THRESHOLDS)))
    for t in range(len(THRESHOLDS)):
        at, aside = np.flatnonzero(r.hits[t]), np.flatnonzero(r.ignored[t])
        hits = drawn[:, at].cumsum(1)  # [R, hits]
        ignored = np.pad(drawn[:, aside].cumsum(1), ((0, 0), (1, 0)))[:, np.searchsorted(aside, at)]
        precision = hits / np.maximum(seen[:, at] - ignored, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        envelope = np.pad(envelope, ((0, 0), (0, 1)))  # beyond the last recall
        recall = hits / np.maximum(objects, 1)[:, None]
        first = torch.searchsorted(torch.from_numpy(np.ascontiguousarray(recall)), recalls).numpy()
        found[:, t] = np.take_along_axis(envelope, first, 1).mean(1)
    return found * (objects > 0)[:, None]


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
    precision = average_precision(result.records, draw_images(result.images, resamples))
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
