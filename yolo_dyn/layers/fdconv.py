"""FDConv of "Frequency Dynamic Convolution for Dense Image Prediction" (Chen et al., CVPR 2025).

https://arxiv.org/abs/2503.18783

Three parts. Frequency disjoint weight (FDW): the kernel's spectrum is split into K groups by rising frequency, and each
group gets a factor. Kernel spatial modulation (KSM): factors of input channels, output channels and taps, and one for
each single weight. Frequency band modulation (FBM): four bands of the input get a factor for each pixel.

Readings, where paper and published code differ or are silent:
- FBM is that of the code, on the input before one convolution; the paper modulates the outputs of four. Its lowest band
  stays as it is. As in the code, a 1x1 kernel has no FBM;
- factors are twice a sigmoid, 1 at rest; StarReLU, its two scalars and the widths are the code's;
- K is 4 by default, as in the code, where the paper has 64: up to 8 groups fold into a bank of kernels.

Deviations:
- the parameter is the kernel, not its spectrum: a static kernel is taken over as it is, optimisers see a kernel, and a
  layer holds ``2 kH C_out`` parameters less. By Parseval only the learning rate differs;
- equal frequencies are ordered exactly, where the code's order of them depends on rounding, and groups may differ in
  size by one, so that K need not divide the spectrum;
- bands have exact frequencies at any size, where the code resizes the masks of 64x64 by nearest neighbours;
- all factors start at 1 but for 1e-6; the code forgets that of the output channels;
- kernels larger than 3x3 are treated as those of 3x3, which the code does not replace;
- the norm falls back to its running statistics at batch 1, where BatchNorm cannot train.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from yolo_dyn.layers.attention import Trunk, trunk_width
from yolo_dyn.layers.functional import (
    PER_SAMPLE_FORMS,
    Size,
    check_geometry,
    conv_per_sample,
    fold_scale,
    init_kernels,
    mix_kernels,
)
from yolo_dyn.layers.graph import becomes_a_graph, scaled
from yolo_dyn.layers.protocol import check_static
from yolo_dyn.layers.spectrum import frequency_groups, low_pass, modulated

MOST_GROUPS = 256
MOST_IN_A_BANK = 8  # groups: a bank costs K times the memory of the kernel, and saves an FFT a sample
BANDS = (4, 8, 16)  # edges at 1/4, 1/8, 1/16 cycles a pixel
SMALL = 1e-6  # what the factors' weights start at


class FDConv(nn.Module):
    """Scale the frequencies of a kernel, its channels, taps and single weights, and bands of the input's frequencies.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``; `groups`
            must be 1.
        num_experts: number of groups of frequencies, K, at most 256.
        reduction: the hidden width of the trunk is ``max(in_channels // reduction, 16)``.
        local: a factor for each single weight of the kernel (the dense factor of KSM).
        bands: factors for bands of the input (FBM); a 1x1 kernel has none.
        form: "kernel" or "unfold", see `functional.conv_per_sample`.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = FDConv(16, 32, kernel_size=3, stride=2, padding=1)
        >>> layer(torch.rand(2, 16, 20, 20)).shape
        torch.Size([2, 32, 10, 10])
    """

    baked = False
    sums_to_one = False

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
        *,
        num_experts: int = 4,
        reduction: int = 16,
        local: bool = True,
        bands: bool = True,
        form: str = "kernel",
    ) -> None:
        super().__init__()
        check_geometry(kernel_size, stride, padding, dilation)
        if groups != 1:
            raise ValueError(f"groups must be 1: FDConv has one spectrum of all channels, got {groups}")
        if form not in PER_SAMPLE_FORMS:  # factors of single weights cannot be mixed into responses
            raise ValueError(f"form must be one of {', '.join(PER_SAMPLE_FORMS)}, got {form!r}")
        k_h, k_w = self.kernel_size = _pair(kernel_size)
        plane, taps = (k_h * out_channels, k_w * in_channels), k_h * k_w
        most = min(MOST_GROUPS, plane[0] * (plane[1] // 2 + 1))
        if not 1 <= num_experts <= most:
            raise ValueError(f"num_experts must be at least 1 and here at most {most}, got {num_experts}")
        self.form, self.out_channels = form, out_channels
        self.stride, self.padding, self.dilation = _pair(stride), _pair(padding), _pair(dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, k_h, k_w))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        init_kernels(self.weight)
        self.group_of: Tensor | None  # of each coefficient of the spectrum; None once it is a bank
        self.register_buffer("group_of", frequency_groups(*plane, num_experts), persistent=False)
        self.gain: nn.Parameter | None = None  # [C_out, C_in or 1, kH or 1, kW or 1], of what is folded
        self.trunk = Trunk(in_channels, trunk_width(in_channels, reduction))
        self.star = nn.Parameter(torch.tensor([1.0, 0.0]))  # StarReLU's scale and shift
        self.channel = nn.Linear(self.trunk.hidden, in_channels)
        self.filter = nn.Linear(self.trunk.hidden, out_channels)
        self.spatial = nn.Linear(self.trunk.hidden, taps) if taps > 1 else None
        self.frequency = nn.Linear(self.trunk.hidden, num_experts)
        size = _local_size(in_channels)
        self.local_norm = nn.LayerNorm(in_channels) if local else None
        self.local = nn.Conv1d(1, out_channels * taps, size, padding=size // 2, bias=False) if local else None
        self.bands = nn.Conv2d(in_channels, len(BANDS), 3, padding=1) if bands and taps > 1 else None
        self._start_at_rest(SMALL)

    @torch.no_grad()
    def _start_at_rest(self, scale: float) -> None:
        """Let all factors be 1, but for what weights of this scale make of it."""
        for head in (self.channel, self.filter, self.spatial, self.frequency, self.bands):
            if head is not None:
                nn.init.normal_(head.weight, std=scale)
                assert head.bias is not None
                nn.init.zeros_(head.bias)
        if self.local is not None:
            nn.init.constant_(self.local.weight, scale)

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in, k, k]``, multiplies the kernel (SGDM Eq. 10)."""
        if self.baked:
            return F.conv2d(self.banded(x), self.weight, self.bias, self.stride, self.padding, self.dilation)
        kernel, channels = self.kernel_and_channels(x, guide)
        x = self.banded(x) * channels[:, :, None, None]  # on the input, which is as good
        return conv_per_sample(x, kernel, self.bias, self.stride, self.padding, self.dilation, form=self.form)

    def mixed(self, x: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The kernel that convolves the banded input of each sample."""
        kernel, channels = self.kernel_and_channels(x, guide)
        return kernel * channels[:, None, :, None, None], self.bias

    def read(self, x: Tensor) -> tuple[Tensor, tuple[Size, Size, Size, int]]:
        """The banded input, which the kernels convolve, and how."""
        return self.banded(x), (self.stride, self.padding, self.dilation, 1)

    def weigh(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """The factors of the groups of frequencies, ``[B, 1, K]``."""
        return self.frequency_factors(self.shared(x.mean((2, 3))))[:, None]

    def expert_kernels(self) -> Tensor:
        """The part of the kernel in each group of frequencies, ``[K, C_out, C_in, kH, kW]``."""
        bank = self.weight if self.group_of is None else self.bank(self.group_of)
        return bank.unflatten(0, (self.frequency.out_features, -1))

    def bake(self, kernel: Tensor, bias: Tensor | None) -> None:
        """Keep this one kernel; the bands of the input stay as they are at each pixel."""
        self.weight, self.baked = nn.Parameter(kernel, False), True
        self.bias = None if bias is None else nn.Parameter(bias, False)
        for name in ("trunk", "filter", "spatial", "local", "local_norm", "frequency", "channel", "star", "group_of"):
            delattr(self, name)

    def kernel_and_channels(self, x: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The kernel of each sample, ``[B, C_out, C_in, kH, kW]``, and the factors of its input, ``[B, C_in]``."""
        pooled = x.mean((2, 3))  # [B, C_in]
        trunk = self.shared(pooled)
        factor = _factor(self.filter(trunk))[:, :, None, None, None]  # [B, C_out, 1, 1, 1]
        if self.spatial is not None:
            factor = factor * _factor(self.spatial(trunk)).reshape(-1, 1, 1, *self.kernel_size)
        for more in (self.local_factor(pooled), self.gain, guide):
            factor = factor if more is None else factor * more
        return scaled(self.of_groups(self.frequency_factors(trunk)), factor), _factor(self.channel(trunk))

    def shared(self, pooled: Tensor) -> Tensor:
        """What all factors but those of single weights share, ``[B, h]``, by a StarReLU."""
        return self.star[0] * self.trunk(pooled).square() + self.star[1]

    def frequency_factors(self, trunk: Tensor) -> Tensor:
        """Of the groups of frequencies, ``[B, K]``."""
        return _factor(self.frequency(trunk))

    def of_groups(self, factors: Tensor) -> Tensor:
        """The kernel of each sample by its factors of the groups, ``[B, K]``; once folded, a mixture of a bank."""
        if self.group_of is None:
            return mix_kernels(self.weight, factors)
        if len(factors) > self.frequency.out_features and not becomes_a_graph():  # fewer transforms, the same kernels
            return mix_kernels(self.bank(self.group_of), factors)
        return modulated(self.weight, factors, self.group_of)

    def bank(self, group_of: Tensor) -> Tensor:
        """The part of the kernel in each group of frequencies, ``[K*C_out, C_in, kH, kW]``; they sum to the kernel."""
        each = torch.eye(self.frequency.out_features, dtype=self.weight.dtype, device=self.weight.device)
        return modulated(self.weight, each, group_of).flatten(0, 1)

    def local_factor(self, pooled: Tensor) -> Tensor | None:
        """Of each single weight, ``[B, C_out, C_in, kH, kW]``, by a convolution along the pooled channels."""
        if self.local is None or self.local_norm is None:
            return None
        factor = _factor(self.local(self.local_norm(pooled)[:, None]))  # [B, C_out*kH*kW, C_in]
        factor = factor.reshape(pooled.shape[0], self.out_channels, -1, pooled.shape[1]).transpose(2, 3)
        return factor.unflatten(3, self.kernel_size)

    def banded(self, x: Tensor) -> Tensor:
        """The input with its bands scaled at each pixel; the sum of bands is written by their lower parts."""
        if self.bands is None:
            return x
        high, *lower = _factor(self.bands(x)).split(1, 1)  # [B, 1, H, W] each
        y = high * x
        for part, above, below in zip(BANDS, (high, *lower), (*lower, 1.0), strict=True):
            y = y + (below - above) * low_pass(x, part, constant=self.form == "kernel")
        return y

    @torch.no_grad()
    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Start as this static convolution: all factors are 1."""
        check_static(weight, self.weight.shape)
        self.weight.copy_(weight)
        self._start_at_rest(0.0)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    def guide_shape(self) -> tuple[int, int, int]:
        return 1, self.out_channels, self.weight.shape[1]

    @torch.no_grad()
    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold the trunk's norm, a guide and a following BatchNorm; few groups of frequencies become a bank."""
        if self.baked:  # all of it is in the kernel
            return
        self.trunk.fuse()
        gain = self.gain if guide is None or self.gain is None else self.gain * guide
        gain = guide if gain is None else gain
        if bn is not None:
            scale, shift = fold_scale(bn)
            gain = scale.view(-1, 1, 1, 1) * (1 if gain is None else gain)
            shift = shift if self.bias is None else shift + scale * self.bias
            self.bias = nn.Parameter(shift, requires_grad=False)
        count = self.frequency.out_features
        if self.group_of is not None and count <= MOST_IN_A_BANK:
            bank = self.bank(self.group_of).contiguous()
            self.weight, self.group_of = nn.Parameter(bank, requires_grad=False), None
        if gain is not None and self.group_of is None:
            self.weight = nn.Parameter(self.weight * gain.repeat(count, 1, 1, 1), requires_grad=False)
            gain = None
        self.gain = None if gain is None else nn.Parameter(gain.clone(), requires_grad=False)


def _factor(logits: Tensor) -> Tensor:
    return 2 * torch.sigmoid(logits)


def _local_size(channels: int) -> int:
    """Of the convolution along the channels, which grows with their logarithm: 3 from 4 on, 5 from 64, 7 from 1024."""
    return round(math.log2(channels) / 2 + 0.5) // 2 * 2 + 1
