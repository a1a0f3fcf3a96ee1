"""Whether models can be evaluated on a data set: found out before a long run, for checkpoints and exported models."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ultralytics.nn.autobackend import AutoBackend

from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.data.tasks import TASKS
from yolo_dyn.errors import MissingFileError, YoloDynError
from yolo_dyn.integration import compat
from yolo_dyn.integration.api import check_has_weights
from yolo_dyn.output.files import OPENCV


@dataclass(frozen=True)
class Described:
    """What a model file says of itself."""

    task: str
    names: dict[int, str]
    imgsz: tuple[int, ...]  # height and width that it was exported for; empty if it takes any
    kpt_shape: tuple[int, int] | None  # of a pose


def common_task(models: Iterable[str]) -> str:
    """The task of all of these models.

    Raises:
        YoloDynError: if a file is missing or is no model, or one's task is another's or has no objects.
    """
    tasks = {model: described(model).task for model in models}
    for model, task in tasks.items():
        if task not in TASKS:
            raise YoloDynError(f"model {model!r} is a {task} model; accepted are {', '.join(TASKS)}")
    first, *others = tasks
    for model in others:
        if tasks[model] != tasks[first]:
            raise YoloDynError(
                f"models of different tasks cannot be compared: {first!r} is a {tasks[first]} model, "
                f"{model!r} a {tasks[model]} model"
            )
    return tasks[first]


def check_model(model: str, images: EvaluationSet, imgsz: int) -> None:
    """Find out before a long run that a model does not fit.

    Raises:
        YoloDynError: if the file is missing, is of another task or has other classes or keypoints than the data set,
            or was exported for another image size.
    """
    about, task = described(model), images.kind.task
    if about.task != task:
        accepted = "detection" if task == "detect" else task
        raise YoloDynError(f"model {model!r} is a {about.task} model; {accepted} models can be evaluated")
    if about.names != images.names:
        raise YoloDynError(f"model {model!r} and {images.data} have other classes: {_clash(about.names, images.names)}")
    if task == "pose" and about.kpt_shape != images.kind.kpt_shape:
        ours, theirs = (list(shape or ()) for shape in (about.kpt_shape, images.kind.kpt_shape))
        shapes = f"kpt_shape {ours} in the model, {theirs} in the data"
        raise YoloDynError(f"model {model!r} and {images.data} have other keypoints: {shapes}")
    if about.imgsz and about.imgsz != (imgsz, imgsz):
        size = f"{about.imgsz[0]}x{about.imgsz[1]}"
        raise YoloDynError(f"model {model!r} was exported for images of {size}, and imgsz is {imgsz}")


def described(model: str) -> Described:
    """What a model file says of itself.

    Raises:
        YoloDynError: if the file is missing or is no model, or is a model YAML.
    """
    check_has_weights(model)
    path = Path(model)
    if not path.exists():
        raise MissingFileError(f"model {model!r} does not exist")
    return _described(model, str(path.resolve()), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=100)
def _described(model: str, path: str, changed: int) -> Described:
    """Opened once for each state of the file."""
    backend: Any = _backend(model)
    inner: Any = getattr(backend, "model", None)
    task = getattr(backend, "task", None) or getattr(inner, "task", None) or "detect"
    head = inner.model[-1] if compat.is_checkpoint(backend) else None  # alone has it in a checkpoint of early versions
    shape = getattr(backend, "kpt_shape", None) or getattr(head, "kpt_shape", None)
    names = {int(number): str(name) for number, name in backend.names.items()}
    any_size = compat.is_checkpoint(backend) or getattr(backend, "dynamic", False)
    fixed = None if any_size else getattr(backend, "imgsz", None)
    keypoints = (int(shape[0]), int(shape[1])) if shape and task == "pose" else None
    return Described(task, names, tuple(fixed or ()), keypoints)


def _backend(model: str) -> AutoBackend:
    try:
        return AutoBackend(model, device=torch.device("cpu"), dnn=model.endswith(OPENCV), verbose=False)
    except Exception as error:  # as many kinds as there are formats
        raise YoloDynError(f"model {model!r} cannot be loaded: {error}") from error


def _clash(model: dict[int, str], data: dict[int, str]) -> str:
    if len(model) != len(data):
        return f"{len(model)} in the model, {len(data)} in the data"
    number = next(n for n in model if model[n] != data.get(n))
    return f"class {number} is {model[number]!r} in the model and {data.get(number)!r} in the data"
