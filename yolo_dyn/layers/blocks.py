"""The static convolution block that surrounds the dynamic part of a layer."""

import torch
from torch import nn

from yolo_dyn.layers.functional import fold_batchnorm, init_kernels


class ConvNormAct(nn.Sequential):
    """A bias-free static convolution, BatchNorm and SiLU; stride 1 and "same" padding.

    Args:
        in_channels, out_channels, groups: as in ``nn.Conv2d``.
        kernel_size: height and width, both odd.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H, W]``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int] = (1, 1), groups: int = 1):
        padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, groups=groups, bias=False)
        init_kernels(conv.weight)
        super().__init__(conv, nn.BatchNorm2d(out_channels), nn.SiLU())

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution, once."""
        conv, norm = self[0], self[1]
        if isinstance(norm, nn.BatchNorm2d):
            conv.weight, conv.bias = fold_batchnorm(conv.weight, norm)
            self[1] = nn.Identity()
