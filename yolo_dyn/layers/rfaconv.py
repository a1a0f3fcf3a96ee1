"""RFAConv of "RFAConv: Innovating Spatial Attention and Standard Convolutional Operation", by group convolution.

https://arxiv.org/abs/2304.03198

The reference lays the k^2 weighted features of every position out as a map k times as high and wide, and convolves it
with stride k. That is one 1x1 convolution of the k^2 C features, so the map is never laid out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from yolo_dyn.layers.functional import Size, fold_batchnorm, fold_scale, init_kernels
from yolo_dyn.layers.graph import eager_inference, scaled


class RFAConv(nn.Module):
    """Weigh the features of each receptive field by a softmax over its positions, then convolve.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``; `dilation`
            and `groups` must be 1, the kernel square.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = RFAConv(16, 32, kernel_size=3, stride=2, padding=1)
        >>> layer(torch.rand(2, 16, 20, 20)).shape
        torch.Size([2, 32, 10, 10])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        k = self.kernel_size = _pair(kernel_size)
        if groups != 1 or _pair(dilation) != (1, 1):
            raise ValueError(f"RFAConv takes groups 1 and dilation 1 only, got {groups} and {dilation}")
        if k[0] != k[1]:
            raise ValueError(f"kernel_size must be square, got {kernel_size}")
        self.in_channels, self.stride, self.padding = in_channels, _pair(stride), _pair(padding)
        positions = k[0] * k[1]
        self.attention = nn.Parameter(torch.empty(positions * in_channels, 1, 1, 1))
        self.features = nn.Parameter(torch.empty(positions * in_channels, 1, *k))
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(positions * in_channels)
        self.features_bias: nn.Parameter | None = None  # takes the folded norm's shift
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *k))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        for weight in (self.attention, self.features, self.weight):
            init_kernels(weight)

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in, k, k]``, multiplies the kernel (SGDM Eq. 10)."""
        weight = self.weight if guide is None else self.weight * guide
        if self.norm is None and eager_inference():
            return torch.cat([self._in_parts(sample[None], weight) for sample in x])
        return F.conv2d(self._fields(x, 0, self.in_channels), weight.reshape(weight.shape[0], -1, 1, 1), self.bias)

    def _fields(self, x: Tensor, first: int, channels: int) -> Tensor:
        """Weighted features of all receptive fields of some input channels, ``[B, C*k*k, H', W']``."""
        k, _ = self.kernel_size
        rows = slice(first * k**2, (first + channels) * k**2)  # of the parameters
        box = x.new_full((channels, 1, k, k), 1 / k**2)  # average pooling, which a depthwise convolution does faster
        pooled = F.conv2d(x, box, None, self.stride, self.padding, groups=channels)  # [B, C, H', W']
        logits = pooled[:, :, None] * self.attention[rows].view(channels, -1, 1, 1)  # [B, C, k*k, H', W']
        attention = torch.softmax(logits, 2).flatten(1, 2)
        bias = None if self.features_bias is None else self.features_bias[rows]
        features = F.conv2d(x, self.features[rows], bias, self.stride, self.padding, groups=channels)
        features = F.relu(features if self.norm is None else self.norm(features), inplace=True)
        return scaled(features, attention)

    def _in_parts(self, x: Tensor, weight: Tensor) -> Tensor:
        """One sample, as many channels at a time as give a million features: more would leave the cache.

        But no fewer than four: parts of a single channel cost more than they save.
        """
        positions = weight.shape[2] * weight.shape[3]
        step = max(4, 2**20 // (positions * x.shape[2] * x.shape[3]))
        y = x.new_zeros(1) if self.bias is None else self.bias[:, None, None]
        for first in range(0, x.shape[1], step):
            part = slice(first, first + step)
            fields = self._fields(x[:, part], first, min(step, x.shape[1] - first))
            y = F.conv2d(fields, weight[:, part].reshape(weight.shape[0], -1, 1, 1)) + y
        return y

    def guide_shape(self) -> tuple[int, int, int]:
        return 1, self.weight.shape[0], self.weight.shape[1]

    @torch.no_grad()
    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold the inner norm, and a guide and a following BatchNorm, which are constant at evaluation."""
        if self.norm is not None:
            self.features, self.features_bias = fold_batchnorm(self.features, self.norm)
            self.norm = None
        if guide is not None:
            self.weight = nn.Parameter(self.weight * guide, requires_grad=False)
        if bn is not None:
            scale, shift = fold_scale(bn)
            shift = shift if self.bias is None else shift + scale * self.bias
            self.weight = nn.Parameter(self.weight * scale.view(-1, 1, 1, 1), requires_grad=False)
            self.bias = nn.Parameter(shift, requires_grad=False)
