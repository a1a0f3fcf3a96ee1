"""`yolo-dyn corrupt`: a corrupted split as files, so that any other framework sees the very same pixels."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import cv2
import yaml
from ultralytics.utils import LOGGER, TQDM

from yolo_dyn.data.images import EvaluationSet, evaluation_set, read_image
from yolo_dyn.data.tasks import TASKS
from yolo_dyn.data.truth import OFFICIAL
from yolo_dyn.data.yolo_txt import label_lines
from yolo_dyn.errors import YoloDynError
from yolo_dyn.output.arguments import Names, OneOf, OrDefault, Positive, Quality, Severities, Sigmas, checked
from yolo_dyn.output.environment import versions
from yolo_dyn.output.files import hash_file, writable, write_json, write_text, written_whole
from yolo_dyn.output.outcome import Written
from yolo_dyn.robustness.cells import digest
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.plan import chosen_conditions, made_by
from yolo_dyn.robustness.records import Condition

MANIFEST, TRUTH, CONDITION, PIXELS = "manifest.json", "annotations.json", "condition.json", "pixels.csv"
DECIDING = ("yolo-dyn", "opencv-python")  # whose versions decide pixels
FORMATS = ("png", "jpg")
Row = tuple[str, str, str, str]  # of pixels.csv: image, file written, SHA-256 of the pixels, SHA-256 of the file


@checked
def corrupt_set(
    data: str,
    out: str,
    sigma: Sigmas | None = None,
    severity: Severities | None = None,
    corruption: Names | None = None,
    seed: OrDefault = 0,
    split: str = "val",
    format: str = "png",
    quality: Quality = 95,
    jobs: Positive = 2,
    task: Annotated[str, OneOf(TASKS)] = "detect",
) -> Written:
    """Write a corrupted data set to disk: the pixels that `robustness` measures on, for any other framework.

    Each condition gets a folder with `images/`, YOLO `labels/`, a `data.yaml`, and `pixels.csv` with the SHA-256 of
    each image's pixels and of its file. Beside them lie `annotations.json`, the ground truth in COCO's format, and
    `manifest.json`. The same command again writes only what is missing, and another one adds its conditions.

    Args:
        data: an Ultralytics data YAML.
        out: folder to write to.
        sigma: standard deviations of Gaussian noise in grey levels; 0, 10, 20, 30, 40, 50 by default.
        severity: 1 to 5, in place of sigma.
        corruption: names, with severity, or groups (cococ, cococ-extra, noise, blur, weather, digital, sensor, codec);
            sensor_noise:camera.yaml takes a camera's parameters; gaussian_noise by default.
        seed: of the corruptions.
        split: "train", "val" or "test".
        format: "png", without loss, or "jpg".
        quality: of jpg, 1 to 100.
        jobs: images at a time.
        task: "detect", "segment", "pose" or "obb": what the labels say of each object.

    Returns:
        The manifest.

    Raises:
        YoloDynError: if something does not fit, or the folder holds a set of other images, seed or format.
    """
    if format not in FORMATS:
        raise YoloDynError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    conditions = chosen_conditions(sigma, severity, corruption)
    folder = writable(Path(out), "")
    images = evaluation_set(data, split, task=task)
    if images.channels not in (1, 3):
        raise YoloDynError(f"{data}: a {format} holds 1 or 3 channels, got channels: {images.channels}")
    for line in images.log():
        LOGGER.info(line)
    written = CorruptedSet(folder, images, seed, format, quality)
    written.begin()
    with TQDM(total=len(conditions) * len(images.files), desc=f"Writing to {folder}", unit="images") as bar:
        for condition in conditions:
            for _ in written.add(condition, jobs):
                bar.update()
    return written.end()


@dataclass(frozen=True)
class CorruptedSet:
    """A folder that holds the images of a set under several conditions."""

    folder: Path
    images: EvaluationSet
    seed: int
    format: str
    quality: int  # of jpg

    @cached_property
    def names(self) -> list[str]:
        """Of the files to write; numbered if two images have one name but for folder and suffix."""
        stems = [file.stem for file in self.images.files]
        alike = max(Counter(stems).values()) > 1
        return [f"{i:06d}_{stem}.{self.format}" if alike else f"{stem}.{self.format}" for i, stem in enumerate(stems)]

    @property
    def identity(self) -> dict[str, Any]:
        """What all conditions share, and decides pixels or files."""
        encoding = {"format": self.format, **({"quality": self.quality} if self.format == "jpg" else {})}
        return {
            **self.images.kind.as_dict(),
            "images": self.images.fingerprint,
            "seed": self.seed,
            **encoding,
            "versions": versions(DECIDING),
        }

    def begin(self) -> None:
        """Claim the folder, and write the ground truth.

        Raises:
            YoloDynError: if it holds another set.
        """
        path, identity = self.folder / MANIFEST, self.identity
        kept = _read(path).get("set", identity)
        for key, asked in identity.items():
            if kept.get(key) != asked:
                found = f"{path} is of another set ({key} {kept.get(key)}, not {asked})"
                raise YoloDynError(f"{found}; out=... names another folder")
        self.end()
        if self.images.labelled:
            listed = [
                {**image, "file_name": name, "original": image["file_name"]}
                for image, name in zip(self.images.coco["images"], self.names, strict=True)
            ]
            write_text(self.folder / TRUTH, json.dumps({**self.images.coco, "images": listed}) + "\n")

    def end(self) -> Written:
        """List all conditions in the manifest, those of other commands too."""
        found = {path.parent.name: _read(path) for path in sorted(self.folder.glob(f"*/{CONDITION}"))}
        described = {"data": self.images.data, "split": self.images.split, "skipped": self.images.skipped}
        path = self.folder / MANIFEST
        write_json(path, {**described, "set": self.identity, "conditions": found})
        return Written((path,), f"{len(found)} conditions of {len(self.images.files)} images, listed in {path}")

    def add(self, condition: Condition, jobs: int) -> Iterator[None]:
        """Write one condition, image by image; a file that is as it was written is left alone."""
        folder = self.folder / condition.slug
        record = {**asdict(condition), "made_by": made_by(condition, self.seed)}
        self._prepare(folder, record)
        kept, rows = _rows(folder / PIXELS), []
        corrupter, work = Corrupter.of(condition, self.seed), list(zip(self.images.files, self.names, strict=True))
        with (folder / PIXELS).open("a", newline="", encoding="utf-8") as stream, ThreadPoolExecutor(jobs) as pool:
            try:
                for row in pool.map(lambda each: self._image(each[0], each[1], folder, corrupter, kept), work):
                    rows.append(row)
                    csv.writer(stream).writerow(row)
                    stream.flush()  # a run that is killed has lost no more than the images in work
                    yield
            finally:
                pool.shutdown(cancel_futures=True)
        with written_whole(folder / PIXELS) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)
        write_json(folder / CONDITION, {**record, "pixels": digest((row[0], row[2]) for row in rows)})

    def _prepare(self, folder: Path, record: dict[str, Any]) -> None:
        """Folders, labels and data YAML of a condition."""
        for inside in ("images", "labels"):
            (folder / inside).mkdir(parents=True, exist_ok=True)
        before = _read(folder / CONDITION)
        if any(before.get(key) != value for key, value in record.items()):
            (folder / PIXELS).unlink(missing_ok=True)  # another version of the corruption has made them
            write_json(folder / CONDITION, record)
        description: dict[str, Any] = {"train": "images", "val": "images", "names": self.images.names}
        if self.images.channels != 3:
            description["channels"] = self.images.channels
        if self.images.kind.task == "pose":
            description["kpt_shape"] = list(self.images.kind.kpt_shape or ())
            description["kpt_oks_sigmas"] = list(self.images.kind.sigmas)
        if self.images.labelled:
            if self.images.kind.task in OFFICIAL:  # json holds no rotated boxes
                description["annotations"] = f"../{TRUTH}"
            for name, lines in zip(self.names, label_lines(self.images.coco, self.images.kind), strict=True):
                write_text(folder / "labels" / f"{Path(name).stem}.txt", "".join(lines))
        write_text(folder / "data.yaml", yaml.safe_dump(description, sort_keys=False))

    def _image(self, file: Path, name: str, folder: Path, corrupter: Corrupter, kept: dict[str, Row]) -> Row:
        """Write one image, unless it is there."""
        path = folder / "images" / name
        if name in kept and path.is_file() and hash_file(path) == kept[name][3]:
            return kept[name]
        pixels = corrupter(read_image(file, self.images.channels), file.name)
        options = [cv2.IMWRITE_JPEG_QUALITY, self.quality] if self.format == "jpg" else []
        encoded = cv2.imencode(f".{self.format}", pixels, options)[1].tobytes()
        with written_whole(path) as partial:
            partial.write_bytes(encoded)
        return file.name, name, hashlib.sha256(pixels.tobytes()).hexdigest(), hashlib.sha256(encoded).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """What a JSON file of ours says; nothing if it is missing.

    Raises:
        YoloDynError: if it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise YoloDynError(f"{path} cannot be read ({error}); out=... names another folder") from error
    if not isinstance(content, dict):
        raise YoloDynError(f"{path} holds no mapping, so it is not ours; out=... names another folder")
    return content


def _rows(path: Path) -> dict[str, Row]:
    """Rows that an earlier run has left, by the file written; the last may have been cut off."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {row[1]: (row[0], row[1], row[2], row[3]) for row in csv.reader(stream) if len(row) == 4}
