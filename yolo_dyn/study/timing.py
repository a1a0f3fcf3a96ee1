"""How long the arms of a study take, in turn: an image at inference, an epoch of training; alone on the machine."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from yolo_dyn.bench.timing import in_turn, inference_step, summary
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import compat
from yolo_dyn.integration.api import load_model
from yolo_dyn.output.environment import environment
from yolo_dyn.runs.read import read_run
from yolo_dyn.runs.tradeoff.scores import seconds_per_epoch
from yolo_dyn.study.columns import COLUMNS, TIMED
from yolo_dyn.study.definition import Study
from yolo_dyn.study.measure import Job
from yolo_dyn.study.networks import model_file
from yolo_dyn.study.records import TIMING, EpochTimes, ImageTimes, Timing, write_json

ROUNDS, EPOCH_ROUNDS = 40, 2


def time_arms(study: Study, arms: list[str], data: str, train: dict[str, Any], project: Path, out: Path) -> None:
    """Time what the study's columns ask for, the arms in turn, and write it to the folder of results."""
    timed = {column for column in study.columns if COLUMNS[column].kind == TIMED}
    of_images, of_epochs = timed & {"ms", "ratio"}, timed - {"ms", "ratio"}
    if of_epochs and not compat.keeps_seconds():
        raise YoloDynError("seconds=True needs Ultralytics 8.3.9 or newer, which keeps the seconds of epochs")
    jobs = [Job(study, arm, 0, data, train, project) for arm in arms]
    image = time_images(study, arms, project / "models") if of_images else None
    epoch = time_epochs(jobs) if of_epochs else None
    write_json(out / TIMING, Timing(image, epoch, environment()).as_dict())


def time_images(study: Study, arms: list[str], models: Path) -> ImageTimes:
    """Milliseconds of an image at batch 1 on a CPU, and the ratio to the base in turn; weights do not matter."""
    base = study.base or arms[0]
    names = [base, *(arm for arm in arms if arm != base)]
    steps: list[Callable[[], Any]] = [
        inference_step(load_model(model_file(study.arms[arm], arm, models)), study.imgsz, 1, "cpu") for arm in names
    ]
    reference, found = steps[0], {}
    for arm, step in zip(names, steps, strict=True):  # each beside the base, so that a slow minute favours none
        first, own = in_turn([reference, step], ROUNDS, 5, lambda: None)
        found[arm] = summary(arm, own if arm != base else first, first)
    return ImageTimes(
        f"an image of {study.imgsz} px at batch 1, fused, CPU, {torch.get_num_threads()} threads, in turn with "
        f"{base}, {ROUNDS} rounds",
        {arm: each.median_ms for arm, each in found.items()},
        {arm: each.ratio for arm, each in found.items()},
    )


def time_epochs(jobs: list[Job]) -> EpochTimes:
    """Seconds of an epoch with its validation, the second of two, since the first warms up; arms in turn."""
    found: dict[str, list[float]] = {job.arm: [] for job in jobs}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(EPOCH_ROUNDS):
            for job in jobs:
                run = Path(folder) / f"{job.arm}-{number}"
                job.train_into(run, epochs=2)
                found[job.arm].append(seconds_per_epoch(read_run(run)["time"]))
    return EpochTimes(
        f"seconds of the second of two epochs, median of {EPOCH_ROUNDS} runs, arms in turn",
        {arm: median(each) for arm, each in found.items()},
    )
