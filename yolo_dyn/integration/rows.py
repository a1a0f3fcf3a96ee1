"""One row of a model YAML: ``[from, repeats, Name, [c2, *args, {keyword: value}]]``, checked and built."""

import ast
import contextlib
import inspect
import itertools
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from yolo_dyn import registry
from yolo_dyn.conversion import replace_chosen
from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.layers.blocks import ConvNormAct
from yolo_dyn.layers.gate import GATES, Gated
from yolo_dyn.layers.protocol import declares_channels, options_of

CONV_ARGUMENTS = tuple(inspect.signature(nn.Conv2d).parameters)[:8]  # up to bias
Channels = int | list[int]  # of one map, or of each of several
SAME = "same"  # c2 of a row that keeps its input's channels
ALL, FIRST = "all_3x3", "first_3x3"  # which convolutions of a stock row a dynamic one replaces


@dataclass(frozen=True)
class Row:
    """A row that names a registered layer."""

    file: str  # the model YAML, for messages
    index: int  # counted through backbone and head, as in Ultralytics' own tables
    source: int | list[int]  # "from"
    repeats: int
    name: str
    args: list[Any]  # positional arguments, c2 first
    options: dict[str, Any]  # keyword arguments

    @classmethod
    def read(
        cls, raw: list[Any], index: int, file: str, nc: int | None, defaults: dict[str, Any] | None = None
    ) -> "Row":
        """Read a row of a YAML whose parts are checked; its own keyword arguments go before `defaults` of its layer.

        Raises:
            YoloDynError: naming the file, the row and what is wrong with it.
        """
        source, repeats, name, args = raw
        row = cls(file, index, source, repeats, name, [], {})
        *positional, last = [*args, None] if not (args and isinstance(args[-1], dict)) else args
        unnamed = [key for key in last or () if not isinstance(key, str)]
        if unnamed:
            raise row.error(f"the names of keyword arguments must be text, got {unnamed[0]!r}")
        row.args.extend(_value(arg, nc) for arg in positional)
        row.options.update({key: _value(value, nc) for key, value in {**(defaults or {}), **(last or {})}.items()})
        if row.declares_channels:
            if repeats != 1:
                raise row.error(f"repeats must be 1 for a layer that declares out_channels, got {repeats}")
            return row
        if isinstance(source, list):
            raise row.error(
                f"takes one input, got from {source}; only a class that declares out_channels takes several"
            )
        if not row.args or not (row.keeps_channels or (isinstance(row.args[0], int) and row.args[0] >= 1)):
            found = repr(row.args[0]) if row.args else "nothing"
            raise row.error(
                f"the first argument must be c2, the output channels, a positive integer or '{SAME}'; got {found}"
            )
        return row

    @property
    def layer(self) -> type[nn.Module]:
        return registry.require(self.name)

    @property
    def declares_channels(self) -> bool:
        """Whether the class tells its output channels itself, and so may take several inputs."""
        return declares_channels(self.layer)

    @property
    def keeps_channels(self) -> bool:
        """Whether it yields as many channels as it reads, whatever the width of the model makes of them."""
        return not self.declares_channels and self.args[:1] == [SAME]

    def error(self, message: str) -> YoloDynError:
        return YoloDynError(f"{self.file}, row {self.index} ({self.name}): {message}")

    def out_channels(self, in_channels: Channels) -> Channels:
        """Ask a class that declares it for its output channels; a list if the row yields several maps."""
        parameters = list(options_of(self.layer).values())[1:]
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        named = itertools.takewhile(self.options.__contains__, positional[len(self.args) :])
        try:
            c2 = self.layer.out_channels(  # type: ignore[attr-defined]
                in_channels, [*self.args, *(self.options[name] for name in named)]
            )
        except IndexError as error:
            accepted = ", ".join(p.name for p in parameters)
            raise self.error(f"arguments are missing in {self.args}; accepted: {accepted}") from error
        except (TypeError, ValueError) as error:
            raise self.error(str(error)) from error
        maps = c2 if isinstance(c2, list) else [c2]
        if not maps or not all(isinstance(c, int) and c > 0 for c in maps):
            raise self.error(f"out_channels must return a positive integer, or a list of them, got {c2!r}")
        return c2

    def build(self, in_channels: Channels, out_channels: int, repeats: int = 1) -> nn.Module:
        """Build the layer, `repeats` times in sequence: the first takes c1 -> c2 and the stride, the others keep both.

        Raises:
            YoloDynError: if the arguments do not fit the layer.
        """
        if self.declares_channels:
            return self._construct(False, in_channels, *self.args, **self.options)
        first = self._construct(False, in_channels, out_channels, *self.args[1:], **self.options)
        if repeats == 1:
            return first
        others = [
            self._construct(True, out_channels, out_channels, *self.args[1:], **self.options)
            for _ in range(repeats - 1)
        ]
        return nn.Sequential(first, *others)

    def _construct(self, unit_stride: bool, *args: Any, **options: Any) -> nn.Module:
        signature, hints = _signature(self.layer, options, self.error)
        gate = "none" if "gate" in signature.parameters else options.pop("gate", "none")  # a layer's own goes first
        try:
            bound = signature.bind(*args, **options)
        except TypeError as error:
            accepted = list(signature.parameters)[1 if self.declares_channels else 2 :]
            unknown = next((key for key in options if key not in signature.parameters), "")
            raise self.error(f"{error}; accepted: {', '.join(accepted)}{nearest(unknown, accepted)}") from error
        for stride in {"stride", "s"} & bound.arguments.keys() if unit_stride else ():
            bound.arguments[stride] = 1
        for name, value in list(bound.arguments.items()):
            if isinstance(value, list) and typing.get_origin(hints.get(name)) is not list:
                value = bound.arguments[name] = tuple(value)  # YAML knows no tuples
            if hints.get(name) == type[nn.Module] and not isinstance(value, type):
                bound.arguments[name] = layer_named(str(value), self.error)
            elif not _fits(value, hints.get(name)):
                raise self.error(f"{name} must be {_describe(hints[name])}, got {value!r}")
        self._check_gate(gate, bound.arguments)
        try:
            if registry.kind_of(self.layer) == "convolution":
                layer: nn.Module = ConvNormAct(self.layer, *bound.args, **bound.kwargs)
            else:
                layer = self.layer(*bound.args, **bound.kwargs)
            return layer if gate == "none" else Gated(layer, args[0], gate)
        except (RuntimeError, TypeError, ValueError) as error:  # the first is torch's, of too little memory
            raise self.error(str(error).strip().partition("\n")[0]) from error

    def _check_gate(self, gate: Any, arguments: dict[str, Any]) -> None:
        """Check what a row says of a gate, given all arguments of its layer."""
        if gate not in ("none", *GATES):
            raise self.error(f"gate must be one of none, {', '.join(GATES)}, got {gate!r}")
        if gate == "none":
            return
        if self.declares_channels:
            raise self.error("gate is for a convolution or a module, this is a network")
        c1, c2 = list(arguments.values())[:2]
        stride = arguments.get("stride", arguments.get("s", 1))
        if c1 != c2 or stride not in (1, (1, 1), [1, 1]):
            raise self.error(f"gate needs a layer that keeps the shape, got {c1} -> {c2} channels with stride {stride}")


@dataclass(frozen=True)
class StockRow:
    """A row of Ultralytics' own that ends in ``{dynamic: Name, ...}``: the layer replaces its k x k convolutions.

    With ``where: first_3x3`` it replaces the first one of each of its blocks alone.
    """

    file: str
    index: int
    name: str
    layer: type[nn.Module]
    where: str
    options: dict[str, Any]

    @classmethod
    def read(cls, raw: list[Any], index: int, file: str) -> "StockRow | None":
        """The row, or None if it does not ask for a dynamic layer."""
        args = raw[3] if raw[2] not in registry.names() else None
        if not (isinstance(args, list) and args and isinstance(args[-1], dict) and "dynamic" in args[-1]):
            return None
        options = {key: value for key, value in args[-1].items() if key not in ("dynamic", "where")}
        where = args[-1].get("where", ALL)

        def error(message: str) -> YoloDynError:
            return YoloDynError(f"{file}, row {index} ({raw[2]}): {message}")

        layer = layer_named(str(args[-1]["dynamic"]), error)
        if registry.kind_of(layer) != "convolution":
            known = ", ".join(registry.names("convolution"))
            raise error(f"dynamic must name a convolution ({known}), got {args[-1]['dynamic']}")
        if where not in (ALL, FIRST):
            raise error(f"where must be {ALL} or {FIRST}, got {where!r}")
        return cls(file, index, raw[2], layer, where, options)

    @property
    def options_text(self) -> str:
        where = {} if self.where == ALL else {"where": self.where}
        return str({"dynamic": self.layer.__name__, **where, **self.options})

    def convert(self, host: nn.Module) -> None:
        """Replace the convolutions of the built row, see `larger_convolutions`.

        Layers that share parameters with those of other rows are left to be sealed with the whole model.

        Raises:
            YoloDynError: if there are none, or the layer refuses an argument.
        """
        chosen = larger_convolutions(host, self.where)
        try:
            replace_chosen(host, self.layer, lambda name, module: name in chosen, **self.options)
        except YoloDynError as error:
            raise YoloDynError(f"{self.file}, row {self.index} ({self.name}): {error}") from error


def larger_convolutions(host: nn.Module, where: str = ALL) -> list[str]:
    """Names of a built row's convolutions that are larger than 1x1 and see all channels; of each block's first one."""
    found = [
        name
        for name, module in host.named_modules()
        if type(module) is nn.Conv2d and module.groups == 1 and max(module.kernel_size) > 1
    ]
    # a block holds a Conv, which holds its conv
    first = {name.rsplit(".", 2)[0]: name for name in reversed(found)}
    return found if where == ALL else [name for name in found if name in first.values()]


def layer_named(name: str, error: Callable[[str], YoloDynError]) -> type[nn.Module]:
    """Look up the layer that an argument of a row names."""
    try:
        return registry.require(name)
    except YoloDynError as cause:
        raise error(str(cause)) from cause


def _signature(
    layer: type[nn.Module], options: dict[str, Any], error: Callable[[str], YoloDynError]
) -> tuple[inspect.Signature, dict[str, Any]]:
    """What a row may give: the layer's arguments, with those that it passes on to its block or its dynamic layer."""
    parameters, hints = dict(options_of(layer)), typing.get_type_hints(layer.__init__)
    if registry.kind_of(layer) == "convolution":
        block = [p for p in options_of(ConvNormAct).values() if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "layer"]
        hints = {**typing.get_type_hints(ConvNormAct.__init__), **hints}
        return inspect.Signature([*block, *_own_options(layer)]), hints
    variable = [name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD]
    if variable and "dynamic" in parameters:
        del parameters[variable[0]]
        chosen = options.get("dynamic")
        dynamic = layer_named(chosen, error) if isinstance(chosen, str) else parameters["dynamic"].default
        parameters |= {p.name: p for p in _own_options(dynamic) if p.name not in parameters}
        hints = {**typing.get_type_hints(dynamic.__init__), **hints}
    return inspect.Signature(list(parameters.values())), hints


def _own_options(layer: type[nn.Module]) -> list[inspect.Parameter]:
    """A layer's options beyond the arguments of a convolution, by keyword."""
    own = [p for p in options_of(layer).values() if p.name not in CONV_ARGUMENTS]
    if registry.kind_of(layer) == "convolution":  # its options may stand after those arguments
        own = [p.replace(kind=p.KEYWORD_ONLY) if p.kind is p.POSITIONAL_OR_KEYWORD else p for p in own]
    return [p for p in own if p.kind is p.KEYWORD_ONLY]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from a YAML fits an annotation; plain types and tuples are judged, all else is let through."""
    options = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )
    if any(typing.get_origin(option) is tuple for option in options):
        if isinstance(value, tuple):
            return True
        options = tuple(option for option in options if typing.get_origin(option) is not tuple)
    if not set(options) <= {int, float, bool, str, type(None)}:
        return True
    allowed = {*options, *({int} if float in options else ())}
    return type(value) in allowed


def _describe(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))


def _value(arg: Any, nc: int | None) -> Any:
    """Read a string as Ultralytics does: ``nc`` is the number of classes, a Python literal its value."""
    if isinstance(arg, str):
        if arg == "nc":
            return nc
        with contextlib.suppress(ValueError, SyntaxError):
            return ast.literal_eval(arg)
    return arg
