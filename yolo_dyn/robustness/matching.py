"""What detections are matched to, and COCO's scores of them, by hotcoco or by pycocotools.

The scores are defined by pycocotools, whose loops in Python take minutes for 5,000 images of 80 classes. hotcoco is the
same evaluator, compiled, behind the same interface: precisions, recalls and matches are equal to the last bit, so it
decides no number. A process that scores for the first time has it match a small set beside pycocotools, which is used
alone if the two differ, or if hotcoco is not installed. That holds for boxes, masks and keypoints, each by itself.
"""

import contextlib
import functools
import importlib
import io
import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from ultralytics.utils import LOGGER

from yolo_dyn.data.tasks import BOXES, ObjectKind
from yolo_dyn.errors import YoloDynError, first_line, nearest, needed
from yolo_dyn.robustness import objects as shapes_of
from yolo_dyn.robustness.tasks import scoring

ENGINES = ("hotcoco", "pycocotools")
SIDE = 500  # pixels of an image of the small set


@dataclass(frozen=True)
class ClassRecords:
    """What was matched for one class, detections sorted by falling score."""

    images: np.ndarray  # [n], position of each detection's image among the evaluated
    hits: np.ndarray  # bool [T, n], matched to an object at each threshold
    ignored: np.ndarray  # bool [T, n], matched to a crowd or a difficult object: neither hit nor false alarm
    objects: np.ndarray  # [images], number of objects that count, for each image


@dataclass(frozen=True)
class Engine:
    """An evaluator with the interface of pycocotools."""

    name: str
    dataset: Any  # its class COCO
    evaluation: Any  # its class COCOeval

    def truth(self, coco: dict[str, Any]) -> Any:
        """Ground truth in COCO's format, opened."""
        opened = self.dataset()
        opened.dataset = {"info": {}, **coco}
        opened.createIndex()
        return opened

    def found(self, truth: Any, detections: Any) -> Any:
        """Detections of such a ground truth, see `objects.results`, opened; `loadRes` does not take none."""
        if len(detections):
            return truth.loadRes(detections)
        return self.truth({**{key: truth.dataset[key] for key in ("images", "categories")}, "annotations": []})

    def compare(self, truth: Any, detections: Any, kind: ObjectKind) -> Any:
        """An evaluation of such detections, which is not begun."""
        coco = self.evaluation(truth, self.found(truth, detections), scoring(kind).iou_type)
        if kind.sigmas:
            coco.params.kpt_oks_sigmas = np.array(kind.sigmas)
        return coco


@functools.cache
def engine(name: str = "", kind: ObjectKind = BOXES) -> Engine:
    """The evaluator of that name; without a name hotcoco, or pycocotools where hotcoco cannot be used for a kind.

    Raises:
        YoloDynError: for an unknown name, or if it is not installed.
    """
    if name == "pycocotools":
        coco, evaluation = (importlib.import_module(f"pycocotools.{module}") for module in ("coco", "cocoeval"))
        return Engine(name, coco.COCO, evaluation.COCOeval)
    if name == "hotcoco":
        module = needed(name, f"engine={name}", name)
        return Engine(name, module.COCO, module.COCOeval)
    if name:
        raise YoloDynError(f"unknown engine {name!r}{nearest(name, ENGINES)} (known: {', '.join(ENGINES)})")
    reason = _unusable(kind)
    if reason:
        LOGGER.warning(f"scoring by pycocotools, which is slow for thousands of images: {reason}")
    return engine("pycocotools" if reason else "hotcoco")


def _unusable(kind: ObjectKind) -> str:
    """Why hotcoco cannot be used; empty if it can."""
    try:
        return "" if _agrees(engine("hotcoco"), kind) else "the scores of this hotcoco are not those of pycocotools"
    except YoloDynError as error:
        return str(error)
    except Exception as error:  # as many kinds as a newer one may change in
        return f"hotcoco fails: {type(error).__name__}: {first_line(error)}"


def _agrees(compiled: Engine, kind: ObjectKind) -> bool:
    """Whether an engine gives what pycocotools does for a small set: crowds, equal scores, objects of all sizes."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 300, (48, 2)), rng.choice([20.0, 50.0, 150.0], (48, 2))], 1)
    image, category = rng.integers(0, 6, 48), rng.integers(0, 3, 48)
    columns = zip(image.tolist(), category.tolist(), boxes.tolist(), strict=True)
    objects = [
        {"id": k, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": int(k % 8 == 0)}
        for k, (i, c, box) in enumerate(columns, 1)
    ]
    truth = {
        "images": [{"id": i, "width": SIDE, "height": SIDE} for i in range(6)],
        "annotations": [{**each, **_trial(kind, each["bbox"])[0]} for each in objects],
        "categories": [{"id": c, "name": str(c)} for c in range(4)],
    }
    moved = np.repeat(boxes, 3, 0) + rng.normal(0, 4, (144, 4))
    found = np.column_stack([image.repeat(3), moved, rng.integers(1, 40, 144) / 40, category.repeat(3)])
    shapes = None if kind.task == "detect" else shapes_of.joined(kind, [_trial(kind, box)[1] for box in moved.tolist()])
    scored, expected = (score(each, truth, found, kind, shapes) for each in (compiled, engine("pycocotools")))
    return all(
        np.array_equal(scored.evaluation.eval[key], expected.evaluation.eval[key]) for key in ("precision", "recall")
    ) and all(
        np.array_equal(getattr(one, key), getattr(other, key))
        for one, other in zip(scored.records, expected.records, strict=True)
        for key in ("images", "hits", "ignored", "objects")
    )


def _trial(kind: ObjectKind, box: list[float]) -> tuple[dict[str, Any], np.ndarray]:
    """An object in a box as the truth has it, and the same as detected: a triangle, or points on its diagonal."""
    left, top, width, height = box
    if kind.task == "segment":
        polygons = [[left, top, left + width, top + height / 3, left + width / 4, top + height]]
        counts = shapes_of.run_lengths(polygons, (SIDE, SIDE))["counts"]
        return {"segmentation": polygons}, shapes_of.masks([counts])
    if kind.task == "pose":
        at = np.linspace(0, 1, len(kind.sigmas))
        points = np.stack([left + at * width, top + at * height, np.arange(len(at)) % 3], 1)  # seen, hidden, absent
        truth = {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
        return truth, points[None].astype(np.float32)
    return {}, np.zeros((1, 0))


@dataclass(frozen=True)
class Scored:
    """An evaluation of all sizes and numbers of detections, summarized, and what was matched to what."""

    evaluation: Any  # COCOeval
    records: list[ClassRecords]  # by class, in the order of their ids


def score(
    by: Engine,
    truth: dict[str, Any],
    detections: np.ndarray,
    kind: ObjectKind = BOXES,
    shapes: np.ndarray | None = None,
) -> Scored:
    """Score detections as COCO does.

    Args:
        by: what scores.
        truth: COCO's format: `images`, `annotations` (with `area` and `iscrowd`), `categories`.
        detections: ``[n, 7]``: image id, left, top, width, height in pixels, score, category id; all of the truth.
        kind: of the objects.
        shapes: what the detections have beside their boxes, see `objects`.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # evaluators print their progress
        warnings.filterwarnings("ignore", message=".*kpt_oks_sigmas differ")  # from COCO's, as the data set wants it
        ground = by.truth(truth)
        records = _records(by, ground, detections, kind, shapes)  # before the whole takes the memory that this needs
        coco = by.compare(ground, shapes_of.results(kind, truth, detections, shapes), kind)
        coco.evaluate()
        coco.accumulate()
        coco.summarize()
        return Scored(coco, records)


def _records(
    by: Engine, ground: Any, detections: np.ndarray, kind: ObjectKind, shapes: np.ndarray | None
) -> list[ClassRecords]:
    """What is matched among all sizes, class by class.

    Only detections in images with an object of their class can match, a few in a hundred of all pairs of image and
    class: these alone are matched once more, and read from Python. All others are false alarms.
    """
    images, classes = np.array(sorted(ground.getImgIds())), np.array(sorted(ground.getCatIds()))
    image, category = np.searchsorted(images, detections[:, 0]), np.searchsorted(classes, detections[:, 6])
    among = _beside_objects(ground, image * len(classes) + category, images, classes)
    some = None if shapes is None else shapes[among]
    coco = by.compare(ground, shapes_of.results(kind, ground.dataset, detections[among], some), kind)
    params = coco.params
    params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
    hits, ignored = np.zeros((2, len(params.iouThrs), len(detections)), bool)
    objects = np.zeros((len(classes), len(images)), int)
    coco.evaluate()
    for found in filter(None, coco.evalImgs):
        at = np.searchsorted(classes, found["category_id"]), np.searchsorted(images, found["image_id"])
        objects[at] = np.count_nonzero(np.asarray(found["gtIgnore"]) == 0)
        rows = among[np.asarray(found["dtIds"], int) - 1]  # which `loadRes` numbers from 1
        aside = np.asarray(found["dtIgnore"], bool)
        ignored[:, rows], hits[:, rows] = aside, np.asarray(found["dtMatches"], bool) & ~aside
    order = _kept_by_score(image, category, detections[:, 5], params.maxDets[-1])
    ends = np.searchsorted(category[order], np.arange(len(classes) + 1))
    return [
        ClassRecords(image[own], hits[:, own], ignored[:, own], objects[k])
        for k, own in enumerate(order[start:end] for start, end in itertools.pairwise(ends))
    ]


def _beside_objects(ground: Any, pairs: np.ndarray, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Which detections have an object of their class in their image, by the number of each one's image and class."""
    annotations = ground.dataset["annotations"]
    image = np.searchsorted(images, [a["image_id"] for a in annotations])
    kind = np.searchsorted(classes, [a["category_id"] for a in annotations])
    return np.flatnonzero(np.isin(pairs, image * len(classes) + kind))


def _kept_by_score(image: np.ndarray, kind: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """Positions of the detections that count, class by class, by falling score; of equal ones first the first image's.

    Args:
        image, kind: position of each detection's image and class, ``[n]``.
        scores: ``[n]``.
        limit: so many of each class count in an image.
    """
    order = np.lexsort((-scores, image, kind))  # stable, as pycocotools sorts
    pairs = kind[order] * (image.max(initial=0) + 1) + image[order]
    rank = np.arange(len(order)) - np.searchsorted(pairs, pairs)
    kept = order[rank < limit]
    return kept[np.lexsort((-scores[kept], kind[kept]))]
