"""Temperature schedules: set before every training epoch, on the model and on its moving average.

A temperature is a plain attribute. As a buffer, the moving average would average it, and it would lag behind.
"""

from typing import Any

from torch import nn

from yolo_dyn.integration import compat
from yolo_dyn.layers.protocol import Annealed

Schedule = dict[str, float]  # {start, step} or {epochs}, see `layers.protocol.Annealed`


def temperature_at(schedule: Schedule, epoch: int) -> float:
    """Temperature in an epoch, counted from 0: from `start` by `step` an epoch to 1, or in `epochs` from 1 to 0."""
    if "epochs" in schedule:
        return max(0.0, 1 - (epoch + 1) / schedule["epochs"])
    return max(1.0, schedule["start"] - schedule["step"] * epoch)


def annealed(model: nn.Module) -> list[tuple[str, Annealed]]:
    """The layers of a model that have a schedule, with their names."""
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Annealed) and layer.anneal]


def set_temperatures(model: nn.Module, epoch: int) -> dict[str, float]:
    """Set the temperature of every layer with a schedule; return those that are set, by the kind of layer."""
    shown = {}
    for _, layer in annealed(model):
        assert layer.anneal is not None
        temperature = layer.temperature = temperature_at(layer.anneal, epoch)
        shown[type(layer).__name__] = temperature
    return shown


def copy_temperatures(source: nn.Module, target: nn.Module) -> None:
    """Give the layers of `target` the temperatures of the same layers of `source`: a state dict does not hold them."""
    known = dict(annealed(source))
    for name, layer in annealed(target):
        if name in known:
            layer.temperature = known[name].temperature


def on_train_epoch_start(trainer: Any) -> None:
    """Callback of Ultralytics' trainer; a resumed run goes on where its epoch is."""
    from ultralytics.utils import LOGGER

    shown = set_temperatures(compat.unwrap_model(trainer.model), trainer.epoch)
    if trainer.ema:
        set_temperatures(trainer.ema.ema, trainer.epoch)
    if shown and (trainer.epoch == trainer.start_epoch or any(t not in (0, 1) for t in shown.values())):
        LOGGER.info("temperature: " + ", ".join(f"{kind} {t:g}" for kind, t in sorted(shown.items())))
