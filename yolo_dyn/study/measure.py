"""One arm with one seed: train it with the stock trainer, and score it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_dyn.data.images import data_name
from yolo_dyn.errors import YoloDynError
from yolo_dyn.explain.experts import experts, has_experts
from yolo_dyn.integration.api import load_model
from yolo_dyn.output.environment import environment
from yolo_dyn.output.files import bundled_folder
from yolo_dyn.robustness.sweep import robustness
from yolo_dyn.robustness.training import noise_recipe
from yolo_dyn.runs.read import AP, TOP1, TOP5, read_arguments, read_run, training_images
from yolo_dyn.runs.repeat import train_once
from yolo_dyn.study.columns import OF_EXPERTS
from yolo_dyn.study.definition import Study
from yolo_dyn.study.networks import model_file
from yolo_dyn.study.records import RunRecord, Training, result_file


@dataclass(frozen=True)
class Job:
    """An arm and a seed of a study, and what it takes to run it in any process."""

    study: Study
    arm: str
    seed: int
    data: str
    train: dict[str, Any]  # arguments on the command line, which come last
    project: Path  # of trainings and sweeps
    device: str = ""

    @property
    def title(self) -> str:
        return f"{self.arm}, seed {self.seed}"

    def file(self, out: Path) -> Path:
        return result_file(out, self.arm, self.seed)

    def arguments(self) -> dict[str, Any]:
        """Arguments of the stock trainer: the study's, then the arm's, then the command line's."""
        return {**self.study.train, **self.study.arms[self.arm].train, **self.train, "seed": self.seed}

    def command(self) -> str:
        """The stock command that trains it."""
        arm, arguments = self.study.arms[self.arm], self.arguments()
        data = f"{data_name(self.data)}/{Path(self.data).name}" if self.study.task == "detect" else Path(self.data).name
        words = {"model": Path(model_file(arm, self.arm, self.project / "models")).name, "data": data, **arguments}
        if arm.noise:
            words["cfg"] = "gaussian-noise.yaml"  # written by `yolo-dyn noise-recipe`
        task = "" if self.study.task == "detect" else f" {self.study.task}"
        return f"yolo{task} train " + " ".join(f"{key}={value}" for key, value in words.items())

    def run(self, progress: Callable[[int], None] | None = None) -> RunRecord:
        """Train, from where it stopped if it was interrupted, and score."""
        run = self.project.absolute() / f"{self.arm}-seed{self.seed}"
        self.train_into(run)
        best = run / "weights" / "best.pt"
        net = load_model(str(best))
        scored = _classified if self.study.task == "classify" else _detected
        return RunRecord(
            arm=self.arm,
            what=self.study.arms[self.arm].what,
            seed=self.seed,
            command=self.command(),
            weights=hash_weights(net),
            parameters=sum(p.numel() for p in net.parameters()),
            training=_training(run, TOP1 if self.study.task == "classify" else AP),
            environment=environment() | {"device": _device(run)},
            **scored(self, run, best),
        )

    def train_into(self, run: Path, **changes: Any) -> None:
        """Train into a folder, with changes to the arguments; from where it stopped, if it was interrupted."""
        arm, arguments = self.study.arms[self.arm], {"data": self.data, **self.arguments(), **changes}
        if "cfg" in arguments:
            arguments["cfg"] = recipe(arguments["cfg"])
        if arm.noise:
            arguments["cfg"] = str(noise_recipe(out=str(self.project / "gaussian-noise.yaml")))
        if self.device:
            arguments["device"] = self.device
        train_once(run, model_file(arm, self.arm, self.project / "models"), arguments)


def hash_weights(net: nn.Module) -> str:
    """SHA-256 of names and values of all tensors: the same training gives the same, whereas its file holds the date."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def recipe(name: str) -> str:
    """A recipe by its path, or by the name of one that comes with the package.

    Raises:
        YoloDynError: if there is none.
    """
    bundled = bundled_folder("datasets") / "recipes"
    found = next((file for file in (Path(name), bundled / name) if file.is_file()), None)
    if found is None:
        known = ", ".join(sorted(file.name for file in bundled.glob("*.yaml")))
        raise YoloDynError(f"cfg={name} is no file and no recipe that comes with the package ({known})")
    return str(found)


def _detected(job: Job, run: Path, best: Path) -> dict[str, Any]:
    """The scores under each strength of noise, the clean one first."""
    sweep = robustness(
        [str(best)],
        job.data,
        job.study.sigmas or [0.0],
        split=job.study.split,
        imgsz=read_arguments(run)["imgsz"],
        device=job.device,
        name=run.name,
        project=str(job.project / "sweeps"),
    )
    return {
        "data": {
            "images": len(sweep.images.files),
            "fingerprint": sweep.images.fingerprint,
            "split": job.study.split,
        },
        "cells": [record.scores_alone() for record in sweep.records],
        "experts": _experts(job, run, best) if set(job.study.columns) & set(OF_EXPERTS) else {},
    }


def _experts(job: Job, run: Path, best: Path) -> dict[str, float]:
    """What a detector's experts do, in the mean over its layers; nothing of one without."""
    if not has_experts(load_model(str(best))):
        return {}
    found = experts(
        str(best),
        job.data,
        sorted({0.0, *job.study.sigmas}),
        split=job.study.split,
        frozen=False,
        imgsz=read_arguments(run)["imgsz"],
        device=job.device,
        name=run.name,
        project=str(job.project / "experts"),
    )
    return {column: value for column, value in found.means().items() if column in job.study.columns}


def _classified(job: Job, run: Path, best: Path) -> dict[str, Any]:
    """The accuracy of the best epoch."""
    columns = read_run(run)
    at = max(range(len(columns[TOP1])), key=columns[TOP1].__getitem__)
    return {
        "data": {"training_images": training_images(read_arguments(run))},
        "scores": {"top1": columns[TOP1][at], "top5": columns[TOP5][at]},
    }


def _training(run: Path, metric: str) -> Training:
    columns = read_run(run)
    best = max(range(len(columns[metric])), key=columns[metric].__getitem__)
    seconds = columns["time"][-1] if "time" in columns else None  # Ultralytics keeps them since 8.3.9
    return Training(len(columns[metric]), int(columns["epoch"][best]), seconds)


def _device(run: Path) -> str:
    device = read_arguments(run).get("device")
    return str(device) if device not in (None, "") else ("0" if torch.cuda.is_available() else "cpu")
