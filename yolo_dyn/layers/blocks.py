"""The standard blocks around a convolution: with its norm, and with norm and activation."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from yolo_dyn.layers.functional import Size, fold_batchnorm, init_kernels


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


class ConvNormAct(nn.Module):
    """A dynamic convolution, BatchNorm and SiLU: what a row of a model YAML builds, like Ultralytics' Conv.

    Args:
        layer: class of the convolution, with the arguments of ``nn.Conv2d``.
        in_channels, out_channels, kernel_size, stride, groups: as in ``nn.Conv2d``.
        padding: as in ``nn.Conv2d``; None keeps the size at stride 1.
        dilation: as in ``nn.Conv2d``.
        act: activation; SiLU by default.
        **options: the layer's own.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: where the layer refuses an argument.
    """

    def __init__(
        self,
        layer: type[nn.Module],
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Size | None = None,
        dilation: Size = 1,
        groups: int = 1,
        *,
        act: nn.Module | None = None,
        **options: Any,
    ):
        super().__init__()
        if padding is None:
            padding = _same_padding(kernel_size, dilation)
        self.conv = layer(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, False, **options)
        self.bn: nn.BatchNorm2d | None = nn.BatchNorm2d(out_channels)
        self.act = nn.SiLU(inplace=True) if act is None else act

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in/groups, k, k]``, multiplies the mixed kernel (SGDM Eq. 10)."""
        y = self.conv(x) if guide is None else self.conv(x, guide)
        return self.act(y if self.bn is None else self.bn(y))

    @torch.no_grad()
    def fuse(self, guide: Tensor | None = None) -> None:
        """Fold a guide and the BatchNorm, which are constant at evaluation, into the convolution, once."""
        if self.bn is not None and "bn" in inspect.signature(getattr(self.conv, "fuse", int)).parameters:
            self.conv.fuse(guide, self.bn)  # type: ignore[operator]
            self.bn = None


def _same_padding(kernel_size: Size, dilation: Size) -> Size:
    if isinstance(kernel_size, int) and isinstance(dilation, int):
        return dilation * (kernel_size - 1) // 2
    pairs = (size if isinstance(size, tuple) else (size, size) for size in (kernel_size, dilation))
    (kh, kw), (dh, dw) = pairs
    return (dh * (kh - 1) // 2, dw * (kw - 1) // 2)
