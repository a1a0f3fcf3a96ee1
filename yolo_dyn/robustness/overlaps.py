"""Which detection finds which object at IoU 0.5, image by image, and what else it overlaps."""

from dataclasses import dataclass
from typing import Any

import numpy as np

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU: a match from here on; no more than background up to here
LIMIT = 100  # detections of an image that count, those with the highest scores
CHUNK = 500_000  # pairs at a time: bounds the memory


@dataclass(frozen=True)
class Boxes:
    """Boxes of all images, one image after the other."""

    images: np.ndarray  # [n], position of each box's image
    boxes: np.ndarray  # [n, 4]: left, top, width, height
    classes: np.ndarray  # [n], category ids

    def __getitem__(self, which: np.ndarray) -> "Boxes":
        return Boxes(self.images[which], self.boxes[which], self.classes[which])

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a detection and an object of one image, by detection, the most overlapped object first."""

    found: np.ndarray  # [p], position of the detection
    objects: np.ndarray  # [p], position of the object
    iou: np.ndarray  # [p]

    def __getitem__(self, which: np.ndarray) -> "Overlaps":
        return Overlaps(self.found[which], self.objects[which], self.iou[which])


@dataclass(frozen=True)
class Matched:
    """Detections by image and falling score, and what each of them is to the objects."""

    found: Boxes
    scores: np.ndarray  # [n]
    objects: Boxes  # that count: neither crowds nor difficult
    overlaps: Overlaps  # of at least BACKGROUND, with objects of any class
    hit: np.ndarray  # bool [n], finds an object of its class
    ignored: np.ndarray  # bool [n], finds none, and lies in a crowd of its class
    taken: np.ndarray  # bool [m], objects that are found

    @property
    def same_class(self) -> np.ndarray:
        """Whether detection and object of each pair are of one class, bool ``[p]``."""
        return self.found.classes[self.overlaps.found] == self.objects.classes[self.overlaps.objects]


def match(truth: dict[str, Any], detections: np.ndarray) -> Matched:
    """Match detections to objects of their class: best score first, each object once, the most overlapped first.

    Args:
        truth: COCO's format.
        detections: ``[n, 7]``: image id, left, top, width, height in pixels, score, category id. Of each image the
            `LIMIT` with the highest scores count.

    Source:
        the rules of TIDE (Bolya et al. 2020, arXiv 2008.08115). A crowd takes any number of detections more than half
        of which lie in it.
    """
    positions = {image["id"]: at for at, image in enumerate(truth["images"])}
    found, scores = _sorted(detections, positions)
    everything, crowd = _objects(truth["annotations"], positions)
    objects = everything[~crowd]
    overlaps = _overlaps(found, objects, len(positions), BACKGROUND)
    near = overlaps.iou >= FOREGROUND
    same = found.classes[overlaps.found] == objects.classes[overlaps.objects]
    hit, taken = _greedily(overlaps[near & same], len(found), len(objects))
    return Matched(
        found, scores, objects, overlaps, hit, ~hit & _within(found, everything[crowd], len(positions)), taken
    )


def _sorted(detections: np.ndarray, positions: dict[Any, int]) -> tuple[Boxes, np.ndarray]:
    """Those that count, by image and falling score, and their scores."""
    ids, which = np.unique(detections[:, 0], return_inverse=True)
    images = np.array([positions[image] for image in ids], int)[which]
    order = np.lexsort((-detections[:, 5], images))
    images = images[order]
    place = np.arange(len(images)) - np.searchsorted(images, images)  # within the image
    kept = order[place < LIMIT]
    return Boxes(images[place < LIMIT], detections[kept, 1:5], detections[kept, 6].astype(int)), detections[kept, 5]


def _objects(annotations: list[dict[str, Any]], positions: dict[Any, int]) -> tuple[Boxes, np.ndarray]:
    """All objects by image, and which of them are crowds."""
    ordered = sorted(annotations, key=lambda a: positions[a["image_id"]])
    images = np.array([positions[a["image_id"]] for a in ordered], int)
    boxes = np.array([a["bbox"] for a in ordered], float).reshape(-1, 4)
    crowd = np.array([bool(a["iscrowd"]) for a in ordered], bool)
    return Boxes(images, boxes, np.array([a["category_id"] for a in ordered], int)), crowd


def _overlaps(found: Boxes, objects: Boxes, images: int, least: float, crowd: bool = False) -> Overlaps:
    """Pairs of one image whose intersection over union, or over the detection's area for a crowd, is that much."""
    counts = np.bincount(objects.images, minlength=images)
    first = np.cumsum(counts) - counts  # of each image's objects
    each = counts[found.images]  # pairs of each detection
    parts = np.split(np.arange(len(found)), np.flatnonzero(np.diff(np.cumsum(each) // CHUNK)) + 1)
    pairs = []
    for part in parts:
        rows = np.repeat(part, each[part])
        within = np.arange(len(rows)) - np.repeat(np.cumsum(each[part]) - each[part], each[part])
        columns = first[found.images[rows]] + within
        iou = _iou(found.boxes[rows], objects.boxes[columns], crowd)
        near = iou >= least
        pairs.append((rows[near], columns[near], iou[near]))
    rows, columns, iou = (np.concatenate(values) for values in zip(*pairs, strict=True))
    order = np.lexsort((-iou, rows))
    return Overlaps(rows[order], columns[order], iou[order])


def _iou(a: np.ndarray, b: np.ndarray, crowd: bool) -> np.ndarray:
    """Of boxes ``[p, 4]`` pair by pair, as pycocotools computes it: 0 where two do no more than touch."""
    width = np.minimum(a[:, 0] + a[:, 2], b[:, 0] + b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 1] + a[:, 3], b[:, 1] + b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    common = np.where((width > 0) & (height > 0), width * height, 0.0)
    area = a[:, 2] * a[:, 3]
    union = area if crowd else area + b[:, 2] * b[:, 3] - common
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def _greedily(candidates: Overlaps, found: int, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Which detections find an object, and which objects are found; the candidates choose in their order."""
    hit, taken = [False] * found, [False] * objects  # lists: a loop over arrays would take ten times as long
    for i, j in zip(candidates.found.tolist(), candidates.objects.tolist(), strict=True):
        if not hit[i] and not taken[j]:
            hit[i] = taken[j] = True
    return np.array(hit, bool), np.array(taken, bool)


def _within(found: Boxes, crowds: Boxes, images: int) -> np.ndarray:
    """Which detections lie in a crowd of their class."""
    overlaps = _overlaps(found, crowds, images, FOREGROUND, crowd=True)
    same = found.classes[overlaps.found] == crowds.classes[overlaps.objects]
    inside = np.zeros(len(found), bool)
    inside[overlaps.found[same & (overlaps.iou > FOREGROUND)]] = True
    return inside
