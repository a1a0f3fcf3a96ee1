"""The only place that touches Ultralytics' internals: it teaches an untouched Ultralytics our layers.

A few of its functions are wrapped where they are defined: `parser` wraps what builds models from YAML, which
`model_yaml` checks as a whole and `rows` row by row; `checkpoints` what finds and loads files, `counting` what fuses
and counts, `recipes` what checks arguments. `annealing`, `recipes` and `exporting` are callbacks of trainers and
exporters, `insertion` puts layers into YAMLs (`places`, `replacing`) and checkpoints (`trained`, `warm_start`),
`precision` sets that of an opened OpenVINO file, `listing` finds images as the data loader does. `api` asks Ultralytics
through its public interface alone, for all others.

Elsewhere, classes of Ultralytics are only subclassed: `robustness.loading` its data set, to corrupt images before they
are resized, and `robustness.validators` its validators, to keep what they find.
"""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from yolo_dyn import layers
from yolo_dyn.errors import own_error
from yolo_dyn.integration import annealing, checkpoints, counting, exporting, parser, probes, recipes, workers
from yolo_dyn.integration.counting import image_channels

__all__ = ["accept_arguments", "image_channels", "integrate"]

# What is wrapped: where it is, how many arguments it is called with, and by what.
WRAPPED: tuple[tuple[str, int, Callable[[Callable], Callable]], ...] = (
    ("ultralytics.nn.tasks:parse_model", 3, parser.parse_model),
    ("ultralytics.nn.tasks:yaml_model_load", 1, checkpoints.yaml_model_load),
    ("ultralytics.nn.tasks:torch_safe_load", 1, checkpoints.torch_safe_load),
    ("ultralytics.nn.tasks:BaseModel.load", 2, checkpoints.load),
    ("ultralytics.nn.tasks:BaseModel.fuse", 1, counting.fuse),
    ("ultralytics.utils.torch_utils:get_flops", 2, counting.get_flops),
    ("ultralytics.utils.checks:check_file", 1, checkpoints.check_file),
    ("ultralytics.utils.dist:generate_ddp_file", 1, workers.generate_ddp_file),
)
OF_ARGUMENTS = ("ultralytics.cfg:check_dict_alignment", 2, recipes.check_dict_alignment)
CALLBACKS = (
    recipes.on_pretrain_routine_start,
    annealing.on_train_epoch_start,
    recipes.on_train_epoch_start,
    exporting.on_export_start,
)


def integrate() -> None:
    """Teach the imported Ultralytics the registered layers. Calling it again changes nothing.

    What cannot be wrapped is noted, and our layers are refused when they are asked for: nothing is raised here.
    """
    for place, arguments, wrap in WRAPPED:
        _wrap(place, arguments, wrap)
    accept_arguments()
    try:
        _add_callbacks()
    except Exception as error:
        probes.cannot_wrap("ultralytics.utils.callbacks.base:default_callbacks", error)
    if probes.complete():  # without our parser, the stock one would build them of arguments that are not theirs
        _add_layers()


def accept_arguments() -> None:
    """Let the imported Ultralytics take our training arguments, which the stock command checks before all else."""
    _wrap(*OF_ARGUMENTS)
    if Path(sys.argv[0]).stem in ("yolo", "ultralytics"):
        sys.excepthook = excepthook


def excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """In the stock command, show our errors as one line, without a traceback."""
    ours = own_error(error)
    if ours is not None:
        print(f"yolo-dyn: error: {ours}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _wrap(place: str, arguments: int, wrap: Callable[[Callable], Callable]) -> None:
    """Wrap the function of a place, ``module:function`` or ``module:Class.function``; note it if it cannot be."""
    file, _, name = place.partition(":")
    *of, name = name.split(".")
    try:
        owner = functools.reduce(getattr, of, importlib.import_module(file))
        inspect.signature(getattr(owner, name)).bind(*range(arguments))
        _replace(owner, name, wrap)
    except Exception as error:
        probes.cannot_wrap(place, error)


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

    for module, other in ((modules, tasks), (tasks, modules)):
        if not hasattr(vars(module).get("__getattr__"), "_yolo_dyn"):
            find = functools.partial(_find_layer, module, other, vars(module).get("__getattr__"))
            find._yolo_dyn = True  # type: ignore[attr-defined]
            module.__getattr__ = find


def _find_layer(module: ModuleType, other: ModuleType, stock: Callable[[str], Any] | None, name: str) -> Any:
    if name in layers.FILES and name not in vars(other):
        return getattr(layers, name)
    if stock is not None:
        return stock(name)
    raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")


def _add_callbacks() -> None:
    """Trainers and exporters start with a copy of these: from the command, Python, or processes of several GPUs."""
    from ultralytics.utils.callbacks.base import default_callbacks

    for callback in CALLBACKS:
        if callback not in default_callbacks[callback.__name__]:
            default_callbacks[callback.__name__].append(callback)


for _do in globals().get("postponed", []):  # what the start-up hook could not do while this was half imported
    _do()
