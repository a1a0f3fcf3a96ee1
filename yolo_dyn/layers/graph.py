"""What is done otherwise when a graph is recorded for a file that other runtimes read."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# torch 2.2 has no public word for either, and exporting looks like compiling before 2.7
compiling: Callable[[], bool] = getattr(torch.compiler, "is_compiling", None) or torch._utils.is_compiling
exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", None) or compiling


def pooled(x: Tensor, size: int) -> Tensor:
    """Pool to ``size x size`` by averaging, ``[B, C, H, W]`` -> ``[B, C*size*size]``."""
    if not becomes_a_graph():
        return F.adaptive_avg_pool2d(x, size).flatten(1)
    # the same windows as slices, which ONNX can have with a free height and width
    means = [
        x[:, :, rows, columns].mean((2, 3))
        for rows in _windows(x.shape[2], size)
        for columns in _windows(x.shape[3], size)
    ]
    return torch.stack(means, 2).flatten(1)


def _windows(length: int, count: int) -> list[slice]:
    return [slice(i * length // count, ((i + 1) * length + count - 1) // count) for i in range(count)]


def becomes_a_graph() -> bool:
    """Whether what runs is recorded for a file that other runtimes read."""
    return torch.jit.is_tracing() or exporting()


def eager_inference() -> bool:
    """Whether the code runs as it stands, with no gradient recorded and no graph traced."""
    return not (torch.is_grad_enabled() or torch.jit.is_tracing() or compiling())


def scaled(x: Tensor, factor: Tensor) -> Tensor:
    """``x * factor`` for an `x` that nobody else needs: in place at inference, where a new large tensor costs more."""
    return x.mul_(factor) if eager_inference() else x * factor


def cat_silu(complete: list[Tensor], due: list[Tensor], *rest: Tensor) -> Tensor:
    """Concatenate channels, ``[B, C_i, H, W]`` each, after SiLU in those that it is `due` to, in this order.

    At inference SiLU runs once, in place, over the channels that it is due to, which lie side by side.
    """
    if not eager_inference():
        return torch.cat([*complete, *(F.silu(part, inplace=True) for part in due), *rest], 1)
    y = torch.cat([*complete, *due, *rest], 1)
    first, channels = (sum(part.shape[1] for part in group) for group in (complete, due))
    F.silu(y.narrow(1, first, channels), inplace=True)
    return y
