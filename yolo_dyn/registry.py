"""One table, YAML name -> layer. Registering a layer is all it takes to use it in a model YAML."""

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar, get_args, overload

from torch import nn

from yolo_dyn import layers
from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.layers.blocks import ConvNormAct
from yolo_dyn.layers.gate import Gated
from yolo_dyn.layers.protocol import declares_channels, folds_norm, is_fusible

ENTRY_POINT_GROUP = "yolo_dyn.layers"
Layer = TypeVar("Layer", bound=type[nn.Module])
Kind = Literal["convolution", "module", "network"]  # see `layers.protocol`


@dataclass(frozen=True)
class Entry:
    """A line of the table; a layer that is not imported yet is an entry point."""

    layer: type[nn.Module] | EntryPoint
    kind: Kind | None  # None until a layer of another package is imported


_BACKBONES = {  # they need other libraries
    "Feature": "yolo_dyn.backbones.feature",
    "TimmBackbone": "yolo_dyn.backbones.timm_backbone",
    "TorchvisionBackbone": "yolo_dyn.backbones.torchvision_backbone",
}
_KINDS: dict[Kind, tuple[str, ...]] = {
    "convolution": (
        "A2D2C",
        "A2D2CPlus",
        "CondConv",
        "DCD",
        "DynamicConv",
        "DynamicResidualConv",
        "FDConv",
        "FMDConv",
        "KWConv",
        "LDConv",
        "ODConv",
        "RFAConv",
    ),
    "module": ("CBAM", "CoordAtt", "RDConv", "SGDM"),
    "network": ("BneckLite", "Classifier", "DMFBlock", "DMFHead", "DMFStem", "Former", "GlobalTokens", *_BACKBONES),
}


def _own() -> Iterator[tuple[str, Entry]]:
    modules = {name: f"{layers.__name__}.{file}" for name, file in layers.FILES.items()} | _BACKBONES
    for kind, names in _KINDS.items():
        for name in names:
            yield name, Entry(EntryPoint(name, f"{modules[name]}:{name}", ENTRY_POINT_GROUP), kind)


OWN = dict(_own())
_TABLE = dict(OWN)


@overload
def register(layer: Layer, name: str | None = None, kind: Kind | None = None) -> Layer: ...
@overload
def register(
    layer: str | None = None, name: str | None = None, kind: Kind | None = None
) -> Callable[[Layer], Layer]: ...
def register(layer: type[nn.Module] | str | None = None, name: str | None = None, kind: Kind | None = None) -> Any:
    """Make an ``nn.Module`` class known under a YAML name, as a call or as a decorator.

    A row ``[from, repeats, Name, [c2, *args, {keyword: value}]]`` builds ``layer(c1, c2, *args, **keywords)``, where c1
    comes from the row's input and c2 is scaled by the model's width. What else a layer may do, and what the three kinds
    are, is written in `yolo_dyn.layers.protocol`.

    Args:
        layer: the class; or its YAML name, or nothing, if used as a decorator.
        name: the YAML name; the class's own name by default.
        kind: "convolution", "module" or "network". By default "network" for a class with a static method
            ``out_channels``, else "module".

    Returns:
        The class, unchanged.

    Raises:
        YoloDynError: if the name is taken by another class, `layer` is no ``nn.Module`` class, or it lacks what its
            kind must have.

    Examples:
        >>> from torch import nn
        >>> import yolo_dyn
        >>> @yolo_dyn.register(kind="convolution")
        ... class MyConv(nn.Conv2d): ...
        >>> yolo_dyn.register(MyConv, "MyOtherName", kind="convolution").__name__
        'MyConv'
    """
    if layer is None or isinstance(layer, str):
        return functools.partial(register, name=layer or name, kind=kind)
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise YoloDynError(f"register takes an nn.Module class, got {layer!r}")
    name = name or layer.__name__
    taken = _other_place(name, layer)
    if taken:
        raise YoloDynError(f"the layer name {name!r} is taken by {taken}")
    _TABLE[name] = Entry(layer, _checked_kind(layer, kind))
    return layer


def _checked_kind(layer: type[nn.Module], kind: Kind | None) -> Kind:
    if kind is None:
        return "network" if declares_channels(layer) else "module"
    if kind not in get_args(Kind):
        raise YoloDynError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if kind == "network" and not declares_channels(layer):
        raise YoloDynError(f"{layer.__name__} lacks the static method out_channels(in_channels, args) of a network")
    if kind == "convolution" and is_fusible(layer) and not folds_norm(layer):
        raise YoloDynError(f"{layer.__name__}.fuse must take guide=None and bn=None, as a convolution's does")
    return kind


def _other_place(name: str, layer: type[nn.Module]) -> str:
    """Who has the name; empty if it is free, or had by the same class: running a notebook's cell again is no clash."""
    entry = _TABLE.get(name)
    if entry is None:
        return ""
    place, found = _place(layer), _place(entry.layer)
    if isinstance(entry.layer, EntryPoint) and name not in OWN:  # what a package declares, its own modules may register
        return "" if found.split(".")[0] == place.split(".")[0] else found
    return "" if found == place else found


def _place(layer: type[nn.Module] | EntryPoint) -> str:
    if isinstance(layer, EntryPoint):
        return layer.value.replace(":", ".")
    return f"{layer.__module__}.{layer.__qualname__}"


def unregister(name: str) -> None:
    """Forget a layer that was registered before; this package's own stay.

    Raises:
        YoloDynError: if the name is unknown, or one of ours.
    """
    if name in OWN or name not in _TABLE:
        raise YoloDynError(f"unregister takes the name of a layer that was registered, got {name!r}")
    del _TABLE[name]


@functools.cache
def find_declared() -> None:
    """Add the layers that installed packages declare, once; they are imported when they are asked for.

    Raises:
        YoloDynError: if a package declares one of our names.
    """
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in OWN:
            raise YoloDynError(f"the layer name {point.name!r}, declared as {point.value!r}, is taken by yolo_dyn")
        _TABLE.setdefault(point.name, Entry(point, None))


def names(kind: Kind | None = None) -> list[str]:
    """All known YAML names, sorted; those of one kind, for which declared layers are imported."""
    find_declared()
    return sorted(_TABLE if kind is None else all_layers(kind))


def get(name: str) -> type[nn.Module] | None:
    """Return the layer of that YAML name, importing a declared one at first use; None if the name is unknown.

    Raises:
        YoloDynError: if a declared layer cannot be imported, or is no layer.
    """
    find_declared()
    entry = _TABLE.get(name)
    if entry is None:
        return None
    if not isinstance(entry.layer, EntryPoint):
        return entry.layer
    try:
        layer = entry.layer.load()
    except Exception as error:  # another package's import may fail in any way
        place = entry.layer.value
        raise YoloDynError(f"the layer {name!r}, declared as {place!r}, cannot be imported: {error}") from error
    if _TABLE[name] is entry:  # its module may have registered it, with its kind, when it was imported
        del _TABLE[name]
        try:
            register(layer, name, entry.kind)
        except YoloDynError:
            _TABLE[name] = entry
            raise
    return get(name)


def require(name: str, *kinds: Kind) -> type[nn.Module]:
    """Return the layer of that YAML name.

    Raises:
        YoloDynError: if the name is unknown, or of none of these kinds; with those that are accepted.
    """
    layer = get(name)
    if layer is None:
        raise YoloDynError(f"unknown layer {name!r}{nearest(str(name), names())} (known: {', '.join(names())})")
    if kinds and kind_of(layer) not in kinds:
        accepted = ", ".join(sorted(each for kind in kinds for each in names(kind)))
        raise YoloDynError(
            f"the layer {name!r} is a {kind_of(layer)}, not a {' or '.join(kinds)} (accepted: {accepted})"
        )
    return layer


def kind_of(layer: type[nn.Module]) -> Kind | None:
    """The kind that a class was registered as; None if it was not."""
    own = OWN.get(layer.__name__)
    if own and _place(own.layer) == _place(layer):  # it may have been imported from its file alone
        return own.kind
    return next((entry.kind for entry in _TABLE.values() if entry.layer is layer), None)


def all_layers(kind: Kind | None = None) -> dict[str, type[nn.Module]]:
    """Return the whole table, or what it has of one kind; declared layers are imported."""
    find_declared()
    found = {name: get(name) for name in sorted(_TABLE)}
    return {name: layer for name, layer in found.items() if layer and kind in (None, _TABLE[name].kind)}


def in_model(model: nn.Module) -> list[nn.Module]:
    """The registered layers of a model, an outer one before those inside it."""
    find_declared()
    files = {name: _place(entry.layer).rpartition(".")[0] for name, entry in OWN.items()}
    absent = {name for name, file in files.items() if file not in sys.modules}  # no model can have those
    found = (get(name) for name in sorted(_TABLE.keys() - absent))
    classes = (*filter(None, found), ConvNormAct, Gated)
    return [module for module in model.modules() if isinstance(module, classes)]
