"""Dynamic convolutions that start as the static ones in whose place they stand, when weights are transferred."""

import copy

from torch import nn
from ultralytics.utils import LOGGER

from yolo_dyn import registry
from yolo_dyn.errors import first_line
from yolo_dyn.layers.protocol import StartsFromStatic


def start_from_static(source: nn.Module, target: nn.Module) -> tuple[list[str], dict[str, str]]:
    """Start the dynamic convolutions of a model as the static ones that stand in their places in another.

    Returns:
        Names of those that have started so, and of those that cannot, with the reason.
    """
    static = {name: module for name, module in source.named_modules() if type(module) is nn.Conv2d}
    started: list[str] = []
    refused: dict[str, str] = {}
    for name, layer in target.named_modules():
        if name not in static or registry.kind_of(type(layer)) != "convolution":
            continue
        before = copy.deepcopy(layer.state_dict())
        try:
            if not isinstance(layer, StartsFromStatic):
                raise ValueError(f"{type(layer).__name__} cannot start from static weights")
            layer.start_from(static[name].weight.detach(), static[name].bias)
            started.append(name)
        except (RuntimeError, ValueError) as error:  # the first is torch's, of shapes
            target.get_submodule(name).load_state_dict(before)
            refused[name] = first_line(error)
    return started, refused


def log_start(started: list[str], refused: dict[str, str]) -> None:
    """Say what `start_from_static` has done, if there was anything to do."""
    if started:
        LOGGER.info(f"{len(started)} dynamic convolutions start as the static ones of the checkpoint")
    if refused:
        name, reason = next(iter(refused.items()))
        LOGGER.info(f"{len(refused)} dynamic convolutions start at random: {name}: {reason}")
