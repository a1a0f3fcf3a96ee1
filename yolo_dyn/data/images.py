"""The images of a split with their ground truth: read once, the broken ones left out and named; how models see one."""

import glob
import hashlib
import io
import itertools
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolo_dyn.data.tasks import BOXES, ObjectKind, object_kind
from yolo_dyn.data.truth import Truth, ground_truth, no_truth
from yolo_dyn.errors import MissingFileError, YoloDynError, nearest
from yolo_dyn.integration import integrate
from yolo_dyn.output.arguments import Positive, lacks

SHOWN = 10  # skipped images, for one reason each, that are named one by one


@dataclass(frozen=True)
class EvaluationSet:
    """What models are evaluated on. Image ids are positions in `files`, which are sorted."""

    data: str  # the data YAML
    split: str
    names: dict[int, str]
    channels: int
    files: list[Path]
    coco: dict[str, Any]  # ground truth in COCO's format
    source: str  # of the ground truth
    skipped: dict[str, str]  # image file -> why it is left out
    notes: list[str]
    labelled: bool  # whether there is any ground truth
    fingerprint: str  # SHA-256 of names, pixels and ground truth
    kind: ObjectKind = BOXES  # what is known of each object

    def log(self) -> Iterator[str]:
        """Lines for the terminal; what is wrong with many images is said once."""
        split = f", split {self.split}" if self.split else ""
        yield f"{len(self.files)} images of {self.data}{split}; ground truth: {self.source}"
        yield from self.notes
        for reason, many in itertools.groupby(sorted(self.skipped, key=self._reason), self._reason):
            files = list(many)
            shown = files if len(files) <= SHOWN else files[:1]
            yield from (f"skipped {file}: {reason}" for file in shown)
            if len(shown) < len(files):
                yield f"skipped {len(files) - 1} more: {reason}; the report lists them"

    def _reason(self, file: str) -> str:
        return self.skipped[file]


def evaluation_set(
    data: str,
    split: str = "val",
    only: list[str] | None = None,
    labelled: bool = True,
    task: str = "detect",
    *,
    count: int | None = None,
    seed: int = 0,
) -> EvaluationSet:
    """Read a split of a data set, leaving out what cannot be evaluated.

    Args:
        data: an Ultralytics data YAML, by bare name or path.
        split: "train", "val" or "test".
        only: file names of the images to keep; all if it is None.
        labelled: False leaves the ground truth aside.
        task: one of `data.tasks.TASKS`.
        count: read no more images than so many, drawn at random.
        seed: of the draw.

    Raises:
        YoloDynError: if the data set, the split or the annotations are missing or broken, lack what the task needs, or
            no image is left.
    """
    description = _description(data)
    kind = object_kind(task, description, data)
    if not description.get(split):
        known = ", ".join(key for key in ("train", "val", "test") if description.get(key))
        raise YoloDynError(f"{data} has no split {split!r} (it has {known})")
    files = _selected(image_files(description[split]), only, f"{data}, split {split}")
    if count is not None:
        order = np.random.default_rng(seed).permutation(len(files))
        files = sorted(files[number] for number in order[:count])
    checked = _check_all(files)
    skipped = {str(file): reason for file, (reason, _) in zip(files, checked, strict=True) if reason}
    readable = [file for file, (reason, _) in zip(files, checked, strict=True) if not reason]
    names, root = description["names"], Path(description["path"])
    annotations = str(description.get("annotations") or "")
    truth = ground_truth(readable, names, root, split, annotations, kind) if labelled else no_truth(readable, names)
    skipped |= {str(file): f"not annotated in {truth.source}" for file in truth.unknown}
    if not truth.files:
        raise YoloDynError(f"no image of {data}, split {split}, can be evaluated: {_first_reasons(skipped)}")
    digests = {file: digest for file, (_, digest) in zip(files, checked, strict=True)}
    return EvaluationSet(
        data=data,
        split=split,
        names=names,
        channels=description.get("channels", 3),
        files=truth.files,
        coco=truth.coco,
        source=truth.source,
        skipped=skipped,
        notes=truth.notes,
        labelled=truth.labelled,
        fingerprint=_fingerprint(truth, digests),
        kind=kind,
    )


def _description(data: str) -> dict[str, Any]:
    from yolo_dyn.integration.api import dataset

    integrate()
    description = dataset(data)
    if reason := lacks(description.get("channels", 3), Positive):
        raise YoloDynError(f"{data}: channels must be {reason}, got {description['channels']!r}")
    return description


def image_files(path: str | list[str]) -> list[Path]:
    """Image files of a folder, a text file, or a list of both, as the stock data loader lists them; sorted.

    Raises:
        YoloDynError: if there are none.
    """
    from yolo_dyn.integration.listing import listed

    try:
        return sorted(map(Path, listed(path)))
    except FileNotFoundError as error:
        raise YoloDynError(str(error.__cause__ or error)) from error


def source_files(source: str) -> list[Path]:
    """Image files that a folder, a text file, a pattern or a file name stands for; sorted.

    Raises:
        YoloDynError: if there are none.
    """
    if Path(source).is_dir() or Path(source).suffix == ".txt":
        return image_files(source)
    files = sorted(Path(file) for file in glob.glob(source))
    if not files:
        raise YoloDynError(f"source={source}: no image found")
    return files


def source_name(source: str) -> str:
    """A name for results of such a source: that of its folder or file."""
    path = Path(source).absolute()
    return path.stem if "*" not in source else path.parent.name


def unlabelled(source: str, channels: int = 3, only: list[str] | None = None, count: int = 1) -> EvaluationSet:
    """The first images of a source, without ground truth, leaving out broken ones.

    Args:
        source: folder, text file, pattern or file.
        channels: to read of each image.
        only: file names of the images to take, in place of the first ones.
        count: how many to take.

    Raises:
        YoloDynError: if there is no image.
    """
    if count < 1:
        raise YoloDynError(f"count must be at least 1, got {count}")
    files = _selected(source_files(source), only, f"source={source}")
    readable: list[Path] = []
    skipped: dict[str, str] = {}
    for file in files:
        if len(readable) == (len(files) if only else count):
            break
        reason, _ = _check(file)
        if reason:
            skipped[str(file)] = reason
        else:
            readable.append(file)
    if not readable:
        raise YoloDynError(f"source={source}: no image can be read: {_first_reasons(skipped)}")
    return EvaluationSet(
        source, "", {}, channels, readable, no_truth(readable, {}).coco, "none", skipped, [], False, ""
    )


def _selected(files: list[Path], only: list[str] | None, where: str) -> list[Path]:
    names = [file.name for file in files]
    for name in only or ():
        if Path(name).name not in names:
            raise YoloDynError(f"image {name!r} is not in {where}{nearest(name, names)}")
    selected = {Path(name).name for name in only or names}
    return [file for file in files if file.name in selected]


def _check_all(files: list[Path]) -> list[tuple[str, str]]:
    """What is wrong with each file, or an empty string, and the SHA-256 of its bytes."""
    from ultralytics.utils import TQDM

    with ThreadPoolExecutor() as pool:
        return list(TQDM(pool.map(_check, files), desc="Checking images", total=len(files)))


def _check(file: Path) -> tuple[str, str]:
    from PIL import Image, UnidentifiedImageError

    if not file.is_file():  # a pipe would be waited for
        return "it is no file", ""
    try:
        content = file.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}", ""
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return "the file is empty", digest
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()  # OpenCV fills up a truncated file in silence
    except (UnidentifiedImageError, ImportError):  # a format that only OpenCV reads, or none
        return "" if _opencv_reads(file) else "it is no image", digest
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"it cannot be decoded: {error}", digest
    return "" if _opencv_reads(file) else "it cannot be decoded by OpenCV", digest  # stricter about check sums


def read_image(file: str | Path, channels: int = 3) -> np.ndarray:
    """Read an image as the stock data loader does; uint8 ``[H, W, C]``, three channels in the order blue, green, red.

    Raises:
        MissingFileError: if it cannot be read.
    """
    from ultralytics.utils.patches import imread

    flag = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)
    image = imread(str(file), flags=flag)
    if image is None:
        raise MissingFileError(f"{file} cannot be read")
    return image[..., None] if image.ndim == 2 else image


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """Resize the longer side of an image, uint8 ``[H, W, C]``, to so many pixels, as the stock data loader does."""
    height, width = image.shape[:2]
    ratio = side / max(height, width)
    if ratio == 1:
        return image
    size = [min(math.ceil(length * ratio), side) for length in (width, height)]
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return image[..., None] if image.ndim == 2 else image


@dataclass(frozen=True)
class Letterbox:
    """An image in the middle of a grey square of S by S pixels, as detection models are evaluated on it."""

    pixels: np.ndarray  # uint8 [C, S, S], three channels in the order red, green, blue
    resized: tuple[int, int]  # height and width of the image in the square
    corner: tuple[int, int]  # row and column of its first pixel


def letterbox(image: np.ndarray, side: int) -> Letterbox:
    """Resize an image, uint8 ``[H, W, C]``, and pad it to a square; the pixels are those of the stock data loader."""
    from ultralytics.data.augment import LetterBox

    image = resized(image, side)
    height, width = image.shape[:2]
    square = LetterBox(new_shape=(side, side), scaleup=False)(image=image)
    pixels = square[..., ::-1] if square.shape[2] == 3 else square
    top, left = (round((side - length) / 2 - 0.1) for length in (height, width))  # as LetterBox rounds it
    return Letterbox(np.ascontiguousarray(pixels.transpose(2, 0, 1)), (height, width), (top, left))


def _opencv_reads(file: Path) -> bool:
    try:
        return bool(read_image(file).size)
    except Exception:  # it tries other libraries, which may be missing, for what OpenCV cannot read
        return False


def _fingerprint(truth: Truth, digests: dict[Path, str]) -> str:
    listed = [(file.name, digests[file]) for file in truth.files]  # noise depends on the name
    return hashlib.sha256(json.dumps([listed, truth.coco], sort_keys=True).encode()).hexdigest()


def _first_reasons(skipped: dict[str, str]) -> str:
    reasons = [f"{file}: {reason}" for file, reason in list(skipped.items())[:3]]
    return "; ".join(reasons) + (f"; and {len(skipped) - 3} more" if len(skipped) > 3 else "")


def data_name(data: str) -> str:
    """Name of a data set: that of its YAML, or of the folder of one that is called data.yaml."""
    path = Path(data).absolute()
    return path.parent.name if path.stem == "data" else path.stem
