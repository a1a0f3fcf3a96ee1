"""How detections of each task are scored: what is compared with the truth, by what, and by whose rules."""

from dataclasses import dataclass

from yolo_dyn.data.tasks import ObjectKind

COCO, ULTRALYTICS = "COCO", "Ultralytics"


@dataclass(frozen=True)
class Scoring:
    """The rules for one task."""

    objects: str  # what is compared with the truth
    similarity: str  # by which, from 0.50 to 0.95
    scores: dict[str, int]  # names, and their places among the results of pycocotools
    iou_type: str = ""  # as pycocotools calls it; empty if its rules are Ultralytics'
    of: str = "box"  # whose metrics Ultralytics' validator gives
    errors_of: str = "boxes"  # what types of errors and reliability are told of

    @property
    def rules(self) -> str:
        """By whose the AP is computed."""
        return COCO if self.iou_type else ULTRALYTICS

    @property
    def title(self) -> str:
        """What an AP is, in words."""
        of = "" if self.objects == "boxes" else f" of {self.objects}"
        return f"AP{of} ({self.rules}, over {self.similarity} 0.50 to 0.95)"


_OVER_THRESHOLDS = {"AP": 0, "AP50": 1, "AP75": 2}
_AREAS = {**_OVER_THRESHOLDS, "AP_small": 3, "AP_medium": 4, "AP_large": 5, "AR100": 8}
_OF_KEYPOINTS = {**_OVER_THRESHOLDS, "AP_medium": 3, "AP_large": 4, "AR20": 5}
SCORINGS = {
    "detect": Scoring("boxes", "IoU", _AREAS, "bbox"),
    "segment": Scoring("masks", "IoU of masks", _AREAS, "segm", "seg"),
    "pose": Scoring("keypoints", "OKS", _OF_KEYPOINTS, "keypoints", "pose"),
    "obb": Scoring("rotated boxes", "ProbIoU", _OVER_THRESHOLDS, errors_of="boxes around the rotated boxes"),
}
NAMES = tuple(dict.fromkeys(name for each in SCORINGS.values() for name in each.scores))  # of the scores of any task


def scoring(kind: ObjectKind) -> Scoring:
    """The rules for the objects of a data set."""
    return SCORINGS[kind.task]
