"""Kernel attention: what every mixing layer asks of its input before it mixes."""

import torch.nn.functional as F
from torch import Tensor, nn


class KernelAttention(nn.Module):
    """Score the expert kernels from the globally pooled input (SGDM Eq. 5: global pooling and two FC layers).

    The hidden activation is SiLU, which has no dead units: with a hidden width of four a ReLU could start with all of
    them dead. There is no normalisation on the pooled 1x1 map, so training works at batch 1.

    Args:
        in_channels: channels of the input.
        num_experts: number of expert kernels, K.
        reduction: the hidden width is ``max(in_channels // reduction, 4)``.

    Shape:
        pooled input ``[B, C]`` -> logits ``[B, K]``; the layer chooses sigmoid or softmax.
    """

    def __init__(self, in_channels: int, num_experts: int, reduction: int = 4):
        super().__init__()
        hidden = max(in_channels // reduction, 4)
        self.squeeze = nn.Linear(in_channels, hidden)
        self.expand = nn.Linear(hidden, num_experts)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.expand(F.silu(self.squeeze(pooled)))
