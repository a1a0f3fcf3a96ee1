"""What a reader of annotations hands on: the boxes of each image, where they come from, and what is to be said."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Boxes = list[dict[str, Any]]  # bbox (left, top, width, height in pixels), category_id, and if known iscrowd and area;
# for masks and rotated boxes segmentation, for poses keypoints and num_keypoints, all as in COCO's format


@dataclass(frozen=True)
class Annotations:
    """What one source holds of the images."""

    boxes: list[Boxes | None]  # of each image; None if it is not annotated
    source: str
    notes: list[str] = field(default_factory=list)
    labelled: bool = True


def note(what: str, names: Iterable[str]) -> list[str]:
    """A note about some files, the first ones named: `what` after their number."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{len(names)} {what}: {', '.join(names[:3])}{more}"] if names else []


def encloses_something(bbox: list[float], width: int, height: int) -> bool:
    """Whether a box is one: finite, and with a part of the image inside."""
    if not all(map(math.isfinite, bbox)):
        return False
    left, top, wide, high = bbox
    return wide > 0 and high > 0 and left < width and top < height and left + wide > 0 and top + high > 0


def pose(keypoints: list[tuple[float, float, float]]) -> dict[str, Any]:
    """Keypoints (x, y in pixels, visibility) as COCO has them."""
    seen = sum(visibility > 0 for *_, visibility in keypoints)
    return {"keypoints": [value for point in keypoints for value in point], "num_keypoints": seen}
