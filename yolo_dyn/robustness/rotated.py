"""What rotated boxes are matched to, by the rules of Ultralytics' own validator.

Each image's detections of all classes count, as many as the model gives. They are compared by ProbIoU and matched at
each threshold as the installed Ultralytics does it, by its own functions. Crowds are not known.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from ultralytics.engine.validator import BaseValidator

from yolo_dyn.robustness.matching import ClassRecords
from yolo_dyn.robustness.objects import prob_iou, rotated


def match(
    truth: dict[str, Any], detections: np.ndarray, boxes: np.ndarray, thresholds: np.ndarray
) -> list[ClassRecords]:
    """Match detections to the objects of their images.

    Args:
        truth: COCO's format; an object's `segmentation` is the polygon of its corners.
        detections: ``[n, 7]``: image id, box around it (4), score, category id.
        boxes: the rotated boxes, ``[n, 5]``.
        thresholds: of ProbIoU, ``[T]``.

    Returns:
        By class, in the order of their ids.
    """
    ids, classes = ([entry["id"] for entry in truth[key]] for key in ("images", "categories"))
    objects: dict[Any, list[dict[str, Any]]] = {image: [] for image in ids}
    for annotation in truth["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    hits = np.zeros((len(detections), len(thresholds)), bool)
    for image in np.unique(detections[:, 0]).tolist():
        rows = np.flatnonzero(detections[:, 0] == image)
        rows = rows[np.argsort(-detections[rows, 5], kind="stable")]
        hits[rows] = _matched(detections[rows, 6], boxes[rows], objects[image], thresholds)
    order = np.argsort(-detections[:, 5].astype(np.float32))  # as Ultralytics sorts them, equal ones too
    places = {image: at for at, image in enumerate(ids)}
    images = np.array([places[image] for image in detections[order, 0].tolist()], int)
    found = []
    for category in sorted(classes):
        own = detections[order, 6] == category
        count = [sum(a["category_id"] == category for a in objects[image]) for image in ids]
        hit = hits[order[own]].T
        found.append(ClassRecords(images[own], hit, np.zeros_like(hit), np.array(count, int)))
    return found


def _matched(
    classes: np.ndarray, boxes: np.ndarray, objects: list[dict[str, Any]], thresholds: np.ndarray
) -> np.ndarray:
    """Which detections of an image, by falling score, find an object at each threshold, bool ``[n, T]``."""
    if not objects:
        return np.zeros((len(boxes), len(thresholds)), bool)
    stock: Any = SimpleNamespace(iouv=torch.linspace(0.5, 0.95, len(thresholds)))
    true, found = torch.tensor([a["category_id"] for a in objects]), torch.from_numpy(classes)
    iou = torch.from_numpy(prob_iou(rotated(objects), np.asarray(boxes, np.float32)))
    return BaseValidator.match_predictions(stock, found, true, iou).numpy()
