"""What the arguments of commands may be: said in their types, and checked in one place before anything is read."""

import functools
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from yolo_dyn.errors import YoloDynError

NONE = type(None)
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included, in steps from 0 if there is a step."""

    low: float
    high: float = math.inf
    step: int = 0
    what: str = ""  # the numbers are, for messages

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high and math.isfinite(value) and not (self.step and value % self.step))

    def __str__(self) -> str:
        if self.low == -math.inf:
            return "a finite number"
        limits = f"at least {self.low:,g}" if self.high == math.inf else f"from {self.low:,g} to {self.high:,g}"
        return f"a multiple of {self.step}, {limits}" if self.step else f"{self.what}{limits}"


@dataclass(frozen=True)
class Some:
    """A list with something in it."""

    def __contains__(self, value: Any) -> bool:
        return len(value) > 0

    def __str__(self) -> str:
        return "a list of at least one"


@dataclass(frozen=True)
class OneOf:
    """Some words."""

    words: tuple[str, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Holding:
    """A list with a number in it."""

    number: float
    what: str

    def __contains__(self, value: Any) -> bool:
        return self.number in value

    def __str__(self) -> str:
        return f"a list with {self.number:g}, {self.what}, in it"


@dataclass(frozen=True)
class OfFile:
    """A path that ends in a name."""

    def __contains__(self, value: Any) -> bool:
        return Path(value).name != ""

    def __str__(self) -> str:
        return "the name of a file"


FileName = Annotated[str, OfFile()]
Positive = Annotated[int, Range(1)]
OrDefault = Annotated[int, Range(0)]  # 0 is the default, which the command says
ImageSize = Annotated[int, Range(32, 16384, 32)]  # pixels; the stock commands would round it in silence
Share = Annotated[float, Range(0, 1)]
Finite = Annotated[float, Range(-math.inf)]
GreyLevels = Annotated[float, Range(0, what="grey levels of ")]
Severity = Annotated[int, Range(1, 5)]
Quality = Annotated[int, Range(1, 100)]  # of JPEG
Threads = Annotated[int, Range(0, 1024)]
Names = Annotated[list[str], Some()]
Seeds = Annotated[list[OrDefault], Some()]
Sigmas = Annotated[list[GreyLevels], Some()]
Pictures = Annotated[list[Annotated[str, OneOf(("png", "pdf", "svg"))]], Some()]
SigmasWithClean = Annotated[list[GreyLevels], Some(), Holding(0, "the clean images")]
Severities = Annotated[list[Severity], Some()]


def checked(function: Function) -> Function:
    """Check a command's arguments by their types when it is called.

    Raises:
        YoloDynError: when an argument is not what its type says; it names it, what is accepted, and the value.
    """
    signature, hints = inspect.signature(function), typing.get_type_hints(function, include_extras=True)
    named = [name for name, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs).arguments
        for name in named:
            accepted = lacks(bound[name], hints[name]) if name in bound else ""
            if accepted:
                raise YoloDynError(f"{name} must be {accepted}, got {bound[name]!r}")
        return function(*args, **kwargs)

    return typing.cast(Function, call)


def check_fields(record: Any) -> Any:
    """A record whose fields are what their types say.

    Raises:
        TypeError: naming a field that is not, what is accepted, and the value.
    """
    for name, hint in typing.get_type_hints(type(record), include_extras=True).items():
        accepted = lacks(getattr(record, name), hint)
        if accepted:
            raise TypeError(f"{name} must be {accepted}, got {getattr(record, name)!r}")
    return record


def lacks(value: Any, hint: Any) -> str:
    """What a value would have to be, in words; empty if it is that."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        accepted = lacks(value, parts[0])
        return accepted or next((str(limits) for limits in parts[1:] if value not in limits), "")
    if origin in (typing.Union, types.UnionType):
        reasons = [lacks(value, part) for part in parts]
        return "" if "" in reasons else " or ".join(reason for reason in reasons if reason != _KINDS[NONE][1])
    if origin is list:
        if not isinstance(value, list | tuple):
            return "" if parts == (str,) and isinstance(value, str) else "a list"
        return next((reason for item in value if (reason := lacks(item, parts[0]))), "")
    if origin is dict:
        if not isinstance(value, dict):
            return "a mapping"
        reasons = [lacks(key, parts[0]) for key in value] + [lacks(item, parts[1]) for item in value.values()]
        return next((f"a mapping with {reason}" for reason in reasons if reason), "")
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(parts):
            return f"{len(parts)} values"
        return next((reason for pair in zip(value, parts, strict=True) if (reason := lacks(*pair))), "")
    return "" if hint not in _KINDS or _KINDS[hint][0](value) else _KINDS[hint][1]


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind) and not isinstance(value, bool)


_KINDS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (_is(numbers.Integral), "an integer"),
    float: (_is(numbers.Real), "a number"),
    bool: (lambda value: isinstance(value, bool), "True or False"),
    str: (lambda value: isinstance(value, str | os.PathLike), "text"),
    NONE: (lambda value: value is None, "None"),
}
