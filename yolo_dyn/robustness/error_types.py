"""What kinds of errors cost a detector how much AP50, as TIDE has it.

Each detection that is no hit is given the first type that fits, in the order of `TYPES`, and what nobody finds nor
nearly finds is missed. The gain of a type is the AP50 with its errors alone corrected, less the AP50 as it is.

Source: Bolya, Foley, Hays, Hoffman, TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020
(arXiv 2008.08115), Sec. 2. What the paper leaves open is decided as its toolbox, tidecv 1.0.1, does it: which of
several errors at one object corrects it, the 100 best detections of an image, and detections in crowds. Two deviations:
a class without an object is no part of the mean, as in COCO's AP, while tidecv counts it as 0 as long as something is
taken for it; and equal scores keep their order when something is corrected.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from yolo_dyn.output.arguments import Finite, OrDefault, Share, check_fields
from yolo_dyn.robustness.overlaps import BACKGROUND, FOREGROUND, Matched, Overlaps

TYPES = ("localisation", "classification", "duplicate", "background", "both")  # of detections, as they are tried
SHOWN = ("classification", "localisation", "both", "duplicate", "background", "missed")  # in the paper's order
WHOLE = ("false_positive", "false_negative")  # every wrong detection, every object not found
RECALLS = np.arange(101) / 100  # tidecv's; COCO's, `scores.RECALLS`, differ in the last bit


@dataclass(frozen=True)
class ErrorTypes:
    """Errors of one model under one condition."""

    ap50: Share  # of the 100 best detections of each image
    gains: dict[str, Finite]  # AP50 gained by correcting the errors of each type of SHOWN and of WHOLE
    counts: dict[str, OrDefault]  # errors of each type of SHOWN, without detections in crowds

    def as_dict(self) -> dict[str, Any]:
        return {"AP50": self.ap50, "dAP50": self.gains, "counts": self.counts}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "ErrorTypes":
        """Read its form in JSON.

        Raises:
            KeyError, TypeError: if it is another.
        """
        gains = {name: content["dAP50"][name] for name in (*SHOWN, *WHOLE)}
        return check_fields(cls(content["AP50"], gains, {name: content["counts"][name] for name in SHOWN}))


@dataclass(frozen=True)
class Causes:
    """Why each detection is no hit, and which object it would find if it were corrected."""

    types: np.ndarray  # [n], position in TYPES; -1 for a hit
    objects: np.ndarray  # [n], the object that a detection of the first two types means; -1 for others
    corrects: np.ndarray  # bool [n], the best of those that mean an object which nobody finds
    missed: np.ndarray  # bool [m], objects that no detection finds or means


def error_types(matched: Matched) -> ErrorTypes | None:
    """Errors by type; None if there is no object, and so no AP."""
    if not len(matched.objects):
        return None
    causes, points = find_causes(matched), _Points.of(matched)
    whole = points.average_precision()
    gains = {name: max(points.corrected(causes, name).average_precision() - whole, 0.0) for name in SHOWN}
    gains["false_positive"] = points.ranked().average_precision() - whole
    gains["false_negative"] = points.without(~matched.taken).average_precision() - whole
    wrong = causes.types[~matched.ignored]
    counts = {name: int((wrong == TYPES.index(name)).sum()) for name in SHOWN if name in TYPES}
    return ErrorTypes(whole, gains, counts | {"missed": int(causes.missed.sum())})


def find_causes(matched: Matched) -> Causes:
    """Give each detection that is no hit a type, and each object to at most one of those that mean it."""
    overlaps, same = matched.overlaps, matched.same_class
    own, others = _first(overlaps, same, len(matched.found)), _first(overlaps, ~same, len(matched.found))
    fits = [
        (own >= 0) & (_iou(overlaps, own) <= FOREGROUND),
        _iou(overlaps, others) >= FOREGROUND,
        own >= 0,  # at an object that is taken, else it would have taken it
        _first(overlaps, overlaps.iou > BACKGROUND, len(matched.found)) < 0,
        np.ones(len(matched.found), bool),
    ]
    types = np.where(matched.hit, -1, np.argmax(fits, axis=0))
    meant = np.select([types == 0, types == 1], [own, others], -1)  # pairs
    objects = np.append(overlaps.objects, -1)[meant]
    means = np.flatnonzero(objects >= 0)[::-1]
    best = np.full(len(matched.objects), -1)
    best[objects[means]] = means  # the last one written, which has the highest score
    corrects = np.zeros(len(matched.found), bool)
    corrects[best[(best >= 0) & ~matched.taken]] = True
    return Causes(types, objects, corrects, ~matched.taken & (best < 0))


def _first(overlaps: Overlaps, which: np.ndarray, found: int) -> np.ndarray:
    """The first of some pairs of each detection, which is the most overlapped, ``[n]``; -1 if it has none."""
    rows = np.flatnonzero(which)[::-1]
    first = np.full(found, -1)
    first[overlaps.found[rows]] = rows
    return first


def _iou(overlaps: Overlaps, pairs: np.ndarray) -> np.ndarray:
    """Of pairs; 0 for the pair -1, which is none."""
    return np.append(overlaps.iou, 0.0)[pairs]


@dataclass(frozen=True)
class _Points:
    """All of which the AP at one threshold is made. Classes are numbered among those that have an object."""

    classes: np.ndarray  # [n], of detections; -1 where the class has no object
    correct: np.ndarray  # bool [n]
    counted: np.ndarray  # bool [n]; the others do not exist
    order: np.ndarray  # [n], by falling score
    of_objects: np.ndarray  # [m], classes of all objects
    objects: np.ndarray  # [K], number of objects of each class

    @classmethod
    def of(cls, matched: Matched) -> "_Points":
        names, of_objects = np.unique(matched.objects.classes, return_inverse=True)
        at = np.searchsorted(names, matched.found.classes).clip(max=len(names) - 1)
        classes = np.where(names[at] == matched.found.classes, at, -1)
        order = np.argsort(-matched.scores, kind="stable")
        return cls(classes, matched.hit, ~matched.ignored, order, of_objects, np.bincount(of_objects))

    def corrected(self, causes: Causes, name: str) -> "_Points":
        """Without the errors of one type: each is made a hit if it corrects an object, and else left out."""
        if name == "missed":
            return self.without(causes.missed)
        wrong = causes.types == TYPES.index(name)
        right = wrong & causes.corrects
        classes = np.where(right, self.of_objects[causes.objects], self.classes)
        return replace(self, classes=classes, correct=self.correct | right, counted=self.counted & ~wrong | right)

    def without(self, objects: np.ndarray) -> "_Points":
        """As if there had never been these objects, bool ``[m]``."""
        gone = np.bincount(self.of_objects[objects], minlength=len(self.objects))
        return replace(self, objects=self.objects - gone)

    def ranked(self) -> "_Points":
        """With every wrong detection behind all correct ones."""
        return replace(self, order=np.argsort(~self.correct, kind="stable"))

    def average_precision(self) -> float:
        """The mean over the classes; 1 if nothing is to be found and nothing is found."""
        order = self.order[(self.counted & (self.classes >= 0))[self.order]]
        order = order[np.argsort(self.classes[order], kind="stable")]
        ends = np.searchsorted(self.classes[order], np.arange(len(self.objects) + 1))
        each = [
            precision_at(RECALLS, np.flatnonzero(self.correct[order[start:end]]), count).mean() if count else 0.0
            for start, end, count in zip(ends[:-1], ends[1:], self.objects, strict=True)
            if count or end > start
        ]
        return float(np.mean(each)) if each else 1.0


def precision_at(recalls: np.ndarray, hits: np.ndarray, objects: int) -> np.ndarray:
    """Highest precision at each recall or beyond, as COCO interpolates it; 0 beyond the last hit.

    Args:
        recalls: rising, ``[r]``.
        hits: places of the hits among a class's detections, ordered by falling score, ``[h]``.
        objects: of the class, at least 1.
    """
    number = np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate((number / (hits + 1))[::-1])[::-1]
    return np.append(envelope, 0.0)[np.searchsorted(number / objects, recalls)]
