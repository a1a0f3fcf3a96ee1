"""Scores of detections: COCO's, by pycocotools, and the uncertainty of a difference between two models.

The bootstrap resamples images. It does not match again: what pycocotools matched once is kept for each image, class and
threshold, and a resample only counts each image as often as it was drawn.
"""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_dyn.errors import YoloDynError

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the intersection over union
RECALLS = np.linspace(0, 1, 101)
NAMES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")
AR = "AR100"


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

    scores: dict[str, float]  # NAMES, AR100; a size without objects is absent
    per_class: dict[str, float]  # AP of each class that has objects
    records: list[ClassRecords]
    images: int


def evaluate(truth: dict[str, Any], detections: list[dict[str, Any]]) -> Result:
    """Score detections by pycocotools.

    Args:
        truth: COCO's format: `images`, `annotations` (with `area` and `iscrowd`), `categories`.
        detections: ``{image_id, category_id, bbox, score}`` each, the box as left, top, width, height in pixels.

    Returns:
        The scores; without any detection they are 0.

    Raises:
        YoloDynError: where a detection names an unknown image or category.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    _check(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        ground = COCO()
        ground.dataset = {"info": {}, **truth}
        ground.createIndex()
        found = ground.loadRes(detections) if detections else _nothing(ground)
        coco = COCOeval(ground, found, "bbox")
        coco.evaluate()
        coco.accumulate()
        coco.summarize()
    stats = {**dict(zip(NAMES, coco.stats[:6], strict=True)), AR: coco.stats[8]}
    precision = coco.eval["precision"][:, :, :, 0, -1]  # [T, recall, class], all areas, 100 detections an image
    names = {c["id"]: c["name"] for c in truth["categories"]}
    means = {names[c]: precision[..., k].mean() for k, c in enumerate(coco.params.catIds)}
    return Result(
        {name: float(value) for name, value in stats.items() if value >= 0},
        {name: float(value) for name, value in means.items() if value >= 0},
        _records(coco),
        len(coco.params.imgIds),
    )


def _check(truth: dict[str, Any], detections: list[dict[str, Any]]) -> None:
    images, categories = ({entry["id"] for entry in truth[key]} for key in ("images", "categories"))
    for detection in detections:
        if detection["image_id"] not in images:
            raise YoloDynError(f"a detection names the image {detection['image_id']!r}, which the annotations lack")
        if detection["category_id"] not in categories:
            known = ", ".join(map(str, sorted(categories)))
            raise YoloDynError(f"a detection names the category {detection['category_id']!r}, known are {known}")


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
        hits = np.concatenate([e["dtMatches"][:, :limit] != 0 for _, e in some] or [np.zeros((10, 0), bool)], 1)
        ignored = np.concatenate([e["dtIgnore"][:, :limit] != 0 for _, e in some] or [np.zeros((10, 0), bool)], 1)
        records.append(ClassRecords(which[order], hits[:, order], ignored[:, order], objects))
    return records


def average_precision(records: list[ClassRecords], times: np.ndarray) -> np.ndarray:
    """AP over all classes when each image counts so many times; COCO's 101 recalls and ten thresholds.

    Args:
        records: of all classes.
        times: how often each image counts, ``[images]``.

    Returns:
        AP at each threshold, ``[T]``: the mean over the classes that have an object; NaN where none has.
    """
    found = []
    for r in records:
        positives = r.objects @ times
        if positives == 0:
            continue
        counts = times[r.images] * ~r.ignored  # [T, n]
        hits = np.cumsum(counts * r.hits, 1)
        alarms = np.cumsum(counts * ~r.hits, 1)
        precision = hits / np.maximum(hits + alarms, np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        envelope = np.concatenate([envelope, np.zeros((len(envelope), 1))], 1)  # beyond the last recall
        recall = hits / positives
        at = np.stack([np.searchsorted(row, RECALLS, "left") for row in recall])
        found.append(np.take_along_axis(envelope, at, 1).mean(1))
    return np.mean(found, 0) if found else np.full(len(THRESHOLDS), np.nan)


@dataclass(frozen=True)
class Difference:
    """A model's score less the first model's, with the interval of a paired bootstrap over images."""

    value: float
    low: float
    high: float


def paired_difference(
    first: Result, other: Result, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Difference]:
    """How much two models differ on the same images, with percentile intervals, for AP and AP50.

    Args:
        first: the model to compare with.
        other: the other model, evaluated on the same images.
        resamples: number of bootstrap samples.
        seed: of the samples.
        level: of the interval.

    Raises:
        YoloDynError: where the two were evaluated on different numbers of images.
    """
    if first.images != other.images:
        raise YoloDynError(f"the models do not pair: {first.images} and {other.images} images")
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(first.images, np.full(first.images, 1 / first.images), resamples)
    values = np.stack([average_precision(other.records, t) - average_precision(first.records, t) for t in draws])
    once = np.ones(first.images, int)
    value = average_precision(other.records, once) - average_precision(first.records, once)
    tails = 50 * (1 - level), 50 * (1 + level)
    result = {}
    for name, columns in (("AP", slice(None)), ("AP50", slice(0, 1))):
        low, high = np.nanpercentile(values[:, columns].mean(1), tails)
        result[name] = Difference(float(value[columns].mean()), float(low), float(high))
    return result


def mean_performance(cells: dict[tuple[str, int], float]) -> float | None:
    """mPC: the mean score over the corruptions and severities that were run; None where none was.

    Args:
        cells: score of each (corruption, severity).
    """
    return sum(cells.values()) / len(cells) if cells else None


def relative_performance(clean: float, cells: dict[tuple[str, int], float]) -> float | None:
    """rPC: the share of the clean score that is kept, mPC / P; None where it is not defined."""
    mean = mean_performance(cells)
    return None if mean is None or clean <= 0 else mean / clean
