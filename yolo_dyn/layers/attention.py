"""Kernel attention: what every mixing layer asks of its input before it mixes."""

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
        ``[B, C, H, W]`` -> logits ``[B, K]``; the layer chooses sigmoid or softmax.
    """

    def __init__(self, in_channels: int, num_experts: int, reduction: int = 4):
        super().__init__()
        hidden = max(in_channels // reduction, 4)
        self.squeeze = nn.Linear(in_channels, hidden)
        self.act = nn.SiLU()
        self.expand = nn.Linear(hidden, num_experts)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3))  # [B, C]
        return self.expand(self.act(self.squeeze(pooled)))
