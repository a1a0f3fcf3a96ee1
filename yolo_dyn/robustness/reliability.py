"""Whether scores are probabilities: the detection expected calibration error, and the bins of a reliability diagram.

Source: Küppers, Kronenberger, Shantia, Haselhoff, Multivariate Confidence Calibration for Object Detection, CVPR
workshops 2020 (arXiv 2004.13546): D-ECE is the mean over bins of how far the share of hits is from the mean score,
weighted by the detections of a bin. As in the authors' evaluation detections count from a score of 0.3, there are 20
bins of the score, or 8 x 8 x 8 of score and box centre, and bins with fewer than 8 detections are left out. Here
detections of all classes share the bins, each object is found once, and detections in crowds are left out.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from yolo_dyn.output.arguments import OrDefault, Positive, Share, check_fields
from yolo_dyn.robustness.matching import Matched

LEAST_SCORE = 0.3
BINS, BINS_WITH_POSITION = 20, 8  # of the score alone; of the score and of each coordinate
FEWEST = 8  # detections of a bin that counts


@dataclass(frozen=True)
class Bin:
    """Detections with scores in one range."""

    low: Share
    high: Share
    detections: Positive
    confidence: Share  # their mean score
    precision: Share  # the share of hits among them


@dataclass(frozen=True)
class Reliability:
    """Scores beside the share of hits, for one model under one condition."""

    dece: Share | None  # by score alone; None if no bin counts
    dece_position: Share | None  # by score and centre; None too if the sizes of the images are not known
    detections: OrDefault  # from LEAST_SCORE on
    bins: list[Bin]  # that are not empty

    def as_dict(self) -> dict[str, Any]:
        return {
            "D-ECE": self.dece,
            "D-ECE_position": self.dece_position,
            "detections": self.detections,
            "bins": [asdict(each) for each in self.bins],
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Reliability":
        """Read its form in JSON.

        Raises:
            KeyError, TypeError: if it is another.
        """
        bins = [check_fields(Bin(**each)) for each in content["bins"]]
        return check_fields(cls(content["D-ECE"], content["D-ECE_position"], content["detections"], bins))


def reliability(matched: Matched, truth: dict[str, Any]) -> Reliability | None:
    """How reliable the scores are; None if they are no probabilities: below 0 or above 1."""
    scores = matched.scores
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        return None
    counted = (scores >= LEAST_SCORE) & ~matched.ignored
    confidence, hit = scores[counted], matched.hit[counted]
    by_score = _places(confidence, BINS)
    centres = _centres(matched, truth)
    position = None
    if centres is not None:
        x, y = centres[counted].T
        places = (_places(value, BINS_WITH_POSITION) for value in (confidence, x, y))
        position = _error(np.ravel_multi_index(tuple(places), (BINS_WITH_POSITION,) * 3), confidence, hit)
    bins = [_bin(number, by_score, confidence, hit) for number in np.unique(by_score).tolist()]
    return Reliability(_error(by_score, confidence, hit), position, len(confidence), bins)


def _places(values: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each value from 0 to 1; what lies outside is in the nearest."""
    return np.clip((values * bins).astype(int), 0, bins - 1)


def _centres(matched: Matched, truth: dict[str, Any]) -> np.ndarray | None:
    """Of the boxes, as shares of the image, ``[n, 2]``; None if the truth lacks the size of an image."""
    sizes = np.array([(image.get("width", 0), image.get("height", 0)) for image in truth["images"]], float).reshape(
        -1, 2
    )
    boxes = matched.found.boxes
    return (boxes[:, :2] + boxes[:, 2:] / 2) / sizes[matched.found.images] if (sizes > 0).all() else None


def _error(bins: np.ndarray, confidence: np.ndarray, hit: np.ndarray) -> float | None:
    """The weighted mean difference of score and share of hits over the bins with enough detections."""
    count = np.bincount(bins)
    difference = np.abs(np.bincount(bins, hit) - np.bincount(bins, confidence))  # times the detections of the bin
    enough = count >= FEWEST
    return float(difference[enough].sum() / count[enough].sum()) if enough.any() else None


def _bin(number: int, bins: np.ndarray, confidence: np.ndarray, hit: np.ndarray) -> Bin:
    inside = bins == number
    mean = float(confidence[inside].mean())
    return Bin(number / BINS, (number + 1) / BINS, int(inside.sum()), mean, float(hit[inside].mean()))
