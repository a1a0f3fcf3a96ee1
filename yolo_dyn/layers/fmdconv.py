"""FMDConv of "Fast Multi-Attention Dynamic Convolution", Sec. 3.3 and Algorithm 1.

https://arxiv.org/abs/2503.17530

Readings:
- input and output attention share one trunk with its norm; the kernel attention has its own, without norm. So the
  counts of ResNet-18 come out, 45.203 M with four experts, where the bias is one per expert;
- the output attention scales the bias too (Algorithm 1, lines 20 to 26);
- the norm of the trunk falls back to its running statistics at batch 1, where BatchNorm cannot train.

Deviation: a depthwise FMDConv keeps its output attention, which the published code leaves out. The authors' weights
were kept before the temperature had fallen: they compute what they did at ``temperature = 34``, an attribute of each
layer.
"""

import torch
from torch import Tensor, nn

from yolo_dyn.layers.attention import (
    KernelAttention,
    Trunk,
    check_anneal,
    gate,
    start_at_a_half,
    start_even,
    trunk_width,
)
from yolo_dyn.layers.experts import Attention, ExpertConv, Experts
from yolo_dyn.layers.functional import Size

ATTENTIONS = ("input", "output", "kernel")
ANNEAL = {"start": 40.0, "step": 3.0}  # Sec. 3.3.2


class FMDConv(ExpertConv):
    """Attend to input channels, output channels and, with a temperature that falls in training, to the experts.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``.
        num_experts: number of expert kernels, K (Table 9).
        attentions: which of "input", "output", "kernel" are used (Table 2); without "kernel" the mean of the experts.
        reduction: the hidden width of the trunk is ``max(in_channels // reduction, 16)``.
        anneal: schedule of the temperature, ``{start, step}`` a training epoch down to 1 (Table 8); None for 1
            throughout.
        form: of the mixture, see `functional.mixture_conv`.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = FMDConv(16, 32, kernel_size=3, stride=2, padding=1)
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
        *,
        num_experts: int = 4,
        attentions: tuple[str, ...] | list[str] = ATTENTIONS,
        reduction: int = 16,
        anneal: dict[str, float] | None = ANNEAL,
        form: str = "kernel",
    ) -> None:
        if not attentions or not set(attentions) <= set(ATTENTIONS):
            raise ValueError(f"attentions must be some of {', '.join(ATTENTIONS)}, got {attentions!r}")
        geometry = (kernel_size, stride, padding, dilation, groups)
        super().__init__(Experts(in_channels, out_channels, *geometry, bias, num_experts, form))
        self.trunk = (
            Trunk(in_channels, trunk_width(in_channels, reduction)) if {"input", "output"} & set(attentions) else None
        )
        hidden = 0 if self.trunk is None else self.trunk.hidden
        self.input = nn.Linear(hidden, in_channels) if "input" in attentions else None
        self.output = nn.Linear(hidden, out_channels) if "output" in attentions else None
        self.kernel = (
            KernelAttention(in_channels, num_experts, in_channels // 4 + 1) if "kernel" in attentions else None
        )
        self.anneal, self.temperature = check_anneal(anneal), 1.0

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in/groups, k, k]``, multiplies the mixed kernel (SGDM Eq. 10)."""
        attention, inputs, output, _ = self.attend(x)
        if inputs is not None:
            x = x * inputs[:, :, None, None]
        return self.experts(x, attention, guide, output)  # (Eq. 5)

    def attend(self, x: Tensor) -> Attention:
        """All three attentions: of the experts they sum to one, the others lie between 0 and 1."""
        pooled = x.mean((2, 3))  # [B, C_in]
        attention = self.kernel_attention(pooled)
        if self.trunk is None:
            return Attention(attention)
        trunk = self.trunk(pooled)  # [B, h]
        return Attention(attention, gate(self.input, trunk), gate(self.output, trunk))

    def kernel_attention(self, pooled: Tensor) -> Tensor:
        """Weights of the experts, ``[B, K]``, which sum to one (Eq. 6)."""
        if self.kernel is None:
            return pooled.new_full((pooled.shape[0], self.experts.num_experts), 1 / self.experts.num_experts)
        return torch.softmax(self.kernel(pooled) / self.temperature, 1)

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Start as this static convolution; of the attentions, which start at a half, only output scales a bias."""
        gain = start_at_a_half(self.input, self.output)
        start_even(None if self.kernel is None else self.kernel.expand)
        self.experts.start_from(weight, bias, gain, bias_gain=1 if self.output is None else 2)

    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold the trunk's norm, and a guide and a following BatchNorm, which are constant at evaluation."""
        if self.trunk is not None:
            self.trunk.fuse()
        super().fuse(guide, bn)
