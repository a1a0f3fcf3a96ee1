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
