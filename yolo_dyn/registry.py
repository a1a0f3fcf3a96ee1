"""One table, YAML name -> layer. Registering a layer is all it takes to use it in a model YAML."""

import functools
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar, overload

from torch import nn

from yolo_dyn import layers
from yolo_dyn.errors import YoloDynError
from yolo_dyn.layers.blocks import ConvNormAct

ENTRY_POINT_GROUP = "yolo_dyn.layers"
Layer = TypeVar("Layer", bound=type[nn.Module])

CONVOLUTIONS: tuple[type[nn.Module], ...] = (  # a row of a YAML adds BatchNorm and SiLU, as Ultralytics' Conv does
    layers.A2D2C,
    layers.A2D2CPlus,
    layers.CondConv,
    layers.DCD,
    layers.DynamicConv,
    layers.DynamicResidualConv,
    layers.FMDConv,
    layers.ODConv,
    layers.RFAConv,
)
MODULES: tuple[type[nn.Module], ...] = (layers.CBAM, layers.CoordAtt, layers.RDConv, layers.SGDM)
PARTS: tuple[type[nn.Module], ...] = (  # of whole networks: their rows take several inputs, or fixed channels
    layers.BneckLite,
    layers.Classifier,
    layers.DMFBlock,
    layers.DMFHead,
    layers.DMFStem,
    layers.Former,
    layers.GlobalTokens,
)
BACKBONES = {  # of other libraries, imported when they are asked for, like the layers that other packages declare
    "Feature": "yolo_dyn.backbones.feature:Feature",
    "TimmBackbone": "yolo_dyn.backbones.timm_backbone:TimmBackbone",
    "TorchvisionBackbone": "yolo_dyn.backbones.torchvision_backbone:TorchvisionBackbone",
}

_LAYERS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in (*CONVOLUTIONS, *MODULES, *PARTS)}


@overload
def register(layer: Layer, name: str | None = None) -> Layer: ...
@overload
def register(layer: str | None = None, name: str | None = None) -> Callable[[Layer], Layer]: ...
def register(layer: type[nn.Module] | str | None = None, name: str | None = None):
    """Make an ``nn.Module`` class known under a YAML name, as a call or as a decorator.

    A row ``[from, repeats, Name, [c2, *args, {keyword: value}]]`` builds ``layer(c1, c2, *args, **keywords)``, where c1
    comes from the row's input and c2 is scaled by the model's width. A class that declares
    ``out_channels(in_channels, args)`` as a static method may take several inputs: the row then builds
    ``layer(in_channels, *args, **keywords)``, with a list of channels where ``from`` is a list, and the method tells
    how many channels come out. A ``fuse()`` method is called once when the model is fused for inference.

    Args:
        layer: the class; or its YAML name, or nothing, where used as a decorator.
        name: the YAML name; the class's own name by default.

    Returns:
        The class, unchanged.

    Raises:
        YoloDynError: where the name is taken by another class, or `layer` is no ``nn.Module`` class.

    Examples:
        >>> @yolo_dyn.register
        ... class MyConv(nn.Conv2d): ...
        >>> yolo_dyn.register(MyConv, "MyOtherName")
    """
    if layer is None or isinstance(layer, str):
        return functools.partial(register, name=layer or name)
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise YoloDynError(f"register takes an nn.Module class, got {layer!r}")
    name = name or layer.__name__
    known = _LAYERS.get(name)
    redefined = known and (known.__module__, known.__qualname__) == (layer.__module__, layer.__qualname__)
    if known and not redefined:  # running a notebook cell again defines the same class anew, which is no clash
        raise YoloDynError(f"the layer name {name!r} is taken by {known.__module__}.{known.__qualname__}")
    _LAYERS[name] = layer
    return layer


@functools.cache
def _declared() -> dict[str, EntryPoint]:
    """Layers that this and installed packages declare; not imported until they are asked for.

    Raises:
        YoloDynError: where another package declares one of our names.
    """
    own = {name: EntryPoint(name, place, ENTRY_POINT_GROUP) for name, place in BACKBONES.items()}
    others = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    for name in own.keys() & others:
        raise YoloDynError(
            f"the layer name {name!r}, declared as {others[name].value!r}, is taken by {own[name].value}"
        )
    return own | others


def names() -> list[str]:
    """All known YAML names, sorted."""
    return sorted({*_LAYERS, *_declared()})


def get(name: str) -> type[nn.Module] | None:
    """Return the layer of that YAML name, importing a declared one at first use; None where the name is unknown.

    Raises:
        YoloDynError: where a declared layer cannot be imported, or clashes with a registered one.
    """
    if name not in _LAYERS and name in _declared():
        point = _declared()[name]
        try:
            layer = point.load()
        except Exception as error:  # another package's import may fail in any way
            raise YoloDynError(
                f"the layer {name!r}, declared as {point.value!r}, cannot be imported: {error}"
            ) from error
        register(layer, name)
    return _LAYERS.get(name)


def all_layers() -> dict[str, type[nn.Module]]:
    """Return the whole table, declared layers imported."""
    return {name: layer for name in names() if (layer := get(name)) is not None}


def in_model(model: nn.Module) -> list[nn.Module]:
    """The registered layers of a model, an outer one before those inside it."""
    kinds = (*all_layers().values(), ConvNormAct)
    return [module for module in model.modules() if isinstance(module, kinds)]
