"""The standard blocks around a convolution: with its norm, with norm and activation, in place of a linear layer."""

from typing import Any

import torch
from torch import Tensor, nn

from yolo_dyn.layers.functional import Size, check_geometry, fold_batchnorm, fold_scale, init_kernels
from yolo_dyn.layers.protocol import Guidable, ends_in_norm, folds_norm


class ConvNorm(nn.Conv2d):
    """A static convolution and its BatchNorm, which folds into it at evaluation.

    Args:
        in_channels, out_channels, groups, stride, bias: as in ``nn.Conv2d``.
        kernel_size: height and width, both odd; the padding is such that stride 1 keeps the size.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int] = (1, 1),
        groups: int = 1,
        stride: int = 1,
        bias: bool = False,
    ) -> None:
        padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        init_kernels(self.weight)
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.norm is None else self.norm(y)

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution, once."""
        if self.norm is not None:
            bias = 0 if self.bias is None else fold_scale(self.norm)[0] * self.bias
            self.weight, self.bias = fold_batchnorm(self.weight, self.norm)
            self.bias.add_(bias)
            self.norm = None


class AsLinear(nn.Module):
    """A 1x1 convolution in place of a linear layer: ``[B, C_in]`` -> ``[B, C_out]``."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, :, None, None]).flatten(1)


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
        ValueError: for an argument outside its range, or if the layer refuses one.
    """

    left_open = False

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
    ) -> None:
        super().__init__()
        check_geometry(kernel_size, stride, 0 if padding is None else padding, dilation)
        if padding is None:
            padding = _same_padding(kernel_size, dilation)
        self.conv = layer(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, False, **options)
        self.bn: nn.BatchNorm2d | None = nn.BatchNorm2d(out_channels)
        self.act = nn.SiLU(inplace=True) if act is None else act

    def forward(self, x: Tensor, guide: Tensor | None = None, token: Tensor | None = None) -> Tensor | list[Tensor]:
        """`guide`, ``[C_out, C_in/groups, k, k]``, multiplies the mixed kernel (SGDM Eq. 10); `token` is DMF's."""
        baked = type(self.conv) is nn.Conv2d  # guide and token are in its kernel
        given = {name: value for name, value in (("guide", guide), ("token", token)) if value is not None and not baked}
        y = self.conv(x, **given)
        y = y if self.bn is None else self.bn(y)
        return [y] if self.left_open else self.act(y)

    def leave_open(self) -> None:
        """See `protocol.LeavesOpen`."""
        self.left_open = isinstance(self.act, nn.SiLU)

    def guide_shape(self) -> tuple[int, int, int]:
        """Of the convolution, see `protocol.Guidable`."""
        assert isinstance(self.conv, Guidable)
        return self.conv.guide_shape()

    @torch.no_grad()
    def fuse(self, guide: Tensor | None = None) -> None:
        """Fold a guide and the BatchNorm, which are constant at evaluation, into the convolution, once."""
        if self.bn is not None and folds_norm(self.conv):
            self.conv.fuse(guide, self.bn)
            self.bn = None


def with_norm(
    layer: type[nn.Module], in_channels: int, out_channels: int, kernel_size: int, **options: Any
) -> nn.Module:
    """A layer in the place of a convolution: as it is if it ends in BatchNorm and activation itself, else with both."""
    if ends_in_norm(layer):
        return layer(in_channels, out_channels, kernel_size, **options)
    return ConvNormAct(layer, in_channels, out_channels, kernel_size, **options)


def _same_padding(kernel_size: Size, dilation: Size) -> Size:
    if isinstance(kernel_size, int) and isinstance(dilation, int):
        return dilation * (kernel_size - 1) // 2
    pairs = (size if isinstance(size, tuple) else (size, size) for size in (kernel_size, dilation))
    (kh, kw), (dh, dw) = pairs
    return (dh * (kh - 1) // 2, dw * (kw - 1) // 2)
