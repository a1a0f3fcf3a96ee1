"""Arguments of our own, which a recipe file, the command line, `model.train` or `model.export` give like any other.

Those of a training lie among the trainer's: they are written to args.yaml and to checkpoints, resumed from them, and
reach the processes of several GPUs. Ultralytics' own arguments are checked by its own code.
"""

import functools
import math
import random
import sys
from collections.abc import Callable
from typing import Any

from torch.nn import functional as F

from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import compat
from yolo_dyn.layers.drop_path import check_drop_path, spread_drop_path
from yolo_dyn.layers.functional import PER_SAMPLE_FORMS

ARGUMENTS = ("lr_steps", "drop_path", "ema_decay", "image_sizes")


def check_dict_alignment(stock: Callable) -> Callable:
    """Wrap the stock check of names: ours are checked here, and known to it."""

    def check_dict_alignment(base: dict[str, Any], custom: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        if "lr0" in base:  # arguments of a mode, not Ultralytics' settings
            check_arguments(custom)
            compat.accept_augmentations(custom)
            base = {**dict.fromkeys((*ARGUMENTS, "augmentations", "form")), **base}
        stock(base, custom, *args, **kwargs)

    return check_dict_alignment


def check_arguments(given: dict[str, Any]) -> None:
    """Raise YoloDynError for a wrong value of one of our arguments; None leaves it out."""
    file = given.get("cfg") or next((word[4:] for word in sys.argv[1:] if word.startswith("cfg=")), None)
    where = f" (cfg={file})" if file else ""
    steps, rate = given.get("lr_steps"), given.get("drop_path")
    if steps is not None and not (isinstance(steps, dict) and steps and all(map(_is_step, steps.items()))):
        raise YoloDynError(
            f"lr_steps{where} must map epochs of at least 1 to factors above 0, {{30: 0.1, 60: 0.1}}, got {steps!r}"
        )
    if steps is not None and given.get("cos_lr"):
        raise YoloDynError(f"lr_steps{where} and cos_lr exclude each other: set lr_steps=None or cos_lr=False")
    if rate is not None:
        try:
            check_drop_path(rate)
        except ValueError as error:
            raise YoloDynError(f"{error}{where}") from error
    decay, sizes = given.get("ema_decay"), given.get("image_sizes")
    if decay is not None and not (type(decay) is float and 0 < decay < 1):
        raise YoloDynError(f"ema_decay{where} must lie between 0 and 1, got {decay!r}")
    form, mode = given.get("form"), given.get("mode", "export")
    if form is not None and (form not in PER_SAMPLE_FORMS or mode != "export"):
        raise YoloDynError(
            f"form{where} is for exports, and is one of {', '.join(PER_SAMPLE_FORMS)}; got {form!r} for {mode}"
        )
    if sizes is not None and not (isinstance(sizes, list) and sizes and all(map(_is_size, sizes))):
        raise YoloDynError(f"image_sizes{where} must list pixels of at least 32, [160, 192, 224], got {sizes!r}")


def _is_size(size: Any) -> bool:
    return type(size) is int and size >= 32


def _is_step(step: tuple[Any, Any]) -> bool:
    epoch, factor = step
    return type(epoch) is int and epoch >= 1 and type(factor) in (int, float) and 0 < factor < math.inf


def factor_at(steps: dict[int, float], epoch: int) -> float:
    """What the initial learning rate is multiplied by in an epoch, counted from 0: all factors up to this epoch."""
    return math.prod(factor for start, factor in steps.items() if start <= epoch)


def rescaled(stock: Callable, sizes: list[int], batch: dict[str, Any]) -> dict[str, Any]:
    """The stock preparation of a batch of images, ``[B, C, H, W]``; then all of them at one of the sizes, at random."""
    batch, size = stock(batch), random.choice(sizes)
    batch["img"] = F.interpolate(batch["img"], (size, size), mode="bilinear", antialias=True)
    return batch


def averaged_to(stock: Callable[[float], float], decay: float, updates: float) -> float:
    """The stock decay of the average of the weights after so many updates, which rises to another limit."""
    return decay * stock(updates) / stock(math.inf)


def on_pretrain_routine_start(trainer: Any) -> None:
    """Callback of Ultralytics' trainer before it reads its data; arguments of a resumed run are not checked anew."""
    compat.accept_augmentations()
    compat.orthogonalise_matrices_alone(trainer)


def on_train_epoch_start(trainer: Any) -> None:
    """Callback of Ultralytics' trainer, before it sets the learning rates; a resumed run goes on where its epoch is."""
    steps = getattr(trainer.args, "lr_steps", None)
    if steps:
        trainer.lf = functools.partial(factor_at, steps)  # the warm-up rises to it
        trainer.scheduler.lr_lambdas = [trainer.lf] * len(trainer.scheduler.lr_lambdas)
    rate = getattr(trainer.args, "drop_path", None)
    if rate is not None and not spread_drop_path(trainer.model, rate):
        raise YoloDynError(f"drop_path={rate}: no layer of {trainer.args.model} has stochastic depth")
    decay, sizes = (getattr(trainer.args, name, None) for name in ("ema_decay", "image_sizes"))
    if decay is not None and trainer.ema:
        _wrap_once(trainer.ema, "decay", averaged_to, decay)
    if sizes is not None:
        if trainer.args.task != "classify":
            raise YoloDynError(f"image_sizes={sizes} is for classifiers: detectors have Ultralytics' multi_scale")
        _wrap_once(trainer, "preprocess_batch", rescaled, sizes)


def _wrap_once(owner: Any, name: str, wrap: Callable, *args: Any) -> None:
    """Wrap a function of a trainer, which starts epochs anew when memory runs out or numbers are lost."""
    stock = getattr(owner, name)
    if getattr(stock, "func", None) is not wrap:
        setattr(owner, name, functools.partial(wrap, stock, *args))
