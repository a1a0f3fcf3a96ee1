"""Ground truth in COCO's format, from where a data set keeps the most complete one.

First the data YAML's `annotations:` key, then ``annotations/instances_<split>.json``, then VOC XML where Ultralytics'
VOC download leaves it or in ``Annotations/``, then YOLO txt. Crowds and difficult objects are ignored in scoring,
neither found nor missed, if the source knows them; YOLO txt does not. An image that json or XML does not list is
left out, since nobody knows what it shows; one without txt has no objects, as everywhere in Ultralytics.
Masks are in json and YOLO txt, keypoints in ``annotations/person_keypoints_<split>.json`` and YOLO txt, and rotated
boxes in YOLO txt alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_dyn.data.annotations import Annotations, Boxes, encloses_something, note
from yolo_dyn.data.coco_json import read_coco
from yolo_dyn.data.tasks import BOXES, ObjectKind
from yolo_dyn.data.voc_xml import read_voc
from yolo_dyn.data.yolo_txt import read_yolo
from yolo_dyn.errors import MissingFileError, YoloDynError

OFFICIAL = {"detect": "instances", "segment": "instances", "pose": "person_keypoints"}  # json of COCO, by task


@dataclass(frozen=True)
class Truth:
    """Annotations of a split; image ids are positions in `files`, category ids the model's classes."""

    coco: dict[str, Any]  # images, annotations, categories
    files: list[Path]  # the images that are annotated
    unknown: list[Path]  # the images that are not, and are left out
    source: str  # where it was read, and what is known there, for the log
    notes: list[str]  # what else the reader should know
    labelled: bool  # whether there are any annotations at all


def ground_truth(
    images: Sequence[str | Path],
    names: dict[int, str],
    root: Path,
    split: str,
    annotations: str = "",
    kind: ObjectKind = BOXES,
) -> Truth:
    """Read the annotations of a list of images.

    Args:
        images: image files, in the order that gives them their ids, from 0.
        names: class names by id.
        root: folder of the data set.
        split: "train", "val" or "test".
        annotations: the data YAML's `annotations:` key, a COCO json or a folder of VOC XML, relative to `root`.
        kind: what is needed of each object beside its box.

    Raises:
        YoloDynError: if a file is missing or broken, names an unknown class, or lacks what is needed.
    """
    files = [Path(image) for image in images]
    sizes = [image_size(file) for file in files]
    found = _read_annotations(files, sizes, names, root, split, annotations, kind)
    known = [
        (file, size, boxes) for file, size, boxes in zip(files, sizes, found.boxes, strict=True) if boxes is not None
    ]
    sound = [(file, size, [b for b in boxes if encloses_something(b["bbox"], *size)]) for file, size, boxes in known]
    empty = [
        file.name for (file, _, all_boxes), (*_, kept) in zip(known, sound, strict=True) if len(kept) < len(all_boxes)
    ]
    return Truth(
        coco_dataset(sound, names),
        [file for file, *_ in known],
        [file for file, boxes in zip(files, found.boxes, strict=True) if boxes is None],
        found.source,
        [*found.notes, *note("images have boxes that enclose nothing of them, which are left out", empty)],
        found.labelled,
    )


def no_truth(files: list[Path], names: dict[int, str]) -> Truth:
    """That of images of which nothing is known."""
    return Truth(coco_dataset([(file, image_size(file), []) for file in files], names), files, [], "none", [], False)


def _read_annotations(
    files: list[Path],
    sizes: list[tuple[int, int]],
    names: dict[int, str],
    root: Path,
    split: str,
    annotations: str,
    kind: ObjectKind,
) -> Annotations:
    if annotations:
        path = root / annotations
        if not path.exists():
            raise MissingFileError(f"annotations: {annotations} does not exist in {root}")
        if kind.task == "obb" or (path.suffix != ".json" and kind.task != "detect"):
            known = "YOLO txt" if kind.task == "obb" else "COCO json or YOLO txt"
            raise YoloDynError(
                f"annotations: {annotations} holds nothing for the task {kind.task}, which takes {known}"
            )
        return read_coco(files, names, path, kind) if path.suffix == ".json" else read_voc(files, names, [path])
    for name in dict.fromkeys((split, *(file.parent.name for file in files[:1]))):  # val, or val2017 as in coco.yaml
        path = root / "annotations" / f"{OFFICIAL.get(kind.task)}_{name}.json"
        if path.is_file():
            return read_coco(files, names, path, kind)
    if kind.task != "detect":
        return read_yolo(files, sizes, names, kind)
    folders = [*sorted((root / "images" / "VOCdevkit").glob("VOC*/Annotations")), root / "Annotations"]
    folders = [folder for folder in folders if folder.is_dir()]
    if any((folder / f"{file.stem}.xml").is_file() for folder in folders for file in files):
        return read_voc(files, names, folders)
    return read_yolo(files, sizes, names, kind)


def coco_dataset(known: list[tuple[Path, tuple[int, int], Boxes]], names: dict[int, str]) -> dict[str, Any]:
    """Images, their (width, height) and boxes in COCO's format; image ids are positions in the list.

    Raises:
        YoloDynError: if a mask is of another size than its image.
    """
    for file, (width, height), boxes in known:
        masks = [box["segmentation"] for box in boxes if isinstance(box.get("segmentation"), dict)]
        if wrong := [mask["size"] for mask in masks if mask["size"] != [height, width]]:
            raise YoloDynError(f"a mask of {file.name} is of size {wrong[0]}, the image of {[height, width]}")
    annotations = [
        {"area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0, **box, "image_id": image}
        for image, (*_, boxes) in enumerate(known)
        for box in boxes
    ]
    return {
        "images": [
            {"id": image, "file_name": file.name, "width": width, "height": height}
            for image, (file, (width, height), _) in enumerate(known)
        ],
        "annotations": [{**box, "id": number} for number, box in enumerate(annotations, 1)],  # 0 means no match
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }


def image_size(file: Path) -> tuple[int, int]:
    """Width and height in pixels, turned as the file's EXIF says."""
    from PIL import Image
    from ultralytics.data.utils import exif_size

    with Image.open(file) as image:
        return exif_size(image)
