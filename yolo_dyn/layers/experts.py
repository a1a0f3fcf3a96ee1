"""The expert kernels of one convolution: the parameters that every kernel-mixing layer holds, and their mixture."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from yolo_dyn.layers.functional import (
    FORMS,
    Size,
    check_geometry,
    conv_per_sample,
    expert_responses,
    few_pixels,
    fold_scale,
    guided,
    init_kernels,
    mix_columns,
    mix_kernels,
    mix_responses,
)
from yolo_dyn.layers.graph import scaled
from yolo_dyn.layers.protocol import check_static

MOST_EXPERTS = 1024  # a bank of more would only fill up the memory
SPREAD = 0.1  # of experts that start as one static convolution, see `Experts.start_from`


def check_experts(num_experts: int) -> None:
    """Raise ValueError for a number of expert kernels that no layer can have."""
    if not 1 <= num_experts <= MOST_EXPERTS:
        raise ValueError(f"num_experts must be at least 1 and at most {MOST_EXPERTS}, got {num_experts}")


class Attention(NamedTuple):
    """What a layer attends to for each sample; None where it does not."""

    experts: Tensor  # [B, K]
    channels: Tensor | None = None  # [B, C_in], scales the input's channels
    filters: Tensor | None = None  # [B, C_out], scales the output's
    taps: Tensor | None = None  # [B, kH*kW], scales the taps of all kernels


class Experts(nn.Module):
    """K kernels with the geometry of one convolution, and the convolution with their mixture.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups: as in ``nn.Conv2d``.
        bias: one per expert, mixed like the kernels.
        num_experts: number of expert kernels, K.
        form: of the mixture, see `functional.mixture_conv`.

    Shape:
        ``[B, C_in, H, W]``, attention ``[B, K]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.
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
        num_experts: int = 4,
        form: str = "kernel",
    ) -> None:
        super().__init__()
        check_geometry(kernel_size, stride, padding, dilation)
        check_experts(num_experts)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide the {in_channels} input and {out_channels} output channels, got {groups}"
            )
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        self.num_experts, self.groups, self.form = num_experts, groups, form
        self.kernel_size: tuple[int, int] = _pair(kernel_size)
        self.stride, self.padding, self.dilation = _pair(stride), _pair(padding), _pair(dilation)
        self.weight = nn.Parameter(torch.empty(num_experts * out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(num_experts * out_channels)) if bias else None
        self.shift: nn.Parameter | None = None  # [C_out], a bias that no attention scales
        init_kernels(self.weight)

    @property
    def out_channels(self) -> int:
        return len(self.weight) // self.num_experts

    def mix(self, attention: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Kernel ``[B, C_out, C_in/groups, kH, kW]`` and bias ``[B, C_out]`` of each sample."""
        bias = None if self.bias is None else attention @ self.bias.view(self.num_experts, -1)
        return mix_kernels(guided(self.weight, guide), attention), bias

    def convolve(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve each sample with its own kernel."""
        if self.shift is not None:
            bias = self.shift if bias is None else bias + self.shift
        form = "unfold" if self.form == "unfold" else "kernel"
        return conv_per_sample(x, kernel, bias, self.stride, self.padding, self.dilation, self.groups, form)

    def forward(
        self,
        x: Tensor,
        attention: Tensor,
        guide: Tensor | None = None,
        output: Tensor | None = None,
        taps: Tensor | None = None,
    ) -> Tensor:
        """Convolve with the mixture.

        `output`, ``[B, C_out]`` or ``[1, C_out]``, scales the output channels, their bias with them; `taps`,
        ``[B, kH*kW]``, the taps of all kernels.
        """
        few = self.form == "kernel" and self.groups == 1 and few_pixels(x, self.num_experts, self.stride)
        if few or (self.form == "response" and taps is not None):
            geometry = (self.stride, self.padding, self.dilation)
            y = mix_columns(x, guided(self.weight, guide), attention, self.bias, *geometry, taps)
            return self._finish(y, output)
        if self.form == "response":
            return self.mix_responses(self.responses(x, guide), attention, output)
        return self.convolve(x, *self.scaled_mixture(attention, guide, output, taps))

    def scaled_mixture(
        self, attention: Tensor, guide: Tensor | None, output: Tensor | None, taps: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What `mix` gives, with its output channels and taps scaled."""
        kernel, bias = self.mix(attention, guide)
        factor = None if output is None else output[:, :, None, None, None]
        if taps is not None:
            by_tap = taps.view(-1, 1, 1, *self.kernel_size)
            factor = by_tap if factor is None else by_tap * factor
        kernel = kernel if factor is None else scaled(kernel, factor)
        return kernel, bias if bias is None or output is None else bias * output

    def mixed(self, attention: Attention, guide: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """All that is done to each sample, as one kernel and bias, see `protocol.MixesKernels`."""
        kernel, bias = self.scaled_mixture(attention.experts, guide, attention.filters, attention.taps)
        if attention.channels is not None:  # those of a group are seen by the group's filters alone
            by_group = attention.channels.unflatten(1, (self.groups, -1))
            kernel = kernel * by_group.repeat_interleave(self.out_channels // self.groups, 1)[..., None, None]
        if self.shift is not None:
            bias = self.shift.expand(len(kernel), -1) if bias is None else bias + self.shift
        return kernel, bias

    def responses(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """Of all experts, ``[B, groups*K*C_out/groups, H', W']``, see `functional.expert_responses`."""
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        return expert_responses(x, guided(self.weight, guide), self.num_experts, self.bias, *geometry)

    def mix_responses(self, responses: Tensor, attention: Tensor, output: Tensor | None = None) -> Tensor:
        """What `forward` gives, from the responses of all experts that are there already."""
        return self._finish(mix_responses(responses, attention, self.groups), output)

    def _finish(self, y: Tensor, output: Tensor | None) -> Tensor:
        if output is not None:
            y = y * output[:, :, None, None]
        return y if self.shift is None else y + self.shift[:, None, None]

    @torch.no_grad()
    def start_from(
        self,
        weight: Tensor,
        bias: Tensor | None,
        gain: float = 1.0,
        bias_gain: float = 1.0,
        spread: float = SPREAD,
    ) -> None:
        """Start every expert as the same static convolution, times gains that make up for the attentions.

        Alike experts with even attentions get the same gradients for ever, and their attention none. So each differs
        by a random part, which no output shows: the parts of all experts sum to zero. `spread` is their root mean
        square in that of the static kernel; it must be 0 where the attention does not start even.
        """
        check_static(weight, (self.out_channels, *self.weight.shape[1:]))
        parts = torch.randn_like(self.weight).unflatten(0, (self.num_experts, -1))
        parts = spread * weight.square().mean().sqrt() * (parts - parts.mean(0))
        self.weight.copy_(gain * (weight + parts).flatten(0, 1))
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias_gain * bias.repeat(self.num_experts))

    @torch.no_grad()
    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold a guide and a following BatchNorm, both constant at evaluation, into kernels and biases."""
        self.weight = nn.Parameter(guided(self.weight, guide).detach(), requires_grad=False)
        if bn is not None:
            scale = self.fuse_shift(bn)
            self.weight.mul_(scale.repeat(self.num_experts).view(-1, 1, 1, 1))
            if self.bias is not None:
                self.bias.mul_(scale.repeat(self.num_experts))

    @torch.no_grad()
    def fuse_shift(self, bn: nn.BatchNorm2d) -> Tensor:
        """Take over a BatchNorm's shift alone; return its scale, ``[C_out]``, to be folded elsewhere."""
        scale, shift = fold_scale(bn)
        shift = shift if self.shift is None else shift + scale * self.shift
        self.shift = nn.Parameter(shift, requires_grad=False)
        return scale

    def extra_repr(self) -> str:
        k, out = self.num_experts, self.out_channels
        return f"{k} experts, {self.weight.shape[1] * self.groups}, {out}, {self.kernel_size}, stride={self.stride}"


class ExpertConv(nn.Module):
    """What the layers that mix expert kernels have in common: the bank, and what is done to it from outside.

    How a layer attends to its experts, and when it does, is its own; see `protocol` for these methods.
    """

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        self.experts = experts

    sums_to_one = True  # the attention to the experts; see `protocol.WeighsExperts`

    def attend(self, x: Tensor) -> Attention:
        raise NotImplementedError

    def weigh(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """The attention to the experts alone, ``[B, 1, K]``."""
        return self.attend(x).experts[:, None]

    def expert_kernels(self) -> Tensor:
        """``[K, C_out, C_in/groups, kH, kW]``."""
        return self.experts.weight.unflatten(0, (self.experts.num_experts, -1))

    @property
    def geometry(self) -> tuple[Size, Size, Size, int]:
        """Stride, padding, dilation and groups."""
        return self.experts.stride, self.experts.padding, self.experts.dilation, self.experts.groups

    def mixed(self, x: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return self.experts.mixed(self.attend(x), guide)

    def guide_shape(self) -> tuple[int, int, int]:
        return 1, self.experts.out_channels, self.experts.weight.shape[1]

    @torch.no_grad()
    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold a guide and a following BatchNorm, both constant at evaluation, into the experts."""
        self.experts.fuse(guide, bn)
