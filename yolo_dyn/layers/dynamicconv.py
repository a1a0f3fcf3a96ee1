"""DynamicConv of "Dynamic Convolution: Attention over Convolution Kernels" (Chen et al., 2020).

https://arxiv.org/abs/1912.03458

Deviation: 3 input channels are squeezed to 3 // 4 + 1 = 1, in the published code to 4.
"""

import torch
from torch import Tensor

from yolo_dyn.layers.attention import KernelAttention, check_anneal, start_even
from yolo_dyn.layers.experts import Attention, ExpertConv, Experts
from yolo_dyn.layers.functional import Size

ANNEAL = {"start": 31.0, "step": 3.0}


class DynamicConv(ExpertConv):
    """Mix the expert kernels and their biases by a softmax attention with a temperature.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``.
        num_experts: number of expert kernels, K.
        reduction: the hidden width of the attention is ``in_channels // reduction + 1``.
        anneal: schedule of the temperature, ``{start, step}`` a training epoch down to 1; None for 1 throughout.
        form: of the mixture, see `functional.mixture_conv`.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = DynamicConv(16, 32, kernel_size=3, stride=2, padding=1)
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
        reduction: int = 4,
        anneal: dict[str, float] | None = ANNEAL,
        form: str = "kernel",
    ) -> None:
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, got {reduction}")
        geometry = (kernel_size, stride, padding, dilation, groups)
        super().__init__(Experts(in_channels, out_channels, *geometry, bias, num_experts, form))
        self.attention = KernelAttention(in_channels, num_experts, in_channels // reduction + 1)
        self.anneal, self.temperature = check_anneal(anneal), 1.0

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in/groups, k, k]``, multiplies the mixed kernel (SGDM Eq. 10)."""
        return self.experts(x, self.attend(x).experts, guide)  # (Eq. 2)

    def attend(self, x: Tensor) -> Attention:
        """Weights of the experts, which sum to one."""
        return Attention(torch.softmax(self.attention(x.mean((2, 3))) / self.temperature, 1))  # (Eq. 3)

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Start as this static convolution: the attention, which sums to one, is even."""
        start_even(self.attention.expand)
        self.experts.start_from(weight, bias)
