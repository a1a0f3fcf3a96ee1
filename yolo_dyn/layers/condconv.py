"""CondConv of "CondConv: Conditionally Parameterized Convolutions for Efficient Inference" (Yang et al., 2019).

https://arxiv.org/abs/1904.04971

Reading: the bias is one for all experts, not mixed; so the count of ResNet-18 with eight experts comes out, 81.356 M.
"""

import torch
from torch import Tensor, nn

from yolo_dyn.layers.attention import start_even
from yolo_dyn.layers.experts import Attention, ExpertConv, Experts
from yolo_dyn.layers.functional import Size


class CondConv(ExpertConv):
    """Mix the expert kernels by a sigmoid routing of the pooled input.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``.
        num_experts: number of expert kernels, K.
        form: of the mixture, see `functional.mixture_conv`.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = CondConv(16, 32, kernel_size=3, stride=2, padding=1, num_experts=8)
        >>> layer(torch.rand(2, 16, 20, 20)).shape
        torch.Size([2, 32, 10, 10])
    """

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
        num_experts: int = 8,
        form: str = "kernel",
    ) -> None:
        geometry = (kernel_size, stride, padding, dilation, groups)
        super().__init__(Experts(in_channels, out_channels, *geometry, False, num_experts, form))
        self.experts.shift = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.routing = nn.Linear(in_channels, num_experts)

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in/groups, k, k]``, multiplies the mixed kernel (SGDM Eq. 10)."""
        return self.experts(x, self.attend(x).experts, guide)  # (Eq. 1)

    def attend(self, x: Tensor) -> Attention:
        """Weights of the experts, each from 0 to 1."""
        return Attention(torch.sigmoid(self.routing(x.mean((2, 3)))))  # (Eq. 2)

    @torch.no_grad()
    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Start as this static convolution: every routing weight is a half."""
        start_even(self.routing)
        self.experts.start_from(weight, None, gain=2 / self.experts.num_experts)
        if self.experts.shift is not None and bias is not None:
            self.experts.shift.copy_(bias)
