"""Scores by the dumbest loops, what pycocotools itself matches, and simulated sets of any size."""

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo_dyn.robustness.matching import ClassRecords

WIDTH, HEIGHT = 640, 480


def simulated(
    images: int, seed: int = 0, classes: int = 80, found: int = 300, objects: float = 7.3
) -> tuple[dict[str, Any], np.ndarray]:
    """A set of the kind of COCO: few classes an image, most of them rare, and boxes of all sizes, one in fifty a crowd.

    Args:
        images: number of images.
        seed: of everything that is drawn.
        classes: number of classes; the k-th is 1/k as frequent as the first.
        found: number of detections an image.
        objects: mean number of objects an image.

    Returns:
        The truth in COCO's format, and detections, ``[n, 7]``, as a detector gives them: the best of objects that were
        moved, some of a wrong class, and of false alarms, most of them faint; single precision.
    """
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, classes + 1)
    present = rng.choice(classes, (images, 3), p=share / share.sum())  # classes of an image
    image = np.repeat(np.arange(images), np.minimum(rng.geometric(1 / objects, images), 60))
    kind = present[image, rng.integers(0, 3, len(image))]
    boxes = np.round(_boxes(rng, len(image)), 2)
    crowd = rng.random(len(image)) < 0.02
    truth = {
        "images": [{"id": i, "width": WIDTH, "height": HEIGHT} for i in range(images)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(classes)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k, "bbox": box, "area": box[2] * box[3], "iscrowd": int(c)}
            for n, (i, k, box, c) in enumerate(
                zip(image.tolist(), kind.tolist(), boxes.tolist(), crowd, strict=True), 1
            )
        ],
    }
    of = np.repeat(np.arange(len(image)), rng.integers(0, 5, len(image)))  # the object that each one is found of
    off = 0.08 * rng.lognormal(0, 0.7, (len(of), 1))  # as a share of its sides
    moved = boxes[of] + off * rng.normal(0, 1, (len(of), 4)) * boxes[of][:, [2, 3, 2, 3]]
    called = np.where(rng.random(len(of)) < 0.8, kind[of], present[image[of], rng.integers(0, 3, len(of))])
    sure = rng.beta(4, 3, len(of)) * np.exp(-2 * off[:, 0])
    where = np.repeat(np.arange(images), found)
    alarms = np.where(
        rng.random(len(where)) < 0.6,
        present[where, rng.integers(0, 3, len(where))],
        rng.choice(classes, len(where), p=share / share.sum()),
    )
    faint = 0.001 + 0.6 * rng.beta(0.3, 6, len(where))
    rows = np.concatenate(
        [
            np.column_stack([image[of], moved, sure, called]),
            np.column_stack([where, _boxes(rng, len(where)), faint, alarms]),
        ]
    )
    rows[:, 3:5] = np.maximum(rows[:, 3:5], 1)
    rows = rows.astype(np.float32).astype(float)
    rows = rows[np.lexsort((-rows[:, 5], rows[:, 0]))]
    return truth, rows[np.arange(len(rows)) - np.searchsorted(rows[:, 0], rows[:, 0]) < found]


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Left, top, width, height, inside the image."""
    sides = rng.uniform(np.log(8), np.log(350), (count, 1)) + rng.normal(0, 0.3, (count, 2))
    sides = np.minimum(np.exp(sides), [WIDTH, HEIGHT])
    return np.concatenate([rng.random((count, 2)) * ([WIDTH, HEIGHT] - sides), sides], 1)


def elliptic(boxes: np.ndarray) -> list[bytes]:
    """Run lengths of the ellipses in boxes ``[n, 4]``, as polygons of 16 corners."""
    at = np.arange(16) * np.pi / 8
    corners = boxes[:, None, :2] + boxes[:, None, 2:] * (0.5 + np.stack([np.cos(at), np.sin(at)], 1) / 2)
    parts = np.array_split(corners.reshape(-1, 32), len(boxes) // 10_000 + 1)  # lists of a million take gigabytes
    return [each["counts"] for part in parts for each in mask.frPyObjects(part.tolist(), HEIGHT, WIDTH)]


def by_pycocotools(truth: dict[str, Any], detections: np.ndarray) -> COCOeval:
    """Its own evaluation, summarized."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = {"info": {}, **truth}
        ground.createIndex()
        coco = COCOeval(ground, ground.loadRes(detections), "bbox")
        coco.evaluate()
        coco.accumulate()
        coco.summarize()
    return coco


def records_of(coco: COCOeval) -> list[ClassRecords]:
    """What it has matched among all sizes, class by class, in the order in which it accumulates."""
    images, areas, limit = len(coco.params.imgIds), len(coco.params.areaRng), coco.params.maxDets[-1]
    records = []
    for k in range(len(coco.params.catIds)):
        found = coco.evalImgs[k * areas * images : k * areas * images + images]
        objects = np.array([0 if e is None else sum(flag == 0 for flag in e["gtIgnore"]) for e in found])
        which, scores, matched, ignored = [], [], [], []
        for i, e in enumerate(found):
            for d in range(min(limit, len(e["dtScores"])) if e else 0):
                which.append(i)
                scores.append(e["dtScores"][d])
                matched.append(e["dtMatches"][:, d] > 0)
                ignored.append(e["dtIgnore"][:, d] > 0)
        order = np.argsort(-np.array(scores), kind="mergesort")
        hits, aside = (np.reshape(flags, (-1, 10)).astype(bool)[order].T for flags in (matched, ignored))
        records.append(ClassRecords(np.array(which, int)[order], hits & ~aside, aside, objects))
    return records


def resampled_precision(records: list[ClassRecords], times: np.ndarray) -> np.ndarray:
    """Mean AP of the classes that have an object, ``[T]``, when each image counts so many times."""
    areas = []
    for r in records:
        objects = sum(int(n) * int(count) for n, count in zip(r.objects, times, strict=True))
        if objects:
            areas.append([_area(r.images, r.hits[t], r.ignored[t], times, objects) for t in range(10)])
    return np.mean(areas, 0) if areas else np.full(10, np.nan)


def _area(images: np.ndarray, hits: np.ndarray, ignored: np.ndarray, times: np.ndarray, objects: int) -> float:
    found = alarms = 0
    recalls, precisions = [], []
    for image, hit, aside in zip(images, hits, ignored, strict=True):
        found += int(times[image]) * int(hit)
        alarms += int(times[image]) * int(not hit and not aside)
        recalls.append(found / objects)
        precisions.append(found / max(found + alarms, 1))
    reached = [[p for r, p in zip(recalls, precisions, strict=True) if r >= at] for at in np.linspace(0, 1, 101)]
    return sum(max(each, default=0.0) for each in reached) / 101
