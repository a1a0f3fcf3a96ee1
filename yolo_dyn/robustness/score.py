"""`yolo-dyn score`: any detector's COCO json, with the same scores, intervals and report, and without its model."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from ultralytics.utils import LOGGER, TQDM

from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.errors import MissingFileError, YoloDynError
from yolo_dyn.output.arguments import FileName, Finite, Names, OneOf, Pictures, Positive, Some, checked
from yolo_dyn.output.environment import versions
from yolo_dyn.output.files import hash_file, results_folder, writable
from yolo_dyn.output.labels import model_labels
from yolo_dyn.robustness import cells as store
from yolo_dyn.robustness.cells import Cell, finished
from yolo_dyn.robustness.corrupted_set import MANIFEST, TRUTH
from yolo_dyn.robustness.corruptions import GAUSSIAN, find
from yolo_dyn.robustness.foreign import TASKS, read_detections, read_truth
from yolo_dyn.robustness.matching import engine as find_engine
from yolo_dyn.robustness.records import CLEAN, Condition
from yolo_dyn.robustness.rediagnosis import diagnosed
from yolo_dyn.robustness.report import write
from yolo_dyn.robustness.results import Sweep
from yolo_dyn.robustness.sweep import typed

DECIDING = ("yolo-dyn", "pycocotools")  # whose versions decide scores


@checked
def score(
    truth: FileName,
    detections: Names,
    resamples: Positive = 1000,
    engine: str = "",
    pictures: Pictures | None = None,
    name: str = "",
    project: str = "runs/score",
    task: Annotated[str, OneOf(TASKS)] = "detect",
    sigmas: Annotated[list[Finite], Some()] | None = None,
    source: str = "",
) -> Sweep:
    """Score detections of any framework, in COCO's format, as `robustness` scores those of a model.

    Args:
        truth: COCO json of the ground truth, such as `annotations.json` of `yolo-dyn corrupt`.
        detections: for each detector a COCO json of what it found in the clean images, or a folder of them, one for
            each condition, named as `yolo-dyn corrupt` names its folders: clean.json, gaussian_noise_sigma25.json,
            fog_severity3.json. What `task` adds stands beside each `bbox`, or in its place.
        resamples: of the images, for the intervals.
        engine: "hotcoco" or "pycocotools", which give the same numbers, the second slowly; by default hotcoco.
        pictures: formats of the pictures that lie beside the page, png (by default), pdf, svg.
        name: of the folder for the results, inside `project`; that of the truth's file if it is empty, of its folder
            for annotations.json.
        project: folder of all such folders.
        task: "detect", "segment" (by `segmentation`, run lengths or polygons) or "pose" (by `keypoints`).
        sigmas: of each keypoint, for OKS; by default COCO's for 17 keypoints, else one over their number.
        source: folder of the images, which the report then shows: that of `yolo-dyn corrupt`, or the clean images alone
            if nothing else was detected in. By default the truth's, if `yolo-dyn corrupt` wrote it.

    Returns:
        All cells with what follows from them, as in results.json.

    Raises:
        YoloDynError: if something does not fit, before anything is scored.
    """
    if engine:
        find_engine(engine)
    labels = model_labels(detections)
    files = {label: json_files(Path(given)) for label, given in labels.items()}
    asked = read_truth(Path(truth), task, sigmas)
    images = asked.images
    conditions = sorted({c for found in files.values() for c in found}, key=_order)
    seen = image_folders(source, Path(truth), images, conditions)
    folder = writable(results_folder(project, name or _name(Path(truth))))
    common = {"images": images.fingerprint, "resamples": resamples, "versions": versions(DECIDING)}
    common |= images.kind.as_dict()
    by = {"engine": engine} if engine else {}  # scored by that one, though another has given the same numbers
    cells = []
    for condition in conditions:
        for label, found in files.items():
            if condition in found:
                identity = {"weights": hash_file(found[condition]), **common, **by}
                cells.append(Cell(str(found[condition]), label, condition, identity))
    for line in images.log():
        LOGGER.info(line)
    missing = [cell for cell in cells if store.load(folder / "cells", cell) is None]
    for cell in TQDM(missing, desc=f"{len(missing)} cells", unit="cells"):
        detected = read_detections(Path(cell.model), asked)
        store.save(folder / "cells", finished(cell, images, detected, resamples, engine))
    sweep = replace(diagnosed(Sweep.read(folder, cells, images, {"resamples": resamples}, typed())), seen=seen)
    write(sweep, pictures or ["png"], images=bool(seen))
    return sweep


def _name(truth: Path) -> str:
    return truth.absolute().parent.name if truth.name == TRUTH else truth.stem


def image_folders(
    source: str, truth: Path, images: EvaluationSet, conditions: list[Condition]
) -> dict[Condition, Path]:
    """The folder of each condition's images, as the detectors saw them; none if nothing says where they are.

    Raises:
        YoloDynError: if the source that is named lacks one of them, or the truth does not say how large they are.
    """
    root = Path(source) if source else truth.parent
    if not source and not (root / MANIFEST).is_file():
        return {}
    folders = {condition: root / condition.slug / "images" for condition in conditions}
    clean = Condition(CLEAN)
    if clean in folders and not folders[clean].is_dir():
        folders[clean] = root
    needed = (folder / file for folder in folders.values() for file in images.files)
    lacking = next((file for file in needed if not file.is_file()), None)
    reason = f"{lacking} is missing" if lacking else ""
    if any(min(image["width"], image["height"]) < 1 for image in images.coco["images"]):
        reason = f"{truth} does not say how large each image is"
    if not reason:
        return folders
    if source:
        raise YoloDynError(f"source={source} cannot be shown: {reason}")
    LOGGER.info(f"the report shows no images: {reason}")
    return {}


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
