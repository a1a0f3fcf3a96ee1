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
from yolo_dyn.robustness.overlaps import Matched

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


def image_sizes(truth: dict[str, Any]) -> np.ndarray | None:
    """Width and height of the images of a truth in COCO's format, ``[images, 2]``; None if one lacks its size."""
    sizes = [(image.get("width", 0), image.get("height", 0)) for image in truth["images"]]
    return np.array(sizes, float).reshape(-1, 2) if all(w > 0 and h > 0 for w, h in sizes) else None


def reliability(matched: Matched, sizes: np.ndarray | None) -> Reliability | None:
    """How reliable the scores are.

    Args:
        matched: detections and what they are to the objects.
        sizes: of the images, from `image_sizes`.

    Returns:
        None if the scores are no probabilities: one is below 0 or above 1.
    """
    if len(matched.scores) and not (matched.scores.min() >= 0 and matched.scores.max() <= 1):
        return None
    counted = (matched.scores >= LEAST_SCORE) & ~matched.ignored
    confidence, hit = matched.scores[counted], matched.hit[counted]
    by_score, by_position = _places(confidence, BINS), None
    if sizes is not None:
        boxes, images = matched.found.boxes[counted], matched.found.images[counted]
        centres = (boxes[:, :2] + boxes[:, 2:] / 2) / sizes[images]
        at = (_places(values, BINS_WITH_POSITION) for values in (confidence, *centres.T))
        by_position = np.ravel_multi_index(tuple(at), (BINS_WITH_POSITION,) * 3)
    return Reliability(
        _error(by_score, confidence, hit),
        None if by_position is None else _error(by_position, confidence, hit),
        len(confidence),
        [_bin(number, by_score, confidence, hit) for number in np.unique(by_score).tolist()],
    )


def _places(values: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each value from 0 to 1; what lies outside is in the nearest."""
    return np.clip((values * bins).astype(int), 0, bins - 1)


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
