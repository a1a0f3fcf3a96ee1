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

    @property
    def rules(self) -> str:
        """By whose the AP is computed."""
        return COCO if self.iou_type else ULTRALYTICS

    @property
    def title(self) -> str:
        """What an AP is, in words."""
        of = "" if self.objects == "boxes" else f" of {self.objects}"
        return f"AP{of} ({self.rules}, over {self.similarity} 0.50 to 0.95)"


_AREAS = {"AP": 0, "AP50": 1, "AP75": 2, "AP_small": 3, "AP_medium": 4, "AP_large": 5, "AR100": 8}
SCORINGS = {
    "detect": Scoring("boxes", "IoU", _AREAS, "bbox"),
    "segment": Scoring("masks", "IoU of masks", _AREAS, "segm", "seg"),
    "pose": Scoring(
        "keypoints", "OKS", {"AP": 0, "AP50": 1, "AP75": 2, "AP_medium": 3, "AP_large": 4, "AR20": 5}, "keypoints", "pose"
    ),
    "obb": Scoring("rotated boxes", "ProbIoU", {"AP": 0, "AP50": 1, "AP75": 2}),
}
NAMES = tuple(dict.fromkeys(name for each in SCORINGS.values() for name in each.scores))  # of the scores of any task


def scoring(kind: ObjectKind) -> Scoring:
    """The rules for the objects of a data set."""
    return SCORINGS[kind.task]
