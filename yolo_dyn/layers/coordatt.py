"""Coordinate Attention of "Coordinate Attention for Efficient Mobile Network Design" (Hou et al., 2021).

https://arxiv.org/abs/2103.02907
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_dyn.layers.blocks import ConvNorm


class CoordAtt(nn.Module):
    """Weigh the features by their row and by their column.

    Args:
        in_channels, out_channels: C, equal.
        reduction: the hidden width is ``max(C // reduction, 8)``.

    Shape:
        ``[B, C, H, W]`` -> ``[B, C, H, W]``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = CoordAtt(32, 32)
        >>> layer(torch.rand(2, 32, 20, 20)).shape
        torch.Size([2, 32, 20, 20])
    """

    def __init__(self, in_channels: int, out_channels: int, *, reduction: int = 32) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise ValueError(f"CoordAtt keeps the channels: got {in_channels} in and {out_channels} out")
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, got {reduction}")
        hidden = max(in_channels // reduction, 8)
        self.squeeze = ConvNorm(in_channels, hidden)
        self.expand_h = nn.Conv2d(hidden, in_channels, 1)
        self.expand_w = nn.Conv2d(hidden, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)  # [B, C, H or W, 1] (Eq. 4, 5)
        squeezed = F.hardswish(self.squeeze(torch.cat([rows, columns], 2)))  # [B, h, H+W, 1] (Eq. 6)
        rows, columns = squeezed.split([rows.shape[2], columns.shape[2]], 2)
        rows = torch.sigmoid(self.expand_h(rows))  # [B, C, H, 1] (Eq. 7)
        columns = torch.sigmoid(self.expand_w(columns.transpose(2, 3)))  # [B, C, 1, W] (Eq. 8)
        return x * rows * columns  # (Eq. 9)

    def fuse(self) -> None:
        """Fold the BatchNorm of the shared convolution."""
        self.squeeze.fuse()
