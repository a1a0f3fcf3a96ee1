"""Multiply-adds of whatever runs, counted from shapes by one rule, the same in every version of torch.

torch's own FlopCounterMode counts normalisations in some versions and not in others, and does not say which.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Count = Callable[[tuple[Any, ...], Any], int]  # of the arguments and the output of an operator


def _convolution(args: tuple[Any, ...], y: Any) -> int:
    x, weight, transposed = args[0], args[1], len(args) > 6 and args[6]
    return (x if transposed else y).numel() * weight[0].numel()


def _attention(args: tuple[Any, ...], y: Any) -> int:
    query, key, value = args[:3]  # [..., N, d]
    return query.numel() * key.shape[-2] + query.shape[-2] * math.prod(query.shape[:-2]) * value[0, 0].numel()


def _product(first: int) -> Count:
    """Of a matrix product whose left factor is the argument of this number: each output adds up one row of it."""
    return lambda args, y: y.numel() * args[first].shape[-1]


PRODUCTS: dict[str, Count] = {
    "convolution": _convolution,
    "mm": _product(0),
    "bmm": _product(0),
    "mv": _product(0),
    "dot": lambda args, y: args[0].numel(),
    "addmm": _product(1),
    "addmv": _product(1),
    "baddbmm": _product(1),
}
# multiply-adds for each value of the first argument, as fvcore counts them; published figures often hold these too
BESIDES = {"batch_norm": 2, "layer_norm": 5, "group_norm": 5, "mean": 1}


class MultiplyAdds(TorchDispatchMode):
    """Count what runs inside of it: convolutions and matrix products, wherever they are called from.

    Args:
        besides: count normalisations and means too, as fvcore does.

    Attributes:
        total: multiply-adds so far; two FLOPs each.

    Examples:
        >>> import torch
        >>> convolution = torch.nn.Conv2d(3, 16, 3, padding=1)
        >>> with MultiplyAdds() as counter:
        ...     y = convolution(torch.rand(1, 3, 10, 10))
        >>> counter.total  # 100 positions, 16 x 3 x 9 weights
        43200
    """

    def __init__(self, besides: bool = False) -> None:
        super().__init__()
        self.besides, self.total = besides, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        y = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            self.total += PRODUCTS[name](args, y)
        elif name.startswith("_scaled_dot_product"):
            self.total += _attention(args, y)
        elif self.besides and isinstance(args[0] if args else None, Tensor):
            self.total += args[0].numel() * next((n for norm, n in BESIDES.items() if _is(name, norm)), 0)
        return y


def _is(name: str, norm: str) -> bool:
    """Whether an operator is this one, by any of the names that versions and devices give it."""
    return name == norm if norm == "mean" else norm in name and "backward" not in name


@contextmanager
def counted_by_row(rows: nn.Sequential) -> Iterator[list[int]]:
    """Count the multiply-adds of each row while its model runs; the list has one number a row."""
    counts = [0] * len(rows)

    def before(i: int, given: Any) -> None:
        counts[i] -= counter.total

    def after(i: int) -> None:
        counts[i] += counter.total

    with MultiplyAdds() as counter, around_rows(rows, before, after):
        yield counts


@contextmanager
def around_rows(
    rows: nn.Sequential, before: Callable[[int, Any], None], after: Callable[[int], None]
) -> Iterator[None]:
    """While a model runs, call ``before(i, its input)`` and ``after(i)`` around each row i."""
    handles = []
    for i, row in enumerate(rows):
        handles.append(row.register_forward_pre_hook(lambda _, args, i=i: before(i, args[0])))
        handles.append(row.register_forward_hook(lambda _, args, y, i=i: after(i)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
