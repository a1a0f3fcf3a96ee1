"""ODConv of "Omni-Dimensional Dynamic Convolution" (Li et al., 2022).

https://arxiv.org/abs/2209.07947

Deviations:
- the temperature divides the logits of the kernel attention alone, and stays 1 unless `anneal` is given; in the
  published code it divides those of all four attentions, and falls from 30 to 1 over 10 epochs (as `anneal` of 30 by
  2.9). From then on both are the same;
- the norm of the trunk falls back to its running statistics at batch 1, where BatchNorm cannot train;
- the bias, which the paper does not have, is mixed like the kernels and scaled by the filter attention.
"""

import torch
from torch import Tensor, nn

from yolo_dyn.layers.attention import Trunk, check_anneal, gate, start_at_a_half, start_even, trunk_width
from yolo_dyn.layers.experts import Attention, ExpertConv, Experts
from yolo_dyn.layers.functional import PER_SAMPLE_FORMS, Size

ATTENTIONS = ("spatial", "channel", "filter", "kernel")


class ODConv(ExpertConv):
    """Attend to all four dimensions of the kernel space: taps, input channels, filters and expert kernels.

    A 1x1 convolution has no spatial attention, a depthwise one no filter attention, a single expert no kernel
    attention.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``.
        num_experts: number of expert kernels, K.
        attentions: which of "spatial", "channel", "filter", "kernel" are used; without "kernel", the experts'
            mean.
        reduction: the hidden width of the trunk is ``max(in_channels // reduction, 16)``.
        anneal: schedule of the temperature, ``{start, step}`` a training epoch down to 1; None for 1 throughout.
        form: "kernel" or "unfold", see `functional.conv_per_sample`.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = ODConv(16, 32, kernel_size=3, stride=2, padding=1, attentions=["filter", "kernel"])
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
        anneal: dict[str, float] | None = None,
        form: str = "kernel",
    ) -> None:
        if not attentions or not set(attentions) <= set(ATTENTIONS):
            raise ValueError(f"attentions must be some of {', '.join(ATTENTIONS)}, got {attentions!r}")
        if form not in PER_SAMPLE_FORMS:  # a spatial attention cannot be mixed into responses
            raise ValueError(f"form must be one of {', '.join(PER_SAMPLE_FORMS)}, got {form!r}")
        geometry = (kernel_size, stride, padding, dilation, groups)
        super().__init__(Experts(in_channels, out_channels, *geometry, bias, num_experts, form))
        taps = self.experts.kernel_size[0] * self.experts.kernel_size[1]
        depthwise = groups == in_channels == out_channels
        self.trunk = Trunk(in_channels, trunk_width(in_channels, reduction))

        def head(name: str, width: int, used: bool) -> nn.Linear | None:
            return nn.Linear(self.trunk.hidden, width) if used and name in attentions else None

        self.spatial = head("spatial", taps, taps > 1)
        self.channel = head("channel", in_channels, True)
        self.filter = head("filter", out_channels, not depthwise)
        self.kernel = head("kernel", num_experts, num_experts > 1)
        self.anneal, self.temperature = check_anneal(anneal), 1.0

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in/groups, k, k]``, multiplies the mixed kernel (SGDM Eq. 10)."""
        attention, channels, filters, taps = self.attend(x)
        if channels is not None:  # the input's channels are the kernels': their factor may go either way
            x = x * channels[:, :, None, None]
        return self.experts(x, attention, guide, filters, taps)  # (Eq. 2)

    def attend(self, x: Tensor) -> Attention:
        """All four attentions: of the experts they sum to one, the others lie between 0 and 1."""
        trunk = self.trunk(x.mean((2, 3)))  # [B, h]
        others = (gate(part, trunk) for part in (self.channel, self.filter, self.spatial))
        return Attention(self.kernel_attention(trunk), *others)

    def kernel_attention(self, trunk: Tensor) -> Tensor:
        """Weights of the experts, ``[B, K]``, which sum to one."""
        if self.kernel is None:
            return trunk.new_full((trunk.shape[0], self.experts.num_experts), 1 / self.experts.num_experts)
        return torch.softmax(self.kernel(trunk) / self.temperature, 1)

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Start as this static convolution; of the attentions, which start at a half, only filter scales a bias."""
        gain = start_at_a_half(self.spatial, self.channel, self.filter)
        start_even(self.kernel)
        self.experts.start_from(weight, bias, gain, bias_gain=1 if self.filter is None else 2)

    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold the trunk's norm, and a guide and a following BatchNorm, which are constant at evaluation."""
        self.trunk.fuse()
        super().fuse(guide, bn)
