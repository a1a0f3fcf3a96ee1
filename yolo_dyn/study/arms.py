"""The study: does SGDM help under noise? Its arms, and one small result file for each arm and seed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yolo_dyn.deploy.latency import in_turn, inference_step, summary
from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.files import hash_file, written_whole
from yolo_dyn.robustness.plan import SIGMAS
from yolo_dyn.robustness.results import data_name, environment
from yolo_dyn.robustness.scores import SCORES
from yolo_dyn.robustness.sweep import robustness
from yolo_dyn.robustness.training import noise_recipe
from yolo_dyn.stock import load_model
from yolo_dyn.study.repeat import train_once
from yolo_dyn.study.runs import AP, read_run

IMGSZ = 320
RECIPE: dict[str, Any] = {"imgsz": IMGSZ, "epochs": 60, "batch": 16}
BASE = "yolov8n"
CELL = ("corruption", "sigma", "seed", "images", "skipped", "detections")
KEPT = (*CELL, *SCORES, "per_class", "intervals", "ultralytics")  # of a cell


@dataclass(frozen=True)
class Arm:
    """What is trained, and with which seeds."""

    model: str
    what: str
    seeds: tuple[int, ...] = (0,)
    noise: bool = False  # trained with noise


EIGHT = tuple(range(8))
ARMS = {
    "yolov8n": Arm("yolov8n.yaml", "the stock model", EIGHT),
    "sgdm": Arm("yolov8n-sgdm.yaml", "with SGDM before P3 to P5", EIGHT),
    "sgdm-average": Arm("yolov8n-sgdm-average.yaml", "SGDM with an averaged guide", EIGHT),
    "unguided": Arm("yolov8n-sgdm-unguided.yaml", "SGDM with its guide switched off", EIGHT),
    "wide": Arm("yolov8n-wide.yaml", "the stock model with a wider neck, as many parameters as SGDM", (0, 1, 2)),
    "cbam": Arm("yolov8n-cbam.yaml", "CBAM in SGDM's place"),
    "coordatt": Arm("yolov8n-coordatt.yaml", "CoordAtt in SGDM's place"),
    "rfaconv": Arm("yolov8n-rfaconv.yaml", "RFAConv in SGDM's place"),
    "sgdm-odconv": Arm("yolov8n-sgdm-odconv.yaml", "SGDM with ODConv in RDConv's place"),
    "sgdm-dynamicconv": Arm("yolov8n-sgdm-dynamicconv.yaml", "SGDM with DynamicConv in RDConv's place"),
    "sgdm-condconv": Arm("yolov8n-sgdm-condconv.yaml", "SGDM with CondConv in RDConv's place"),
    "sgdm-dcd": Arm("yolov8n-sgdm-dcd.yaml", "SGDM with DCD in RDConv's place"),
    "yolov8n-noise": Arm("yolov8n.yaml", "the stock model, trained with noise", (0, 1, 2), noise=True),
    "sgdm-noise": Arm("yolov8n-sgdm.yaml", "SGDM, trained with noise", (0, 1, 2), noise=True),
    "sgdm-average-noise": Arm(
        "yolov8n-sgdm-average.yaml", "SGDM with an averaged guide, trained with noise", noise=True
    ),
    "yolov5n": Arm("yolov5n.yaml", "stock YOLOv5n"),
    "yolov5n-sgdm": Arm("yolov5n-sgdm.yaml", "YOLOv5n with SGDM"),
    "yolov5n-sgdm-average": Arm("yolov5n-sgdm-average.yaml", "YOLOv5n with SGDM with an averaged guide"),
}


def study(
    data: str,
    arms: list[str] | None = None,
    seeds: list[int] | None = None,
    runs: str = "runs/study",
    out: str = "docs/results",
    device: str = "",
) -> str:
    """Run what is missing of the study, one training after another; each ends in one small file.

    Args:
        data: data YAML of BCCD, with the splits train, val (for the best checkpoint) and test (for every number).
        arms: names; all where nothing is given.
        seeds: of these arms; each arm's own where nothing is given.
        runs: folder for trainings and sweeps. An interrupted training goes on from there.
        out: folder of the result files.
        device: torch device of the training; as Ultralytics chooses where it is empty.

    Returns:
        What is there.

    Raises:
        YoloDynError: for an unknown arm, or a run in the folder that has other arguments.
    """
    for name in arms or ():
        if name not in ARMS:
            raise YoloDynError(f"unknown arm {name!r}{nearest(name, ARMS)} (known: {', '.join(ARMS)})")
    wanted = [(name, seed) for name in arms or ARMS for seed in seeds or ARMS[name].seeds]
    wanted.sort(key=lambda pair: pair[1])  # every arm once before any arm twice
    missing = [(name, seed) for name, seed in wanted if not result_file(out, name, seed).is_file()]
    for number, (name, seed) in enumerate(missing, 1):
        print(f"\n{name}, seed {seed}: {number} of {len(missing)} that are missing")
        result = one(name, seed, data, Path(runs), device)
        file = result_file(out, name, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as partial:
            partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{name}, seed {seed}: written to {file}")
    return f"{len(wanted)} results in {out}; `yolo-dyn results` writes the page"


def result_file(out: str | Path, name: str, seed: int) -> Path:
    return Path(out) / f"{name}-seed{seed}.json"


def one(name: str, seed: int, data: str, runs: Path, device: str = "") -> dict[str, Any]:
    """Train an arm with a seed, evaluate it under noise, and say what it costs."""
    arm = ARMS[name]
    run = runs.absolute() / f"{name}-seed{seed}"
    arguments: dict[str, Any] = {"data": data, **RECIPE, "seed": seed}
    command = f"yolo train model={arm.model} data={data_name(data)}/{Path(data).name} "
    if device:
        arguments["device"] = device
    if arm.noise:
        runs.mkdir(parents=True, exist_ok=True)
        arguments["cfg"] = noise_recipe(out=str(runs / "gaussian-noise.yaml"))
        command += "cfg=gaussian-noise.yaml "  # written by `yolo-dyn noise-recipe`
    train_once(run, arm.model, arguments)
    best = run / "weights" / "best.pt"
    sweeps = str(runs / "sweeps")
    sweep = robustness([str(best)], data, SIGMAS, split="test", imgsz=IMGSZ, name=run.name, project=sweeps)
    return {
        "arm": name,
        "what": arm.what,
        "seed": seed,
        "command": command + " ".join(f"{key}={value}" for key, value in {**RECIPE, "seed": seed}.items()),
        "weights": hash_file(best),
        "parameters": sum(p.numel() for p in load_model(str(best)).parameters()),
        "training": _training(run),
        "latency": latency(arm.model),
        "data": {"images": len(sweep.images.files), "fingerprint": sweep.images.fingerprint, "split": "test"},
        "environment": environment() | {"device": _device(run)},
        "cells": [{key: record[key] for key in KEPT if key in record} for record in sweep.records],
    }


def _training(run: Path) -> dict[str, Any]:
    columns = read_run(run)
    best = max(range(len(columns[AP])), key=columns[AP].__getitem__)
    return {"epochs": len(columns[AP]), "best_epoch": int(columns["epoch"][best]), "seconds": columns["time"][-1]}


def _device(run: Path) -> str:
    import yaml

    device = yaml.safe_load((run / "args.yaml").read_text(encoding="utf-8")).get("device")
    return str(device) if device not in (None, "") else ("0" if torch.cuda.is_available() else "cpu")


def latency(model: str) -> dict[str, Any]:
    """Time of an image at batch 1 beside that of the stock model, in turn, on a CPU; it does not depend on weights."""
    steps: list[Callable[[], Any]] = [
        inference_step(load_model(file), IMGSZ, 1, "cpu") for file in (ARMS[BASE].model, model)
    ]
    stock, mine = in_turn(steps, 40, 5, lambda: None)
    found = summary(model, mine, stock)
    return {
        "what": f"batch 1, {IMGSZ} px, 80 classes, fused, CPU, {torch.get_num_threads()} threads",
        "milliseconds": found["median_ms"],
        "ratio": found["ratio"],  # to BASE
    }
