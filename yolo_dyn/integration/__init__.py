"""The only place that touches Ultralytics' internals: it teaches an untouched Ultralytics our layers.

A few of its functions are wrapped where they are defined: `parser` wraps what builds models from YAML, which
`model_yaml` checks as a whole and `rows` row by row; `checkpoints` what finds and loads files, `counting` what fuses
and counts, `recipes` what checks arguments. `annealing`, `recipes` and `exporting` are callbacks of trainers and
exporters, `insertion` writes YAMLs with more rows, `precision` sets that of an opened OpenVINO file, `listing` finds
images as the data loader does. `api` asks Ultralytics through its public interface alone, for all others.

Elsewhere, classes of Ultralytics are only subclassed: `robustness.evaluate` its data set and its detection validator,
to corrupt images before they are resized.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolo_dyn import registry
from yolo_dyn.integration import annealing, checkpoints, counting, exporting, parser, recipes
from yolo_dyn.integration.counting import image_channels
from yolo_dyn.integration.versions import VALIDATED, excepthook, is_validated

__all__ = ["VALIDATED", "accept_arguments", "image_channels", "integrate"]


def integrate() -> None:
    """Teach the imported Ultralytics the registered layers. Calling it again changes nothing."""
    import ultralytics.nn.tasks as tasks
    from ultralytics.utils import checks, torch_utils

    _replace(tasks, "parse_model", parser.parse_model)
    _replace(checks, "check_file", checkpoints.check_file)
    _replace(tasks, "yaml_model_load", checkpoints.yaml_model_load)
    accept_arguments()
    _add_layers()
    if is_validated():
        _replace(tasks, "torch_safe_load", checkpoints.torch_safe_load)
        _replace(torch_utils, "get_flops", counting.get_flops)
        _replace(tasks.BaseModel, "load", checkpoints.load)
        _replace(tasks.BaseModel, "fuse", counting.fuse)
        _add_callbacks()


def accept_arguments() -> None:
    """Let the imported Ultralytics take our training arguments, which the stock command checks before all else."""
    cfg = importlib.import_module("ultralytics.cfg")  # just executed, it is no attribute of its package yet
    if is_validated():
        _replace(cfg, "check_dict_alignment", recipes.check_dict_alignment)
    if Path(sys.argv[0]).stem in ("yolo", "ultralytics"):
        sys.excepthook = excepthook


def _replace(owner: Any, name: str, wrap: Callable[[Callable], Callable]) -> None:
    """Wrap a stock function where it is defined and in every Ultralytics module that has imported it by name."""
    stock = getattr(owner, name)
    if hasattr(stock, "_yolo_dyn"):
        return
    wrapped = functools.wraps(stock)(wrap(stock))
    wrapped._yolo_dyn = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapped)
    for module in [module for key, module in sys.modules.items() if key.split(".")[0] == "ultralytics"]:
        if vars(module).get(name) is stock:
            setattr(module, name, wrapped)


def _add_layers() -> None:
    """Let ``from ultralytics.nn.modules import SGDM`` find our layers, but for a name that Ultralytics has."""
    import ultralytics.nn.modules as modules
    import ultralytics.nn.tasks as tasks

    for name, layer in registry.own_classes().items():
        if not any(vars(module).get(name, layer) is not layer for module in (modules, tasks)):
            setattr(modules, name, layer)
            setattr(tasks, name, layer)


def _add_callbacks() -> None:
    """Trainers and exporters start with a copy of these: from the command, Python, or processes of several GPUs."""
    from ultralytics.utils.callbacks.base import default_callbacks

    for callback in (annealing.on_train_epoch_start, recipes.on_train_epoch_start, exporting.on_export_start):
        if callback not in default_callbacks[callback.__name__]:
            default_callbacks[callback.__name__].append(callback)
