"""Stochastic depth of "Deep Networks with Stochastic Depth" (Huang et al., 2016): residual branches are left out.

https://arxiv.org/abs/1603.09382
"""

import torch
from torch import Tensor, nn

from yolo_dyn.layers.protocol import DropsPaths


def drop_path(branch: Tensor, rate: float, training: bool) -> Tensor:
    """Leave out the branch of each sample with probability `rate` in training; what stays is scaled by 1 / (1 - rate).

    Args:
        branch: ``[B, ...]``, before it is added to its shortcut.
        rate: probability, at least 0 and below 1.
        training: at evaluation the branch is returned as it is.

    Returns:
        ``[B, ...]``.
    """
    if not training or rate == 0:
        return branch
    kept = torch.rand(len(branch), *[1] * (branch.dim() - 1), device=branch.device) >= rate
    return branch * (kept / (1 - rate)).to(branch.dtype)


def check_drop_path(rate: float) -> float:
    """Return the rate. Raises ValueError if it is no probability below 1."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"drop_path must lie in [0, 1), got {rate!r}")
    return float(rate)


def spread_drop_path(model: nn.Module, rate: float) -> int:
    """Set the rates of a model's layers that have one, linearly from 0 in the first to `rate` in the last.

    Returns:
        How many layers there are.
    """
    layers = [m for m in model.modules() if isinstance(m, DropsPaths) and isinstance(m.drop_path, float)]  # no timm's
    for i, layer in enumerate(layers):
        layer.drop_path = rate * i / max(len(layers) - 1, 1)
    return len(layers)
