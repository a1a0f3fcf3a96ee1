"""Cells of a sweep: one model under one corruption at one strength, each kept in its own two files.

A cell is known by its identity: everything that decides its numbers, from the hash of the weights to the version of
torch. Its file name carries the identity's hash, so a changed model, data set or setting makes another cell, and cells
that do not belong together cannot be mixed.
"""

import contextlib
import functools
import hashlib
import json
import os
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.utils import LOGGER

from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.data.tasks import ObjectKind
from yolo_dyn.output.environment import processor
from yolo_dyn.output.files import write_json, write_text, written_whole
from yolo_dyn.robustness import objects, scores
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.diagnosis import Diagnosis, diagnose
from yolo_dyn.robustness.evaluate import Detections, Settings, detect
from yolo_dyn.robustness.fronts import Front
from yolo_dyn.robustness.fronts.registry import COLON
from yolo_dyn.robustness.records import CellRecord, Condition, FrontRecord

BEHIND = "+"  # between a model and its front, in a label


@dataclass(frozen=True)
class Cell:
    """One model under one condition, before anything is measured."""

    model: str  # file
    label: str  # of the model, in tables and pictures
    condition: Condition
    identity: dict[str, Any]
    front: str = ""  # that cleans each image before the model sees it

    @property
    def alone(self) -> str:
        """Label of the model without the front."""
        return self.label.removesuffix(f"{BEHIND}{self.front}")

    @property
    def name(self) -> str:
        """Name of its files, without suffix."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        strength = "" if self.condition.strength is None else f"_{self.condition.strength:.6g}"
        label = self.label.replace(COLON, "-") if self.front else self.label
        return f"{label}_{self.condition.kind}{strength}_{digest[:12]}"

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"{self.label}, {self.condition.title}"


@dataclass(frozen=True)
class Task:
    """A cell and what it takes to run it, in any process."""

    cell: Cell
    images: EvaluationSet
    settings: Settings
    resamples: int
    workers: int
    hashes: bool
    folder: str
    corrupter: Corrupter
    front: Front | None = None

    def on(self, device: str) -> "Task":
        """The same on another device, for a worker that knows its device by another name."""
        return replace(self, settings=replace(self.settings, device=device))

    def run(self, progress: Callable[[int], None] | None = None) -> "FinishedCell":
        """Detect, score and resample."""
        start = time.perf_counter()
        found = detect(
            self.cell.model,
            self.images,
            self.corrupter,
            self.settings,
            self.workers,
            self.hashes,
            progress,
            self.folder,
            self.front,
        )
        done = finished(self.cell, self.images, found, self.resamples)
        seconds = time.perf_counter() - start
        return replace(done, record=replace(done.record, seed=self.corrupter.seed, seconds=seconds))


@dataclass(frozen=True)
class FinishedCell:
    """What a cell came to."""

    cell: Cell
    record: CellRecord
    arrays: dict[str, np.ndarray]  # detections [n, 7], what they have beside their boxes, resampled [R, 2]
    hashes: dict[str, dict[str, str]]  # of each image's pixels


def finished(cell: Cell, images: EvaluationSet, found: Detections, resamples: int, engine: str = "") -> FinishedCell:
    """Score and resample what was detected, by an engine of `matching`."""
    start = time.perf_counter()
    result = scores.evaluate(images.coco, found.found, engine, images.kind, found.shapes)
    resampled = scores.resample(result, resamples)
    diagnosis = diagnose(images.coco, found.found, result.records)
    record = CellRecord(
        model=cell.label,
        path=cell.model,
        weights=cell.identity["weights"],
        condition=cell.condition,
        seed=0,
        images=len(images.files),
        skipped=len(images.skipped),
        detections=len(found.found),
        scores=result.scores,
        per_class=result.per_class,
        intervals=scores.interval(resampled, result.scores, result.images),
        ultralytics=found.ultralytics,
        milliseconds=found.milliseconds,
        pixels=_pixels(found.hashes) if found.hashes else {},
        seconds=time.perf_counter() - start,
        identity=cell.identity,
        front=FrontRecord(cell.front, cell.alone, found.front_milliseconds, processor()) if cell.front else None,
        diagnosis=diagnosis,
    )
    arrays = {"detections": found.found, **objects.packed(images.kind, found.shapes), "resampled": resampled}
    return FinishedCell(cell, record, arrays, found.hashes)


def _pixels(hashes: dict[str, dict[str, str]]) -> dict[str, str]:
    """One hash over all images for each that is taken of one."""
    kinds = ("decoded", "noise", "used")
    return {key: digest((Path(file).name, found[key]) for file, found in hashes.items()) for key in kinds}


def digest(hashes: Iterable[tuple[str, str]]) -> str:
    """One hash over all images, from (file name, hash of its pixels) in any order."""
    return hashlib.sha256(json.dumps(sorted(map(list, hashes))).encode()).hexdigest()


def save(folder: Path, done: FinishedCell) -> None:
    """Write a cell: each file appears at once and whole, the one that says that the cell is there comes last."""
    path = folder / done.cell.name
    if done.hashes:
        lines = [f"{Path(f).name},{h['decoded']},{h['noise']},{h['used']}" for f, h in sorted(done.hashes.items())]
        write_text(path.with_name(f"{path.name}_pixels.csv"), "\n".join(["image,decoded,noise,used", *lines, ""]))
    arrays = {**done.arrays, "detections": _compact(done.arrays["detections"])}
    with written_whole(path.with_name(f"{path.name}.npz")) as file, file.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    write_json(path.with_name(f"{path.name}.json"), done.record.as_dict())


def _compact(found: np.ndarray) -> np.ndarray:
    """The same numbers in single precision if they are of it, as all that a network gives; column after column."""
    with np.errstate(over="ignore"):
        single = np.asfortranarray(found, np.float32)
    return single if (single == found).all() else np.asfortranarray(found)


def load(folder: Path, cell: Cell) -> CellRecord | None:
    """The record of a finished cell, or None. A damaged one is set aside, and is then not finished."""
    path = folder / f"{cell.name}.json"
    record = _read(path) if path.is_file() else None
    if record is None or record.identity != cell.identity:
        return None
    if not _whole(path.with_suffix(".npz")):
        _set_aside(path, "its arrays are missing or damaged")
        return None
    return record


def _whole(archive: Path) -> bool:
    """Whether everything in an archive is as it was written; one that has not changed since is not read again."""
    try:
        state = archive.stat()
    except OSError:
        return False
    return _sound(archive.resolve(), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=10_000)  # of 27 MB each at the size of COCO
def _sound(archive: Path, changed: int, size: int) -> bool:
    """Whether the checksums of an archive are those of its content."""
    try:
        with zipfile.ZipFile(archive) as arrays:
            return arrays.testzip() is None
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return False


def _read(path: Path) -> CellRecord | None:
    try:
        return CellRecord.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _set_aside(path, repr(error))
        return None


def _set_aside(path: Path, reason: str) -> None:
    """A file that is no cell blocks nothing: it gets another name, and the cell is measured again."""
    aside = path.with_name(f"{path.name}.damaged")
    LOGGER.warning(f"{path} is no cell ({reason}): it is called {aside.name} now, and the cell is measured again")
    with contextlib.suppress(OSError):  # another process was first
        path.replace(aside)


def load_arrays(folder: Path, cell: Cell, *names: str) -> dict[str, np.ndarray]:
    """Detections, ``[n, 7]``, and resampled scores, ``[R, 2]``, of a finished cell; of these names alone if any."""
    with np.load(folder / f"{cell.name}.npz") as arrays:
        found = {name: arrays[name] for name in names or arrays.files}
    if "detections" in found:
        found["detections"] = np.ascontiguousarray(found["detections"], float)
    return found


def load_found(folder: Path, cell: Cell, kind: ObjectKind) -> tuple[np.ndarray, np.ndarray | None]:
    """Detections of a finished cell, ``[n, 7]``, and what they have beside their boxes, see `objects`.

    Raises:
        KeyError: if it keeps none.
    """
    arrays = load_arrays(folder, cell)
    return arrays["detections"], objects.unpacked(kind, arrays)


def of_other_models(folder: Path, cells: list[Cell]) -> list[Cell]:
    """Finished cells of other models in the folder, measured as these were and under all of their conditions."""
    labels = {cell.label: cell.identity["weights"] for cell in cells}
    asked = {cell.condition: _apart_from_model(cell.identity) for cell in cells}
    found: dict[tuple[str, str], dict[Condition, Cell]] = {}
    for path in sorted(folder.glob("*.json"), key=_modified):
        record = _read(path)
        if record is None or record.model in labels:
            continue
        if record.front and labels.get(record.front.model, record.weights) != record.weights:
            continue  # behind a front was what the model was before
        front = record.front.name if record.front else ""
        cell = Cell(record.path, record.model, record.condition, record.identity, front)
        if asked.get(cell.condition) == _apart_from_model(cell.identity) and load(folder, cell):
            found.setdefault((record.model, record.weights), {})[cell.condition] = cell
    whole = {label: own for (label, _), own in found.items() if own.keys() == asked.keys()}  # of one label the last
    return [cell for own in whole.values() for cell in own.values()]


def _apart_from_model(identity: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in identity.items() if key not in ("weights", "runtime", "front")}


def _modified(path: Path) -> float:
    with contextlib.suppress(OSError):  # another process set it aside
        return path.stat().st_mtime
    return 0.0


def _asked(condition: Condition) -> tuple[str, float | None, bool]:
    """As the user names it: the strength of a severity is part of the corruption's definition."""
    return condition.corruption, condition.severity or condition.strength, bool(condition.severity)


def changed(folder: Path, cells: list[Cell]) -> list[str]:
    """For cells that were finished here under another identity: what has changed since."""
    names = {cell.name for cell in cells}
    now = {(cell.label, *_asked(cell.condition)): cell.identity for cell in cells}
    changes: Counter[str] = Counter()
    for path in sorted(folder.glob("*.json")):
        if path.stem in names:
            continue
        earlier = _read(path)
        if earlier is None:
            continue
        identity = now.get((earlier.model, *_asked(earlier.condition)), {})
        keys = [key for key, value in identity.items() if earlier.identity.get(key) != value]
        changes.update([f"other {', '.join(keys)}"] if keys else [])
    return [f"{count} finished cells here are of {what} and are left aside" for what, count in changes.items()]


def add_diagnosis(folder: Path, cell: Cell, diagnosis: Diagnosis) -> None:
    """Write what goes wrong into a finished cell; of two that bear one label it stays the earlier or the later."""
    path, record = folder / f"{cell.name}.json", load(folder, cell)
    if record:
        times = path.stat()
        write_json(path, replace(record, diagnosis=diagnosis).as_dict())
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
