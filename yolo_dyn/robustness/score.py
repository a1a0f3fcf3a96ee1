"""`yolo-dyn score`: any detector's COCO json, with the same scores, intervals and report, and without its model."""

import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from ultralytics.utils import LOGGER, TQDM

from yolo_dyn.data.coco_json import read_coco
from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.data.truth import coco_dataset
from yolo_dyn.errors import MissingFileError, YoloDynError
from yolo_dyn.output.arguments import FileName, Names, Pictures, Positive, checked
from yolo_dyn.output.environment import versions
from yolo_dyn.output.files import hash_file, results_folder, writable
from yolo_dyn.output.labels import model_labels
from yolo_dyn.robustness import cells as store
from yolo_dyn.robustness.cells import Cell, finished
from yolo_dyn.robustness.corrupted_set import TRUTH
from yolo_dyn.robustness.corruptions import GAUSSIAN, find
from yolo_dyn.robustness.evaluate import Detections
from yolo_dyn.robustness.matching import engine as find_engine
from yolo_dyn.robustness.records import CLEAN, Condition
from yolo_dyn.robustness.rediagnosis import diagnosed
from yolo_dyn.robustness.report import write
from yolo_dyn.robustness.results import Sweep
from yolo_dyn.robustness.sweep import typed

DECIDING = ("yolo-dyn", "pycocotools")  # whose versions decide scores
Ids = dict[Any, int]  # of a file -> ours


@checked
def score(
    truth: FileName,
    detections: Names,
    resamples: Positive = 1000,
    engine: str = "",
    pictures: Pictures | None = None,
    name: str = "",
    project: str = "runs/score",
) -> Sweep:
    """Score detections of any framework, in COCO's format, as `robustness` scores those of a model.

    Args:
        truth: COCO json of the ground truth, such as `annotations.json` of `yolo-dyn corrupt`.
        detections: for each detector a COCO json of what it found in the clean images, or a folder of them, one for
            each condition, named as `yolo-dyn corrupt` names its folders: clean.json, gaussian_noise_sigma25.json,
            fog_severity3.json.
        resamples: of the images, for the intervals.
        engine: "hotcoco" or "pycocotools", which give the same numbers, the second slowly; by default hotcoco.
        pictures: formats of the pictures that lie beside the page, png (by default), pdf, svg.
        name: of the folder for the results, inside `project`; that of the truth's file if it is empty, of its folder
            for annotations.json.
        project: folder of all such folders.

    Returns:
        All cells with what follows from them, as in results.json.

    Raises:
        YoloDynError: if something does not fit, before anything is scored.
    """
    if engine:
        find_engine(engine)
    labels = model_labels(detections)
    files = {label: json_files(Path(given)) for label, given in labels.items()}
    images, image_ids, class_ids = read_truth(Path(truth))
    folder = writable(results_folder(project, name or _name(Path(truth))))
    common = {"images": images.fingerprint, "resamples": resamples, "versions": versions(DECIDING)}
    by = {"engine": engine} if engine else {}  # scored by that one, though another has given the same numbers
    cells = []
    for condition in sorted({c for found in files.values() for c in found}, key=_order):
        for label, found in files.items():
            if condition in found:
                identity = {"weights": hash_file(found[condition]), **common, **by}
                cells.append(Cell(str(found[condition]), label, condition, identity))
    for line in images.log():
        LOGGER.info(line)
    missing = [cell for cell in cells if store.load(folder / "cells", cell) is None]
    for cell in TQDM(missing, desc=f"{len(missing)} cells", unit="cells"):
        detected = Detections(read_detections(Path(cell.model), image_ids, class_ids), {}, {}, {})
        store.save(folder / "cells", finished(cell, images, detected, resamples, engine))
    sweep = diagnosed(Sweep.read(folder, cells, images, {"resamples": resamples}, typed()))
    write(sweep, pictures or ["png"], images=False)
    return sweep


def _name(truth: Path) -> str:
    return truth.absolute().parent.name if truth.name == TRUTH else truth.stem


def json_files(given: Path) -> dict[Condition, Path]:
    """The file of each condition.

    Raises:
        YoloDynError: if there is none, or one is named after no condition.
    """
    if given.is_file():
        return {Condition(CLEAN): given}
    if not given.is_dir():
        raise MissingFileError(f"detections={given} does not exist")
    found = {_condition(path): path for path in sorted(given.glob("*.json"))}
    if not found:
        raise YoloDynError(f"detections={given} has no .json, such as clean.json or gaussian_noise_sigma25.json")
    return found


def _condition(path: Path) -> Condition:
    """What a file's name says was done to the images."""
    named = re.fullmatch(r"(?P<corruption>\w+)_(?P<kind>sigma|severity)(?P<strength>[\d.]+)", path.stem)
    if path.stem == CLEAN:
        return Condition(CLEAN)
    if named and named["kind"] == "severity" and re.fullmatch("[1-5]", named["strength"]):
        severity = int(named["strength"])
        corruption = find(named["corruption"])
        return Condition(corruption.name, corruption.at(severity), severity)
    if named and named["corruption"] == GAUSSIAN and re.fullmatch(r"\d+(\.\d+)?", named["strength"]):
        return Condition(GAUSSIAN, float(named["strength"]))
    accepted = f"clean, {GAUSSIAN}_sigma25 or fog_severity3"
    raise YoloDynError(f"{path}: the name must say the condition, such as {accepted}, got {path.stem!r}")


def _order(condition: Condition) -> tuple[bool, str, float]:
    return not condition.clean, condition.corruption, condition.strength or 0.0


def read_truth(path: Path) -> tuple[EvaluationSet, Ids, Ids]:
    """The ground truth, and the places of its image ids and category ids.

    Images are in the order of their ids, as pycocotools has them, and no box is left out.

    Raises:
        YoloDynError: if the file is missing or broken.
    """
    if not path.is_file():
        raise MissingFileError(f"truth={path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        listed = sorted(content["images"], key=lambda image: image["id"])
        names = [str(category["name"]) for category in content["categories"]]
        files = [Path(PurePosixPath(image["file_name"])) for image in listed]
        sizes = [(int(image.get("width", 0)), int(image.get("height", 0))) for image in listed]
        image_ids = {image["id"]: at for at, image in enumerate(listed)}
        class_ids = {category["id"]: at for at, category in enumerate(content["categories"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise YoloDynError(f"truth={path} is no COCO annotation file: {error!r}") from error
    for given in (names, [str(file) for file in files]):
        if twice := [each for each, times in Counter(given).items() if times > 1]:
            raise YoloDynError(f"truth={path}: two images or categories are called {twice[0]}")
    annotations = read_coco(files, dict(enumerate(names)), path)
    boxes = [found or [] for found in annotations.boxes]
    coco = coco_dataset(list(zip(files, sizes, boxes, strict=True)), dict(enumerate(names)))
    images = EvaluationSet(
        data=str(path),
        split="",
        names=dict(enumerate(names)),
        channels=3,
        files=files,
        coco=coco,
        source=annotations.source,
        skipped={},
        notes=annotations.notes,
        labelled=True,
        fingerprint=hash_file(path),
    )
    return images, image_ids, class_ids


def read_detections(path: Path, image_ids: Ids, class_ids: Ids) -> np.ndarray:
    """Detections of a COCO json, as `scores.evaluate` takes them, ``[n, 7]``.

    Raises:
        YoloDynError: naming the file and the detection that is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise YoloDynError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, list):
        raise YoloDynError(f"{path} must hold a list of detections, got {type(content).__name__}")
    rows = np.empty((len(content), 7))
    for number, detection in enumerate(content):
        rows[number] = _row(detection, image_ids, class_ids, f"{path}: detection {number}")
    wrong = ~np.isfinite(rows).all(1) | (rows[:, 3:5] < 0).any(1)
    if wrong.any():
        number = int(wrong.argmax())
        kept = {key: content[number][key] for key in ("bbox", "score")}
        raise YoloDynError(f"{path}: detection {number} must have finite numbers and no negative size, got {kept}")
    return rows


def _row(detection: Any, image_ids: Ids, class_ids: Ids, place: str) -> list[float]:
    try:
        image, category = image_ids.get(detection["image_id"]), class_ids.get(detection["category_id"])
        box, confidence = [float(value) for value in detection["bbox"]], float(detection["score"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        wanted = "image_id, category_id, bbox (four numbers) and score"
        raise YoloDynError(f"{place} must have {wanted}: {error!r}") from error
    if image is None or category is None:
        key = "image_id" if image is None else "category_id"
        raise YoloDynError(f"{place}: {key} {detection[key]!r} is not in the truth")
    if len(box) != 4:
        raise YoloDynError(f"{place}: bbox must be four numbers (left, top, width, height), got {detection['bbox']!r}")
    return [image, *box, confidence, category]
