"""Masks as COCO has them: run lengths, plain or compressed, which pycocotools takes on trust, and polygons."""

from typing import Any

import numpy as np

LONGEST = 6  # characters of one number: 30 bits
FARTHEST = 100_000  # pycocotools walks along the sides of a polygon, point by point, before it cuts it off


def runs(counts: str | bytes | list[int]) -> np.ndarray:
    """Pixels outside and inside of a mask in turn, column by column.

    Args:
        counts: of COCO's run lengths; compressed, each character has five bits of a number and whether more follow, and
            a number from the fourth on is less the one before the last.

    Raises:
        ValueError: if this is none.
    """
    if isinstance(counts, list):
        return np.array(counts, np.int64)
    text = counts.encode() if isinstance(counts, str) else counts
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - ord("0")
    last = digits & 32 == 0
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or not last[-1]:
        raise ValueError(f"{text[:20]!r} are no run lengths")
    starts = np.append(0, np.flatnonzero(last)[:-1] + 1)
    lengths = np.diff(np.append(starts, len(digits)))
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    if lengths.max() > LONGEST:
        raise ValueError(f"{text[:20]!r} hold a number that is too long")
    numbers = np.add.reduceat((digits & 31) << 5 * place, starts)
    numbers -= (digits[last] & 16 > 0) << 5 * lengths  # two's complement
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def misfit(segmentation: Any, size: tuple[int, int] | None = None) -> str:
    """Why something is no mask; empty if it is polygons, or run lengths of all pixels.

    Args:
        segmentation: as in COCO's format.
        size: height and width of the image, if they are known.
    """
    if isinstance(segmentation, list):
        fits = segmentation and all(map(_is_polygon, segmentation))
        return "" if fits else f"polygons of three points or more, none of them {FARTHEST} pixels away"
    if not isinstance(segmentation, dict):
        return "polygons, or run lengths (RLE) with size and counts"
    own, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(own, list) and len(own) == 2 and all(type(side) is int for side in own)):
        return "run lengths with size (height, width)"
    if size and tuple(own) != size:
        return f"of the image's size {list(size)}"
    fits = _pixels(counts) == own[0] * own[1]
    return "" if fits else f"run lengths whose counts sum to {own[0]} x {own[1]} pixels"


def _pixels(counts: Any) -> int:
    """How many pixels run lengths are of; -1 if they are none."""
    if not isinstance(counts, str) and not (isinstance(counts, list) and all(type(n) is int for n in counts)):
        return -1
    try:
        found = runs(counts)
    except (ValueError, OverflowError):
        return -1
    return int(found.sum()) if len(found) and found.min() >= 0 else -1


def _is_polygon(found: Any) -> bool:
    if not isinstance(found, list) or len(found) < 6 or len(found) % 2:
        return False
    return all(is_number(value) and abs(value) < FARTHEST for value in found)  # which NaN is not


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def run_lengths(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """The mask of an annotation, from polygons or run lengths, as pycocotools has it."""
    from pycocotools import mask

    if isinstance(segmentation, list):
        return mask.merge(mask.frPyObjects(segmentation, *size))
    return segmentation if isinstance(segmentation["counts"], str | bytes) else mask.frPyObjects(segmentation, *size)


def outlines(segmentation: Any, size: tuple[int, int]) -> list[np.ndarray]:
    """Polygons of an annotation's mask or of a detection's, each ``[k, 2]``, x and y in pixels; one at least."""
    import cv2
    from pycocotools import mask

    if isinstance(segmentation, list):
        return [np.reshape(polygon, (-1, 2)) for polygon in segmentation]
    pixels = mask.decode(run_lengths(segmentation, size))
    found = [each.reshape(-1, 2) for each in cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]]
    return found or [np.zeros((1, 2), int)]


def outline(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """One polygon, ``[k, 2]``: parts are joined by one line there and back, as Ultralytics does it."""
    from ultralytics.data.converter import merge_multi_segment

    parts = outlines(segmentation, size)
    return np.concatenate(merge_multi_segment([part.ravel().tolist() for part in parts])) if parts[1:] else parts[0]


def mask_area(polygons: list[list[float]], width: int, height: int) -> float:
    """Pixels of an image that polygons (x, y, x, y, ...) cover."""
    from pycocotools import mask

    return float(mask.area(run_lengths(polygons, (height, width))))
