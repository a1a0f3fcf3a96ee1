"""CBAM of "CBAM: Convolutional Block Attention Module" (Woo et al., 2018).

https://arxiv.org/abs/1807.06521

Ultralytics has a module of the same name with one fully connected layer and average pooling only; this is the published
one: a shared perceptron over average- and max-pooled channels, then a convolution over average- and max-pooled maps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_dyn.layers.blocks import ConvNorm


class CBAM(nn.Module):
    """Weigh the channels, then the positions.

    Args:
        in_channels, out_channels: C, equal.
        reduction: the hidden width of the channel attention is ``C // reduction``.
        kernel_size: of the spatial attention, odd.

    Shape:
        ``[B, C, H, W]`` -> ``[B, C, H, W]``.

    Raises:
        ValueError: for an argument outside its range, or too few channels for the reduction.

    Examples:
        >>> layer = CBAM(32, 32)
        >>> layer(torch.rand(2, 32, 20, 20)).shape
        torch.Size([2, 32, 20, 20])
    """

    def __init__(self, in_channels: int, out_channels: int, *, reduction: int = 16, kernel_size: int = 7) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise ValueError(f"CBAM keeps the channels: got {in_channels} in and {out_channels} out")
        if reduction < 1 or in_channels < reduction:
            raise ValueError(f"reduction must lie in [1, {in_channels}] for {in_channels} channels, got {reduction}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        hidden = in_channels // reduction
        self.squeeze = nn.Linear(in_channels, hidden)
        self.expand = nn.Linear(hidden, in_channels)
        self.spatial = ConvNorm(2, 1, (kernel_size, kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        channel = torch.sigmoid(self.perceptron(x.mean((2, 3))) + self.perceptron(x.amax((2, 3))))  # [B, C] (Eq. 2)
        x = x * channel[:, :, None, None]
        maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # [B, 2, H, W]
        return x * torch.sigmoid(self.spatial(maps))  # (Eq. 3)

    def perceptron(self, pooled: Tensor) -> Tensor:
        """The shared network of both poolings, ``[B, C]`` -> ``[B, C]``."""
        return self.expand(F.relu(self.squeeze(pooled)))

    def fuse(self) -> None:
        """Fold the BatchNorm of the spatial attention."""
        self.spatial.fuse()
