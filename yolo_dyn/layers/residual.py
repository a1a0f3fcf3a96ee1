"""Dynamic residual convolution of "Dynamic Mobile-Former", Sec. 3.3, Eq. 2 and Fig. 3.

https://arxiv.org/abs/2304.07254

The paper does not describe its kernel attention. The counts of its Table 1 follow from two fully connected layers
without biases, a BatchNorm between them, and a hidden width as large as the token. The authors' implementation also
scales the static kernels by 0.1, which slows their training down and is not in the paper: not done here.
"""

import torch
from torch import Tensor, nn

from yolo_dyn.layers.attention import Trunk, check_anneal, trunk_width
from yolo_dyn.layers.experts import Attention, ExpertConv, Experts, check_experts
from yolo_dyn.layers.functional import Size
from yolo_dyn.layers.protocol import check_static

ANNEAL = {"start": 30.0, "step": 2.9}  # to 1 over 10 epochs
ACTIVATIONS = {"sigmoid": torch.sigmoid, "softmax": lambda z: torch.softmax(z, 1)}
INITS = ("zero", "random")


class DynamicResidualConv(ExpertConv):
    """Add a mixture of expert kernels, which starts at zero, to an input-agnostic kernel.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``.
        num_experts: number of static kernels in the mixture, K (Table 8).
        token_channels: channels of the global token that the attention may look at too; 0 for none.
        activation: of the attention, "sigmoid" or "softmax" (Table 6).
        init: of the static kernels, "zero" or "random" (Table 7).
        residual: whether there is an input-agnostic kernel (Table 3); without it `init` must be "random".
        reduction: the hidden width of the attention is ``max(C_in // reduction, 16)``; `token_channels` with a token.
        anneal: schedule of the temperature, ``{start, step}`` a training epoch down to 1; None for 1 throughout.
        form: of the mixture, see `functional.mixture_conv`.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``; the token is ``[B, token_channels]``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = DynamicResidualConv(16, 32, kernel_size=3, stride=2, padding=1)
        >>> layer(torch.rand(2, 16, 20, 20)).shape
        torch.Size([2, 32, 10, 10])
    """

    residual = True  # of checkpoints from before it was an argument

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
        token_channels: int = 0,
        activation: str = "sigmoid",
        init: str = "zero",
        residual: bool = True,
        reduction: int = 16,
        anneal: dict[str, float] | None = ANNEAL,
        form: str = "kernel",
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if init not in INITS:
            raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")
        check_experts(num_experts)
        if init == "zero" and not residual:
            raise ValueError("init must be 'random' without the residual kernel: all kernels would be zero, got 'zero'")
        kernels = num_experts + residual  # the input-agnostic kernel is the first, and its attention always one
        geometry = (kernel_size, stride, padding, dilation, groups)
        super().__init__(Experts(in_channels, out_channels, *geometry, False, kernels, form))
        if init == "zero":
            nn.init.zeros_(self.experts.weight[out_channels:])
        self.experts.shift = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.trunk = Trunk(in_channels + token_channels, token_channels or trunk_width(in_channels, reduction))
        self.kernel = nn.Linear(self.trunk.hidden, num_experts, bias=False)
        self.activation, self.residual = activation, residual
        self.anneal, self.temperature = check_anneal(anneal), 1.0

    def forward(self, x: Tensor, guide: Tensor | None = None, token: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in/groups, k, k]``, multiplies the mixed kernel (SGDM Eq. 10)."""
        return self.experts(x, self.attend(x, token).experts, guide)  # (Eq. 2)

    def attend(self, x: Tensor, token: Tensor | None = None) -> Attention:
        """Weights of the experts; that of the input-agnostic kernel, the first, is one."""
        pooled = x.mean((2, 3))  # [B, C_in]
        pooled = pooled if token is None else torch.cat([pooled, token], 1)
        attention = ACTIVATIONS[self.activation](self.kernel(self.trunk(pooled)) / self.temperature)  # [B, K]
        if self.residual:
            attention = torch.cat([torch.ones_like(attention[:, :1]), attention], 1)
        return Attention(attention)

    def mixed(
        self, x: Tensor, guide: Tensor | None = None, token: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        return self.experts.mixed(self.attend(x, token), guide)

    @property
    def sums_to_one(self) -> bool:  # type: ignore[override]
        return self.activation == "softmax"

    def weigh(self, x: Tensor, guide: Tensor | None = None, token: Tensor | None = None) -> Tensor:
        """Of the dynamic kernels: the input-agnostic one is no expert."""
        return self.attend(x, token).experts[:, None, int(self.residual) :]

    def expert_kernels(self) -> Tensor:
        return super().expert_kernels()[int(self.residual) :]

    @torch.no_grad()
    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Start as this static convolution: it becomes the input-agnostic kernel, or every kernel without that one."""
        if self.residual:
            check_static(weight, (self.experts.out_channels, *self.experts.weight.shape[1:]))
            self.experts.weight.zero_()
            self.experts.weight[: len(weight)] = weight
        else:
            nn.init.zeros_(self.kernel.weight)
            total = ACTIVATIONS[self.activation](torch.zeros(1, self.kernel.out_features)).sum().item()
            self.experts.start_from(weight, None, 1 / total)
        if self.experts.shift is not None and bias is not None:
            self.experts.shift.copy_(bias)

    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold what is constant at evaluation: a guide and the BatchNorms."""
        self.trunk.fuse()
        super().fuse(guide, bn)
