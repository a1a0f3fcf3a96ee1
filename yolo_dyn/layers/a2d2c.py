"""A2D2C and A2D2C+ of "Adaptive Attention-Driven Dynamic Convolution", Sec. 3.2 to 3.4.

Readings and deviations:
- the text routes each kernel's own sample of M positions by one shared linear map. Its bias is the same for all kernels
  and so cancels in the softmax; it is left out;
- since all positions are drawn from one distribution, a shared router tells the kernels apart by the draw alone: the
  more positions, the more equal the attention. ``router="separate"`` gives each kernel a router of its own;
- in training the positions are drawn anew for each batch, at evaluation they are fixed, from a seed: the same input
  always gives the same output;
- the paper's counts contradict its text (43.93 and 44.93 M for one model); we build the text.
"""

import torch
from torch import Tensor, nn

from yolo_dyn.layers.attention import check_anneal
from yolo_dyn.layers.experts import Experts
from yolo_dyn.layers.functional import Size

ANNEAL = {"start": 30.0, "step": 2.9}  # Sec. 4.1: linearly to 1 over 10 epochs
SAMPLINGS = ("random", "fixed", "uniform", "none")
ROUTERS = ("shared", "separate")
_GRID = 1 << 16  # positions are stored as integers in [0, 65536), exact in half precision models too


class A2D2C(nn.Module):
    """Mix the expert kernels by a softmax over what a few sampled positions of the input say about each.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``.
        num_experts: number of base kernels, K (Table 11).
        num_points: sampled positions for each kernel, M (Table 9).
        sampling: "random"; or one of the controls of Table 12: "fixed" (as at evaluation), "uniform" (a regular grid),
            "none" (global average pooling).
        router: "shared", as the text has it, or "separate", one for each kernel. Without random or fixed positions all
            kernels see the same, so the router must then be separate.
        anneal: schedule of the temperature, ``{start, step}`` a training epoch down to 1; None for 1 throughout.
        form: of the mixture, see `functional.mixture_conv`; the class's own by default.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.
    """

    form = "kernel"
    points: Tensor

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
        num_points: int = 100,
        sampling: str = "random",
        router: str = "shared",
        anneal: dict[str, float] | None = ANNEAL,
        form: str | None = None,
    ):
        super().__init__()
        for wrong, message in (
            (num_points < 1, f"num_points must be at least 1, got {num_points}"),
            (sampling not in SAMPLINGS, f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}"),
            (router not in ROUTERS, f"router must be one of {', '.join(ROUTERS)}, got {router!r}"),
            (
                router == "shared" and sampling in ("uniform", "none"),
                f"router must be separate with sampling {sampling!r}: all kernels see the same positions",
            ),
        ):
            if wrong:
                raise ValueError(message)
        self.experts = Experts(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            num_experts,
            form or self.form,
        )
        self.router = nn.Linear(in_channels, 1 if router == "shared" else num_experts, bias=False)
        self.sampling = sampling
        self.anneal, self.temperature = check_anneal(anneal), 1.0
        shape = (2, num_experts, num_points)
        if sampling == "uniform":
            side = round(num_points**0.5)
            grid = (torch.arange(side) * 2 + 1) * _GRID // (2 * side)
            points = torch.cartesian_prod(grid, grid).T[:, None].expand(2, num_experts, -1).clone()
        else:
            points = torch.randint(_GRID, shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("points", points, persistent=False)  # [2, K, M], rows and columns

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in/groups, k, k]``, multiplies the mixed kernel (SGDM Eq. 10)."""
        logits = self.logits(x)  # [B, K]
        return self.experts(x, torch.softmax(logits / self.temperature, 1), guide)  # (Eq. 5 to 7)

    def logits(self, x: Tensor) -> Tensor:
        """Average each kernel's positions and route them, ``[B, K]`` (Eq. 3, 4)."""
        if self.sampling == "none":
            return self.router(x.mean((2, 3)))
        points = torch.randint_like(self.points, _GRID) if self.training and self.sampling == "random" else self.points
        rows, columns = points[0] * x.shape[2] // _GRID, points[1] * x.shape[3] // _GRID
        descriptors = x[:, :, rows, columns].mean(3)  # [B, C_in, K]
        if self.router.out_features == 1:
            return self.router(descriptors.transpose(1, 2)).squeeze(2)
        return torch.einsum("bck,kc->bk", descriptors, self.router.weight)

    def cannot_export(self, target: str) -> str:
        """Why a format cannot take this layer; empty where it can."""
        if target != "ncnn" or self.sampling == "none":
            return ""
        return (
            f"sampling={self.sampling} picks positions by their number, which NCNN cannot; accepted: format=onnx,"
            " openvino or torchscript, or a model trained with sampling: none"
        )

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Start as this static convolution: the attention sums to one."""
        self.experts.start_from(weight, bias)

    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold a guide and a following BatchNorm, both constant at evaluation, into the experts."""
        self.experts.fuse(guide, bn)


class A2D2CPlus(A2D2C):
    """A2D2C that mixes the responses of the base kernels instead of the kernels (Eq. 8): the same numbers.

    On a CPU it costs several times the kernel form: it convolves once for each base kernel. Arguments, shapes and
    errors are those of `A2D2C`.
    """

    form = "response"
