"""The static convolution that surrounds the dynamic part of a layer."""

import torch
from torch import Tensor, nn

from yolo_dyn.layers.functional import fold_batchnorm, init_kernels


class ConvNorm(nn.Conv2d):
    """A static convolution and its BatchNorm, which folds into it at evaluation; stride 1 and "same" padding.

    Args:
        in_channels, out_channels, groups: as in ``nn.Conv2d``.
        kernel_size: height and width, both odd.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H, W]``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int] = (1, 1), groups: int = 1):
        padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, groups=groups, bias=False)
        init_kernels(self.weight)
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.norm is None else self.norm(y)

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution, once."""
        if self.norm is not None:
            self.weight, self.bias = fold_batchnorm(self.weight, self.norm)
            self.norm = None
