"""What the rest of the package asks of Ultralytics, through its public interface, with our layers known to it."""

import inspect
import platform
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_dyn.errors import MissingFileError, YoloDynError, first_line
from yolo_dyn.integration import integrate
from yolo_dyn.output import files


def detection_heads() -> list[str]:
    """YAML names of Detect and its relatives: a layer can be inserted before each of their inputs."""
    import ultralytics.nn.tasks as tasks

    kinds = vars(tasks).items()
    return sorted(name for name, kind in kinds if inspect.isclass(kind) and issubclass(kind, tasks.Detect))


def stock_yaml(model: str) -> Path:
    """Find a model YAML, by bare name or path, with or without its scale letter."""
    from ultralytics.utils.checks import check_yaml

    integrate()
    if not files.is_yaml(model):
        raise YoloDynError(f"model must name a YAML file, got {model!r}")
    return Path(check_yaml(model, hard=False) or check_yaml(files.unscaled(model)))


def load_model(model: str, nc: int = 0) -> nn.Module:
    """Build a model from a YAML, or load it from a checkpoint, by bare name or path.

    Args:
        model: a YAML or a checkpoint.
        nc: classes of a model that is built from a YAML; those that the YAML says if it is 0.

    Raises:
        YoloDynError: if the file is missing or is neither, or classes are asked of a checkpoint.
    """
    from ultralytics import YOLO

    integrate()
    if files.is_yaml(model):
        try:
            net = YOLO(model).model
            return type(net)({**net.yaml, "nc": nc}, verbose=False) if nc else net
        except (YoloDynError, FileNotFoundError):
            raise
        except Exception as error:  # of a first forward, which tells the strides
            raise YoloDynError(f"{model} cannot be built: {type(error).__name__}: {first_line(error)}") from error
    if Path(model).suffix != ".pt":
        raise YoloDynError(f"model must be a .yaml or a .pt file, got {model!r}")
    if nc:
        raise YoloDynError(f"nc is for a model that is built from a YAML; {model} has its own classes")
    if not Path(model).is_file():
        raise MissingFileError(f"model {model!r} does not exist")
    return YOLO(model).model


def check_has_weights(model: str) -> None:
    """Check the name of a model that must be a trained one.

    Raises:
        YoloDynError: if it is a YAML, whose weights would be random.
    """
    if files.is_yaml(model):
        raise YoloDynError(f"model {model!r} is a YAML, without weights: train it, and name its .pt")


def check_trainable(model: str) -> None:
    """Check the name of a model that the stock trainer is to be given: it may download a checkpoint of a known name.

    Raises:
        YoloDynError: if it is neither a YAML that is there nor a checkpoint.
    """
    if files.is_yaml(model):
        stock_yaml(model)
    elif Path(model).suffix != ".pt" or not Path(model).stem:
        raise YoloDynError(f"model must be a .yaml or a .pt file, got {model!r}")


def dataset(data: str, download: bool = True) -> dict[str, Any]:
    """Read a data YAML, by bare name or path; draws or downloads the data set if it is missing and may be.

    Raises:
        YoloDynError: if Ultralytics cannot take it.
    """
    from ultralytics.data.utils import check_det_dataset

    integrate()
    try:
        return check_det_dataset(data, autodownload=download)
    except YoloDynError:
        raise
    except Exception as error:  # of many kinds
        raise YoloDynError(f"data={data}: {' '.join(str(error).split())}") from error


def train_args() -> Any:
    """Ultralytics' default training arguments, which its losses read."""
    from ultralytics.cfg import get_cfg

    return get_cfg()


def check_train_args(arguments: dict[str, Any]) -> None:
    """Check arguments of `yolo train` as the stock command does, before anything is made.

    Raises:
        YoloDynError: for an unknown one, or a value of a wrong kind.
    """
    from ultralytics.cfg import get_cfg
    from ultralytics.utils import LOGGER

    integrate()
    LOGGER.disabled = True  # it would print the help of the stock command
    try:
        get_cfg(overrides={**arguments, "mode": "train"})
    except YoloDynError:
        raise
    except (SyntaxError, TypeError, ValueError) as error:
        raise YoloDynError(f"arguments of yolo train: {first_line(error)}") from error
    finally:
        LOGGER.disabled = False


def chosen_device(device: str) -> str:
    """The device asked for, as Ultralytics names it; else the first GPU if there is one, else the CPU.

    Raises:
        YoloDynError: if torch cannot use it here.
    """
    device = str(device) or ("0" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=torch_device(device))
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        others = ["mps"] * torch.backends.mps.is_available() + list(map(str, range(gpus)))
        accepted = ", ".join(["cpu", *others])
        raise YoloDynError(
            f"device={device}: torch cannot use it here; accepted on this machine: {accepted}"
        ) from error
    return device


def torch_device(device: str) -> str:
    """What torch calls a device of Ultralytics, which counts GPUs."""
    return f"cuda:{device}" if device.isdecimal() else device


def machine_name(device: str) -> str:
    """The kind of processor, or the name of the GPU: what numbers depend on."""
    name = torch_device(device)
    return torch.cuda.get_device_name(name) if name.startswith("cuda") else platform.machine()


def chosen_threads(threads: int) -> int:
    """Torch's threads asked for; else as Ultralytics sets them."""
    from ultralytics.utils import NUM_THREADS

    return threads or NUM_THREADS
