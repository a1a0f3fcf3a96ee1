"""The backbones of detectors: with random weights, torchvision's, or those of a classifier that Ultralytics trained."""

from typing import Any

from torch import nn
from torchvision import models

from yolo_dyn.backbones import dmf_maps
from yolo_dyn.backbones.torchvision_backbone import TorchvisionBackbone
from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.integration.api import load_model

RESNETS = ("resnet", "resnext", "wide_resnet")


def names() -> list[str]:
    """The backbones that there are."""
    resnets = [name for name in models.list_models(module=models) if name.startswith(RESNETS)]
    return [*resnets, *dmf_maps.names()]


def is_checkpoint(weights: str | None) -> bool:
    """Whether weights are a file that Ultralytics trained; else they name weights of torchvision."""
    return str(weights).endswith(".pt")


def body(name: str, weights: str | None) -> nn.Module:
    """Build a backbone.

    Args:
        name: one of `names`.
        weights: a name of torchvision's, or a checkpoint (.pt) of ``yolo classify train``; none if it is empty.

    Returns:
        A `DMFMaps`, or the children of a ResNet up to its pooling; everything trains.

    Raises:
        YoloDynError: for an unknown name, and weights that cannot be had or belong to another backbone.
    """
    if name not in names():
        hint = nearest(str(name), names())
        raise YoloDynError(f"unknown backbone {name!r}{hint} (known: {', '.join(names())})")
    return _dmf(name, weights) if name in dmf_maps.names() else _resnet(name, weights)


def _dmf(name: str, weights: str | None) -> dmf_maps.DMFMaps:
    if not weights:
        return dmf_maps.build(name)
    if not is_checkpoint(weights):
        raise YoloDynError(f"there are no weights {weights!r} for {name}: give {_recipe(name)}, or none")
    model, raw = load_model(weights), dmf_maps.backbone_rows(name)
    if _raw_rows(model) != raw:
        raise YoloDynError(f"weights_backbone {weights!r} holds no {name}: give {_recipe(name)}")
    return dmf_maps.DMFMaps(_trainable(model)[: len(raw)])


def _resnet(name: str, weights: str | None) -> nn.Module:
    """All children of the network up to its pooling."""
    if not weights or not is_checkpoint(weights):
        return TorchvisionBackbone(3, name, weights=weights or "").layers
    model = load_model(weights)
    first = next(iter(_raw_rows(model)), None)
    if not first or first[2:3] != [TorchvisionBackbone.__name__] or first[3][:1] != [name]:
        raise YoloDynError(f"weights_backbone {weights!r} holds no {name}: give {_recipe(name)}")
    return _trainable(model)[0].layers  # type: ignore[return-value]


def _recipe(name: str) -> str:
    return f"the best.pt of `yolo classify train model={name}-cls.yaml`"


def _raw_rows(model: nn.Module) -> list[Any]:
    return (getattr(model, "yaml", None) or {}).get("backbone") or []


def _trainable(model: nn.Module) -> nn.Sequential:
    """The rows of a model out of a checkpoint, whose parameters come without gradients."""
    rows: Any = model.float().requires_grad_(True).train().model
    return rows
