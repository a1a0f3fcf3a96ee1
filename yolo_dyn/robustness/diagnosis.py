"""What goes wrong in a cell, not only how much: types of errors, precision over recall, reliability of the scores.

All of it follows from the detections that a cell keeps and from the ground truth, so cells that were measured before
any of this was computed get it when their report is written again.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yolo_dyn.output.arguments import Share, check_fields
from yolo_dyn.robustness.error_types import ErrorTypes, error_types, precision_at
from yolo_dyn.robustness.overlaps import match
from yolo_dyn.robustness.reliability import FEWEST, LEAST_SCORE, Reliability, image_sizes, reliability
from yolo_dyn.robustness.scores import RECALLS, ClassRecords

VERSION = 1  # of the rules: what was diagnosed by others is diagnosed again
NO_OBJECT = "no image has an object that counts"
NO_PROBABILITIES = "the scores of the detections are no probabilities: some are below 0 or above 1"
TOO_FEW = f"no bin of D-ECE has {FEWEST} detections with a score of at least {LEAST_SCORE}"
TOO_FEW_BY_POSITION = f"no bin of D-ECE by position has {FEWEST} detections with a score of at least {LEAST_SCORE}"
NO_SIZES = "the ground truth does not tell the size of every image, so there is no D-ECE by position"


@dataclass(frozen=True)
class Diagnosis:
    """What goes wrong in one cell. What cannot be told is absent."""

    errors: ErrorTypes | None = None
    precision: list[Share] | None = None  # at IoU 0.5 and COCO's 101 recalls: the mean over classes, whose mean is AP50
    reliability: Reliability | None = None
    missing: list[str] = field(default_factory=list)  # why something is absent

    def as_dict(self) -> dict[str, Any]:
        """The form in JSON."""
        return {
            "version": VERSION,
            "errors": self.errors and self.errors.as_dict(),
            "precision": self.precision,
            "reliability": self.reliability and self.reliability.as_dict(),
            "missing": self.missing,
        }

    @classmethod
    def from_dict(cls, content: Any) -> "Diagnosis | None":
        """Read its form in JSON; None if it is another, or was made by other rules."""
        try:
            if content["version"] != VERSION:
                return None
            errors, precision, rated = (content[key] for key in ("errors", "precision", "reliability"))
            if precision is not None and len(precision) != len(RECALLS):
                return None
            errors = None if errors is None else ErrorTypes.from_dict(errors)
            rated = None if rated is None else Reliability.from_dict(rated)
            return check_fields(cls(errors, precision, rated, content["missing"]))
        except (KeyError, TypeError, AttributeError, ValueError):
            return None


def diagnose(truth: dict[str, Any], detections: np.ndarray, records: list[ClassRecords]) -> Diagnosis:
    """Find out what goes wrong.

    Args:
        truth: COCO's format, with the sizes of the images.
        detections: ``[n, 7]``: image id, left, top, width, height in pixels, score, category id.
        records: of their evaluation, see `scores.evaluate`.
    """
    matched = match(truth, detections)
    sizes = image_sizes(truth)
    errors, rated = error_types(matched), reliability(matched, sizes)
    precision = mean_precision(records)
    missing = ([] if errors else [NO_OBJECT]) + _unrated(rated, sizes is not None)
    return Diagnosis(errors, None if precision is None else precision.tolist(), rated, missing)


def _unrated(rated: Reliability | None, sized: bool) -> list[str]:
    """Why there is no D-ECE."""
    if rated is None:
        return [NO_PROBABILITIES]
    reasons = [TOO_FEW] if rated.dece is None else []
    if not sized:
        return [*reasons, NO_SIZES]
    return [*reasons, TOO_FEW_BY_POSITION] if rated.dece_position is None else reasons


def mean_precision(records: list[ClassRecords]) -> np.ndarray | None:
    """Precision at COCO's 101 recalls and IoU 0.5, the mean over the classes that have an object; None if none has."""
    curves = []
    for record in records:
        if objects := int(record.objects.sum()):
            curves.append(precision_at(RECALLS, np.flatnonzero(record.hits[0][~record.ignored[0]]), objects))
    return np.mean(curves, 0) if curves else None
