"""Razor Dynamic Convolution (RDConv) of "SGDM: Static-Guided Dynamic Module Make Stronger Visual Models", Sec. 3.3.

https://arxiv.org/abs/2403.18282

The paper shows the module as a figure and leaves these open; we chose:
- the razor is a 1x1, the cheap operation a 3x3 depthwise convolution, each with BatchNorm and SiLU;
- BatchNorm and SiLU follow the dynamic convolution too, since a mixture of kernels has no fixed gain;
- the strip convolutions of the spatial branch are depthwise. Dense strips would also meet the abstract's +0.19 M on
  YOLOv8n, but then YOLOv8s would miss the paper's 11.8 M;
- the two outputs of the spatial branch are added before one sigmoid;
- the hidden activation of the kernel attention is SiLU, since a hidden width of four could start with all ReLUs dead;
- both attentions look at the razored features (Eq. 6), not at the layer's input;
- Eq. 7 adds (1-r)X, which no text explains. The cheap maps are made from the dynamic output, as Fig. 1b draws them;
  ``bypass=True`` makes them from the razored input, past the dynamic convolution.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_dyn.layers.attention import KernelAttention
from yolo_dyn.layers.blocks import ConvNorm
from yolo_dyn.layers.experts import check_experts
from yolo_dyn.layers.functional import (
    PER_SAMPLE_FORMS,
    conv_per_sample,
    fold_batchnorm,
    guided,
    init_kernels,
    mix_kernels,
)
from yolo_dyn.layers.graph import cat_silu


class RDConv(nn.Module):
    """Convolve a few intrinsic channels dynamically and derive the others from them by a cheap operation.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups: as in ``nn.Conv2d``. `groups` divides the
            intrinsic channels.
        padding: as in ``nn.Conv2d``; ``None`` keeps the size at stride 1.
        bias: must be ``False``; every part ends in a BatchNorm, which carries it.
        ratio: razor ratio r, the share of output channels that are intrinsic, in (0, 1).
        num_experts: number of expert kernels, K.
        strip_size: length of the spatial branch's strips, odd.
        bypass: make the cheap maps from the razored input instead of the dynamic output.
        form: "kernel" or "unfold", see `functional.conv_per_sample`.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = RDConv(16, 32, stride=2)
        >>> layer(torch.rand(2, 16, 20, 20)).shape
        torch.Size([2, 32, 10, 10])
    """

    normed = True
    sums_to_one = False
    form = "kernel"  # of checkpoints from before these were arguments
    bypass = False
    baked = False
    left_open = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        ratio: float = 0.5,
        num_experts: int = 4,
        strip_size: int = 15,
        bypass: bool = False,
        form: str = "kernel",
    ) -> None:
        super().__init__()
        _check(out_channels, kernel_size, bias, ratio, num_experts, strip_size, form)
        span = dilation * (kernel_size - 1)
        padding = span // 2 if padding is None else padding
        intrinsic = min(max(1, round(ratio * out_channels)), out_channels - 1)
        strip_padding = strip_size // 2 + padding - span // 2  # gives the spatial weight the convolution's output size
        if strip_padding < 0:
            raise ValueError(f"strip_size {strip_size} is too short for padding {padding}, dilation {dilation}")
        if bypass and 2 * padding != span:
            raise ValueError(f"bypass needs padding {span // 2}, which keeps the size; got {padding}")
        if groups < 1 or intrinsic % groups:
            raise ValueError(f"groups must divide the {intrinsic} intrinsic channels, got {groups}")

        self.out_channels, self.intrinsic, self.kernel_size = out_channels, intrinsic, kernel_size
        self.stride, self.padding, self.dilation, self.groups, self.form = stride, padding, dilation, groups, form
        self.bypass = bypass
        self.razor = ConvNorm(in_channels, intrinsic)
        self.attention = KernelAttention(intrinsic, num_experts, max(intrinsic // 4, 4), nn.SiLU, bias=True)
        self.weight = nn.Parameter(
            torch.empty(num_experts * intrinsic, intrinsic // groups, kernel_size, kernel_size)  # [K*c_r, c_r, k, k]
        )
        init_kernels(self.weight)
        self.bias: nn.Parameter | None = None  # takes the folded BatchNorm's shift at evaluation
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(intrinsic)
        self.conv_h = nn.Conv2d(
            intrinsic, intrinsic, (strip_size, 1), (stride, 1), (strip_padding, 0), groups=intrinsic
        )
        # upright too: torch's half-precision depthwise convolution along a single row never returns on some CPUs
        self.conv_w = nn.Conv2d(
            intrinsic, intrinsic, (strip_size, 1), (stride, 1), (strip_padding, 0), groups=intrinsic
        )
        maps = math.ceil((out_channels - intrinsic) / intrinsic)
        self.cheap = ConvNorm(intrinsic, maps * intrinsic, (3, 3), intrinsic, stride if bypass else 1)

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor | list[Tensor]:
        """`guide`, ``[c_r, c_r/groups, k, k]`` or one for each expert, multiplies the kernels (SGDM Eq. 10)."""
        x = F.silu(self.razor(x), inplace=True)  # [B, c_r, H, W], the intrinsic features (Eq. 6)
        over_h, over_w = x.mean(2)[..., None], x.mean(3)[..., None]  # [B, c_r, W, 1], [B, c_r, H, 1] (Fig. 2a)
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        if self.baked:
            y = F.conv2d(x, self.weight, self.bias, *geometry)
        else:
            attention = torch.sigmoid(self.attention(over_h.mean((2, 3))))  # [B, K] (Eq. 5)
            kernel = mix_kernels(guided(self.weight, guide), attention)  # [B, c_r, c_r/groups, k, k] (Eq. 2)
            y = conv_per_sample(x, kernel, self.bias, *geometry, self.form)
        y = F.silu(y if self.norm is None else self.norm(y), inplace=True)
        y = y * torch.sigmoid(self.conv_w(over_h).transpose(2, 3) + self.conv_h(over_w))  # [B, c_r, H', W']
        cheap = self.cheap(x if self.bypass else y)[:, : self.out_channels - self.intrinsic]
        return [y, cheap] if self.left_open else cat_silu([y], [cheap])  # (Eq. 7)

    def guide_shape(self) -> tuple[int, int, int]:
        return len(self.weight) // self.intrinsic, self.intrinsic, self.weight.shape[1]

    def read(self, x: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
        """The intrinsic features, which the kernels convolve, and how."""
        return F.silu(self.razor(x), inplace=True), (self.stride, self.padding, self.dilation, self.groups)

    def weigh(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """The kernel attention, ``[B, 1, K]``."""
        return torch.sigmoid(self.attention(self.read(x)[0].mean((2, 3))))[:, None]

    def expert_kernels(self) -> Tensor:
        """``[K, c_r, c_r/groups, k, k]``."""
        return self.weight.unflatten(0, (-1, self.intrinsic))

    def mixed(self, x: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The kernel that convolves the intrinsic features of each sample, and the bias of all, once it is fused."""
        return mix_kernels(guided(self.weight, guide), self.weigh(x)[:, 0]), self.bias

    def bake(self, kernel: Tensor, bias: Tensor | None) -> None:
        """Keep this one kernel; the gate of rows and columns stays as it is for each sample."""
        self.weight, self.baked = nn.Parameter(kernel, False), True
        self.bias = None if bias is None else nn.Parameter(bias, False)
        del self.attention

    def leave_open(self) -> None:
        """See `protocol.LeavesOpen`."""
        self.left_open = True

    @torch.no_grad()
    def fuse(self, guide: Tensor | None = None) -> None:
        """Fold the BatchNorms, and a guide that is constant at evaluation, into the kernels, once."""
        self.razor.fuse()
        self.cheap.fuse()
        if self.norm is not None:
            self.weight, self.bias = fold_batchnorm(guided(self.weight, guide), self.norm)
            self.norm = None


def _check(
    out_channels: int, kernel_size: int, bias: bool, ratio: float, num_experts: int, strip_size: int, form: str
) -> None:
    if bias:
        raise ValueError("bias must be False: every part of RDConv ends in a BatchNorm")
    if out_channels < 2:
        raise ValueError(f"out_channels must be at least 2, got {out_channels}")
    if not 0 < ratio < 1:
        raise ValueError(f"ratio must lie in (0, 1), got {ratio}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {kernel_size}")
    check_experts(num_experts)
    if strip_size < 1 or strip_size % 2 == 0:
        raise ValueError(f"strip_size must be odd, got {strip_size}")
    if form not in PER_SAMPLE_FORMS:
        raise ValueError(f"form must be one of {', '.join(PER_SAMPLE_FORMS)}, got {form!r}")
