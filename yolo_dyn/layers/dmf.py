"""The convolutional rows of "Dynamic Mobile-Former" (DMF): stem, lite bottleneck, and the DMF block of Fig. 2.

https://arxiv.org/abs/2304.07254

A DMF block is two rows of a YAML: a `Former`, which updates the tokens, and a `DMFBlock`, whose kernels look at the
first of them. Where the paper is silent, as the authors' implementation has it (its counts are Table 1's): no residual
around DY-Mobile; the convolution that halves the map comes before DY-Mobile and after the cross attention; the IRFFN's
input is normalised in one group. Different from it: GRN normalises over the channels, as in ConvNeXt V2 (there, over a
dimension of length one, which does nothing).
"""

from typing import Any

import torch
from torch import Tensor, nn

from yolo_dyn.layers.blocks import ConvNorm, ConvNormAct
from yolo_dyn.layers.drop_path import check_drop_path, drop_path
from yolo_dyn.layers.former import token_width
from yolo_dyn.layers.graph import becomes_a_graph
from yolo_dyn.layers.residual import DynamicResidualConv


class Foldable(nn.Module):
    """A row whose convolutions fold their BatchNorms at evaluation."""

    def fuse(self) -> None:
        """Fold all BatchNorms that follow a convolution, once."""
        for block in self.modules():
            if isinstance(block, ConvNorm | ConvNormAct):
                block.fuse()


class DMFStem(Foldable):
    """A 3x3 convolution with stride 2, BatchNorm and GELU: ``[B, C_in, H, W]`` -> ``[B, channels, H/2, W/2]``."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, channels, (3, 3), stride=2, bias=True)
        self.act = nn.GELU()

    @staticmethod
    def out_channels(in_channels: int, args: list[int]) -> int:
        return args[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class BneckLite(Foldable):
    """Static inverted bottleneck: 1x1, depthwise 3x3, 1x1.

    Args:
        in_channels: C_in.
        channels: C_out ("#out" of Table 1).
        hidden: channels between ("#exp").

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H, W]``.
    """

    def __init__(self, in_channels: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(in_channels, hidden),
            nn.GELU(),
            ConvNorm(hidden, hidden, (3, 3), groups=hidden),
            nn.GELU(),
            ConvNorm(hidden, channels),
        )

    @staticmethod
    def out_channels(in_channels: int, args: list[int]) -> int:
        return args[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class GRN(nn.Module):
    """Global response normalisation (ConvNeXt V2): channels compete by the norm of their maps.

    Shape:
        ``[B, C, H, W]`` -> ``[B, C, H, W]``.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        energy = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)  # [B, C, 1, 1]
        response = energy / (energy.mean(1, keepdim=True) + self.eps)
        return x + self.weight * (x * response.to(x.dtype)) + self.bias


class MapNorm(nn.GroupNorm):
    """``GroupNorm(1, C)``: a map is normalised by the mean and the variance of all its values.

    In an exported graph these are means of the rows' and channels' means: ONNX Runtime adds up the values of
    InstanceNormalization one after another, and with the 1e6 of a large map comes to outputs that are off by 4e-5.

    Shape:
        ``[B, C, H, W]`` -> ``[B, C, H, W]``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        if not becomes_a_graph():
            return super().forward(x)
        x = x - _mean_of_means(x)
        x = x * torch.rsqrt(_mean_of_means(x * x) + self.eps)
        return x * self.weight[:, None, None] + self.bias[:, None, None]


def _mean_of_means(x: Tensor) -> Tensor:
    for dim in (3, 2, 1):
        x = x.mean(dim, keepdim=True)
    return x


class IRFFN(nn.Module):
    """Inverted residual feed-forward network, which joins the channel groups of DY-Mobile again (DMF Eq. 6 and 7).

    Args:
        channels: C.
        ratio: expansion, R in Table 1.

    Shape:
        ``[B, C, H, W]`` -> ``[B, C, H, W]``.
    """

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.expand = ConvNorm(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.grn = GRN(hidden)
        self.reduce = ConvNorm(hidden, channels)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.expand(x))
        x = self.depthwise(x) + x  # (Eq. 7)
        return self.reduce(self.act(self.grn(x)))  # (Eq. 6)


def _dynamic(
    kind: type[nn.Module], c1: int, c2: int, size: int, groups: int, act: nn.Module, token_channels: int, options: Any
) -> ConvNormAct:
    """A dynamic convolution with BatchNorm; only one that looks at the token is told the token's width."""
    options = {**options, "token_channels": token_channels} if token_channels else options
    return ConvNormAct(kind, c1, c2, size, groups=groups, act=act, **options)


class DMFBlock(Foldable):
    """DY-Mobile and IRFFN: the row of a DMF block that updates the map.

    Args:
        in_channels: of the map and of the tokens, ``[C_in, d]``.
        channels: C_out ("#out" of Table 1).
        hidden: channels of the depthwise convolution ("#exp").
        groups: of the pointwise convolutions, G in Table 1.
        ratio: expansion of the IRFFN, R.
        stride: 2 puts a static 3x3 depthwise convolution of that stride before DY-Mobile ("Downsampling").
        token: whether the kernel attention looks at the first global token (AFKA of Table 3).
        drop_path: probability to leave out a sample's IRFFN in training; the training argument `drop_path` sets it.
        dynamic: class of the dynamic convolutions; in a YAML its name.
        **options: the dynamic layer's own: residual (RCKS of Table 3), activation (Table 6), init (Table 7),
            num_experts (K of Table 8).

    Shape:
        map ``[B, C_in, H, W]``, tokens ``[B, M, d]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: if the groups do not divide the channels, or `drop_path` is no probability below 1.

    Examples:
        >>> block = DMFBlock([16, 192], 24, 96, stride=2)
        >>> block([torch.rand(2, 16, 20, 20), torch.rand(2, 6, 192)]).shape
        torch.Size([2, 24, 10, 10])
    """

    token, drop_path = True, 0.0  # of checkpoints from before these were arguments

    def __init__(
        self,
        in_channels: list[int],
        channels: int,
        hidden: int,
        groups: int = 1,
        ratio: float = 2.0,
        stride: int = 1,
        *,
        token: bool = True,
        drop_path: float = 0.0,
        dynamic: type[nn.Module] = DynamicResidualConv,
        **options: Any,
    ) -> None:
        super().__init__()
        c, width = in_channels
        self.token, self.drop_path = token, check_drop_path(drop_path)
        halve = [ConvNorm(c, c, (3, 3), groups=c, stride=stride, bias=True), nn.GELU()] if stride > 1 else []
        self.downsample = nn.Sequential(*halve)
        seen = width if token else 0
        self.expand = _dynamic(dynamic, c, hidden, 1, groups, nn.GELU(), seen, options)
        self.depthwise = _dynamic(dynamic, hidden, hidden, 3, hidden, nn.GELU(), seen, options)
        self.reduce = _dynamic(dynamic, hidden, channels, 1, groups, nn.Identity(), seen, options)
        self.norm = MapNorm(channels)
        self.ffn = IRFFN(channels, ratio)

    @staticmethod
    def out_channels(in_channels: list[int], args: list[int]) -> int:
        token_width(in_channels)
        return args[0]

    def forward(self, x: list[Tensor]) -> Tensor:
        y, tokens = x
        token = tokens[:, 0] if self.token else None  # [B, d], the first global token
        y = self.downsample(y)
        for conv in (self.expand, self.depthwise, self.reduce):  # DY-Mobile, Sec. 3.3
            y = conv(y, token=token)
        return y + drop_path(self.ffn(self.norm(y)), self.drop_path, self.training)


class DMFHead(Foldable):
    """The dynamic residual 1x1 convolution before the classifier: map ``[B, C, H, W]``, tokens -> ``[B, C_out, H, W]``.

    Args:
        in_channels: of the map and of the tokens, ``[C, d]``.
        channels: C_out.
        token, dynamic, **options: as in `DMFBlock`.
    """

    token = True  # of checkpoints from before it was an argument

    def __init__(
        self,
        in_channels: list[int],
        channels: int,
        *,
        token: bool = True,
        dynamic: type[nn.Module] = DynamicResidualConv,
        **options: Any,
    ) -> None:
        super().__init__()
        c, width = in_channels
        self.token = token
        self.conv = _dynamic(dynamic, c, channels, 1, 1, nn.GELU(), width if token else 0, options)

    @staticmethod
    def out_channels(in_channels: list[int], args: list[int]) -> int:
        token_width(in_channels)
        return args[0]

    def forward(self, x: list[Tensor]) -> Tensor:
        y, tokens = x
        return self.conv(y, token=tokens[:, 0] if self.token else None)
