"""Whether a model can be evaluated on a data set: found out before a long run, for checkpoints and exported models."""

from pathlib import Path

import torch
from ultralytics.nn.autobackend import AutoBackend

from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.errors import MissingFileError, YoloDynError
from yolo_dyn.integration import compat
from yolo_dyn.output.files import OPENCV


def check_model(model: str, images: EvaluationSet, imgsz: int) -> None:
    """Find out before a long run that a model does not fit.

    Raises:
        YoloDynError: if the file is missing, is no detection model, has other classes than the data set, or was
            exported for another image size.
    """
    backend = _backend(model)
    task = getattr(backend, "task", None) or getattr(getattr(backend, "model", None), "task", None) or "detect"
    if task != "detect":
        raise YoloDynError(f"model {model!r} is a {task} model; detection models can be evaluated")
    names = _names(backend)
    if names != images.names:
        raise YoloDynError(f"model {model!r} and {images.data} have other classes: {_clash(names, images.names)}")
    fixed = (
        None if compat.is_checkpoint(backend) or getattr(backend, "dynamic", False) else getattr(backend, "imgsz", None)
    )
    if fixed and list(fixed) != [imgsz] * 2:
        raise YoloDynError(f"model {model!r} was exported for images of {fixed[0]}x{fixed[1]}, and imgsz is {imgsz}")


def class_names(model: str) -> dict[int, str]:
    """Classes of a model.

    Raises:
        YoloDynError: if the file is missing or is no model.
    """
    return _names(_backend(model))


def _names(backend: AutoBackend) -> dict[int, str]:
    return {int(number): str(name) for number, name in backend.names.items()}


def _backend(model: str) -> AutoBackend:
    if not Path(model).exists():
        raise MissingFileError(f"model {model!r} does not exist")
    try:
        return AutoBackend(model, device=torch.device("cpu"), dnn=model.endswith(OPENCV), verbose=False)
    except Exception as error:  # as many kinds as there are formats
        raise YoloDynError(f"model {model!r} cannot be loaded: {error}") from error


def _clash(model: dict[int, str], data: dict[int, str]) -> str:
    if len(model) != len(data):
        return f"{len(model)} in the model, {len(data)} in the data"
    number = next(n for n in model if model[n] != data.get(n))
    return f"class {number} is {model[number]!r} in the model and {data.get(number)!r} in the data"
