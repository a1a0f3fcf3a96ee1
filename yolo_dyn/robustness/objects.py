"""What a detection has beside its box, one of a kind for each task: how it is kept, written, and compared with truth.

Masks are COCO's run lengths, bytes, in an array of objects ``[n]``; keypoints ``[n, K, 2 or 3]`` and rotated boxes
``[n, 5]`` (centre, width, height in pixels, angle in radians) are arrays of float32. All lie in the original image.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from yolo_dyn.data.masks import outlines, run_lengths
from yolo_dyn.data.tasks import ObjectKind

Drawing = tuple[list[np.ndarray], np.ndarray]  # polygons [k, 2], and points [k, 2], in pixels


def packed(kind: ObjectKind, shapes: np.ndarray | None) -> dict[str, np.ndarray]:
    """Arrays to keep, without objects of Python; nothing for boxes."""
    if kind.task == "detect" or shapes is None:
        return {}
    if kind.task == "segment":
        ends = np.cumsum([len(counts) for counts in shapes], dtype=np.int64)
        return {"masks": np.frombuffer(b"".join(shapes), np.uint8), "mask_ends": ends}
    return {kind.task: np.asarray(shapes, np.float32)}


def unpacked(kind: ObjectKind, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """What was kept.

    Raises:
        KeyError: if it is not there.
    """
    if kind.task == "detect":
        return None
    if kind.task == "segment":
        together, ends = arrays["masks"].tobytes(), arrays["mask_ends"].tolist()
        return masks([together[start:end] for start, end in itertools.pairwise([0, *ends])])
    return arrays[kind.task]


def masks(counts: list[bytes]) -> np.ndarray:
    """Run lengths as an array of objects, which bytes of one length would not be by themselves."""
    found = np.empty(len(counts), object)
    found[:] = counts
    return found


def joined(kind: ObjectKind, shapes: list[np.ndarray]) -> np.ndarray | None:
    """Those of several images, one after the other."""
    if kind.task == "detect":
        return None
    empty = {"segment": masks([]), "pose": np.zeros((0, *(kind.kpt_shape or ())), np.float32)}
    return np.concatenate([empty.get(kind.task, np.zeros((0, 5), np.float32)), *shapes])


def members(kind: ObjectKind, shape: Any, size: Sequence[int]) -> dict[str, Any]:
    """What a detection has beside its box, in COCO's format, rotated boxes as Ultralytics writes them.

    Args:
        kind: of the objects.
        shape: of one detection.
        size: height and width of its image.
    """
    if kind.task == "segment":
        return {"segmentation": {"size": list(size), "counts": shape.decode()}}
    if kind.task == "pose":
        return {"keypoints": [value for x, y, *seen in shape.tolist() for value in (x, y, *(seen or [1.0]))]}
    if kind.task == "obb":
        return {"rbox": shape.tolist(), "poly": corners(shape[None])[0].ravel().tolist()}
    return {}


def results(kind: ObjectKind, truth: dict[str, Any], detections: np.ndarray, shapes: np.ndarray | None) -> Any:
    """Detections as pycocotools takes them."""
    if shapes is None:
        return detections
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    return [
        {"image_id": int(row[0]), "category_id": int(row[6]), "score": row[5], **_scored(kind, shape, sizes[row[0]])}
        for row, shape in zip(detections.tolist(), shapes, strict=True)
    ]


def _scored(kind: ObjectKind, shape: Any, size: list[int]) -> dict[str, Any]:
    """The `members`, of a million masks without copies: neither of the run lengths as text, nor of each one's size."""
    return {"segmentation": {"size": size, "counts": shape}} if kind.task == "segment" else members(kind, shape, size)


def writer(
    kind: ObjectKind, truth: dict[str, Any], detections: np.ndarray, shapes: np.ndarray | None
) -> Callable[[int], dict[str, Any]] | None:
    """What gives the `members` of a detection by its number; None for boxes."""
    if shapes is None:
        return None
    found = shapes
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    return lambda number: members(kind, found[number], sizes[detections[number, 0]])


def ignored(kind: ObjectKind, annotation: dict[str, Any]) -> bool:
    """Whether an object is neither to be found nor missed."""
    return bool(annotation["iscrowd"]) or (kind.task == "pose" and not annotation["num_keypoints"])


def similarity(
    kind: ObjectKind, boxes: np.ndarray, shapes: np.ndarray | None, objects: list[dict[str, Any]], size: tuple[int, int]
) -> np.ndarray:
    """How alike detections and objects of one image are, ``[n, m]``; within a crowd a mask or box counts by itself.

    Args:
        kind: of the objects.
        boxes: left, top, width, height of the detections, ``[n, 4]``.
        shapes: what they have beside their boxes.
        objects: annotations in COCO's format.
        size: height and width of the image.
    """
    from pycocotools import mask

    if not len(boxes) or not objects:
        return np.zeros((len(boxes), len(objects)))
    crowd = [int(o["iscrowd"]) for o in objects]
    if shapes is None:
        return mask.iou(boxes.tolist(), [o["bbox"] for o in objects], crowd)
    if kind.task == "segment":
        found = [{"size": list(size), "counts": counts} for counts in shapes]
        return mask.iou(found, [run_lengths(o["segmentation"], size) for o in objects], crowd)
    if kind.task == "pose":
        return np.stack([oks(shapes, o, np.array(kind.sigmas)) for o in objects], 1)
    return prob_iou(rotated(objects), shapes).T


def framed(kind: ObjectKind) -> bool:
    """Whether pictures show the box: not where an outline is drawn in its place."""
    return kind.task in ("detect", "pose")


def found_outline(kind: ObjectKind, shape: Any, size: tuple[int, int]) -> Drawing:
    """What pictures show of a detection beside its box, in an image of that height and width."""
    if kind.task == "segment":
        return outlines({"size": list(size), "counts": shape}, size), np.zeros((0, 2))
    if kind.task == "obb":
        return [corners(shape[None])[0]], np.zeros((0, 2))
    return [], shape[:, :2] if kind.task == "pose" else np.zeros((0, 2))


def true_outline(kind: ObjectKind, annotation: dict[str, Any], size: tuple[int, int]) -> Drawing:
    """The same of an object of the truth, of its keypoints those that are there."""
    if kind.task == "pose":
        points = np.reshape(annotation["keypoints"], (-1, 3))
        return [], points[points[:, 2] > 0, :2]
    return ([] if kind.task == "detect" else outlines(annotation["segmentation"], size)), np.zeros((0, 2))


def oks(found: np.ndarray, annotation: dict[str, Any], sigmas: np.ndarray) -> np.ndarray:
    """Object keypoint similarity of poses ``[n, K, 2 or 3]`` to an annotation, ``[n]``, as pycocotools computes it."""
    x, y, seen = np.reshape(annotation["keypoints"], (-1, 3)).T
    counted = seen > 0
    if not counted.any():
        return np.zeros(len(found))
    squares = (found[..., 0].astype(float) - x) ** 2 + (found[..., 1].astype(float) - y) ** 2
    error = squares / (2 * sigmas) ** 2 / (annotation["area"] + np.spacing(1)) / 2
    return np.exp(-error[:, counted]).mean(1)


def rotated(objects: list[dict[str, Any]]) -> np.ndarray:
    """Rotated boxes of annotations, ``[m, 5]``: the smallest around the corners, as Ultralytics finds it."""
    from ultralytics.utils.ops import xyxyxyxy2xywhr

    each = [xyxyxyxy2xywhr(np.array(o["segmentation"], np.float32)) for o in objects]
    return np.concatenate([np.zeros((0, 5), np.float32), *each]).astype(np.float32)


def corners(boxes: np.ndarray) -> np.ndarray:
    """The four corners of rotated boxes ``[n, 5]``, ``[n, 4, 2]``."""
    from ultralytics.utils.ops import xywhr2xyxyxyxy

    return np.asarray(xywhr2xyxyxyxy(boxes)).reshape(-1, 4, 2)


def prob_iou(objects: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Ultralytics' similarity of rotated boxes ``[m, 5]`` and ``[n, 5]``, ``[m, n]``: ProbIoU (arXiv 2106.06072)."""
    from ultralytics.utils.metrics import batch_probiou

    return batch_probiou(objects, found).numpy()
