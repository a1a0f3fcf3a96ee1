"""Static-Guided Dynamic Module (SGDM) of "SGDM: Static-Guided Dynamic Module Make Stronger Visual Models", Sec. 3.4.

https://arxiv.org/abs/2403.18282

Deviations and choices, where the paper is silent or contradicts itself:
- Eq. 9 concatenates X'_h twice; the second is X'_w;
- the static strips are dense (g -> g, as Eq. 8 writes them) and followed by BatchNorm and SiLU;
- Sec. 4.4: at the defaults the strips map onto RDConv's weights directly. They do: a strip has ``g * g * 9`` values,
  and so has the bank of four experts of g / 2 channels. ``guide="reshape"`` gives every expert a guide of its own;
- where the counts differ (another razor ratio, an odd g), the same passage implies a convolution in between:
  ``guide="conv"`` is a learnt ``P G Q^T`` for each tap. ``guide="average"`` averages neighbouring channels instead;
- the guide is scaled to unit variance at initialisation. Unscaled, it would multiply two freshly initialised kernels,
  and the dynamic branch would vanish;
- Sec. 4.4 speaks of residual links, which neither Eq. 8 nor Fig. 2 has: ``residual=True`` adds them.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_dyn.layers.blocks import ConvNorm, with_norm
from yolo_dyn.layers.functional import SILU_GAIN
from yolo_dyn.layers.graph import cat_silu
from yolo_dyn.layers.protocol import Guidable, LeavesOpen, options_of, parts
from yolo_dyn.layers.rdconv import RDConv

GUIDES = ("reshape", "conv", "average", "none")


class SGDM(nn.Module):
    """Split the channels into a dynamic part, two static strips and an identity; let the strips guide the dynamic part.

    Args:
        in_channels, out_channels: C, equal.
        ratio: split ratio r of the paper's Table 8, in (0, 1/3]; g = round(r C) channels for each of three branches.
        kernel_size: k_d, size of the dynamic kernel, odd.
        static_size: k_s, length of the static strips; ``k_d * k_d`` (the default), so that a strip reshapes to the
            dynamic kernel. Any odd length with ``guide="none"``.
        strip_size: length of the strips in RDConv's spatial branch (Table 7).
        razor_ratio: RDConv's razor ratio (Table 6), which is called `ratio` there.
        num_experts: number of the dynamic layer's expert kernels, K.
        guide: how the strips become the guide of the dynamic kernel: "reshape", "conv", "average", or "none" to switch
            it off. By default "reshape" if the strips have as many values as RDConv's bank, or as the kernel of
            another dynamic layer, and "conv" elsewhere.
        residual: add its own input to each of the three branches.
        dynamic: class of the dynamic layer (Table 3); in a YAML its name. A convolution mixes all g channels and is
            followed by BatchNorm and SiLU. Its guide is W_h + W_w, tap by tap, the same for all experts.
        **options: the dynamic layer's own.

    Shape:
        ``[B, C, H, W]`` -> ``[B, C, H, W]``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = SGDM(32, 32, ratio=0.25, guide="reshape")
        >>> layer(torch.rand(2, 32, 20, 20)).shape
        torch.Size([2, 32, 20, 20])
    """

    residual = False  # of checkpoints from before it was an argument

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        ratio: float = 0.25,
        kernel_size: int = 3,
        static_size: int | None = None,
        strip_size: int = 15,
        razor_ratio: float = 0.5,
        num_experts: int = 4,
        guide: str | None = None,
        residual: bool = False,
        dynamic: type[nn.Module] = RDConv,
        **options: Any,
    ) -> None:
        super().__init__()
        static_size = kernel_size * kernel_size if static_size is None else static_size
        _check_sizes(in_channels, out_channels, ratio, kernel_size, static_size, razor_ratio)
        _check_guide(guide, dynamic, kernel_size, static_size)
        g = min(round(ratio * in_channels), in_channels // 3)
        if g < 2:
            raise ValueError(f"ratio {ratio} of {in_channels} channels leaves {g} for a branch, at least 2 are needed")
        self.split = [g, g, g, in_channels - 3 * g]  # channels of X_rd, X_h, X_w, X_id
        offered = {"num_experts": num_experts, "ratio": razor_ratio, "strip_size": strip_size}
        options = {name: value for name, value in offered.items() if name in options_of(dynamic)} | options
        self.dynamic: Any = with_norm(dynamic, g, g, kernel_size, **options)
        self.static_h = ConvNorm(g, g, (static_size, 1))
        self.static_w = ConvNorm(g, g, (1, static_size))
        self.kernel_size, self.residual = kernel_size, residual
        self.guide = "none"
        if guide != "none":
            self._set_guide(guide, g, static_size)

    def _set_guide(self, guide: str | None, g: int, static_size: int) -> None:
        """Choose how strips of g channels become the guide, and scale it to unit variance."""
        guides, *self.kernel_channels = self.dynamic.guide_shape()
        values = guides * math.prod(self.kernel_channels)
        if guide == "reshape" and values != g * g:
            raise ValueError(
                f"guide 'reshape' needs strips and dynamic kernels with as many values: {g} * {g} * {static_size} and "
                f"{values} * {static_size} were found; accepted here: conv, average, none"
            )
        self.guide = guide or ("reshape" if values == g * g else "conv")
        # strips start with variance SILU_GAIN^2 / (g k_s); the guide adds two, an average of n^2 of them divides by n
        self.guide_scale = math.sqrt(g * static_size / 2) / SILU_GAIN
        self.guide_scale *= g / self.kernel_channels[0] if self.guide == "average" else 1
        if self.guide == "conv":  # orthogonal rows keep the variance
            self.guide_out = nn.Parameter(nn.init.orthogonal_(torch.empty(self.kernel_channels[0], g)))  # P
            self.guide_in = nn.Parameter(nn.init.orthogonal_(torch.empty(self.kernel_channels[1], g)))  # Q

    def guide_kernel(self) -> Tensor | None:
        """The guide, ``[C_out, C_in/groups, k, k]``, or one for each expert, ``[K*C_out, ...]``; None if it is off."""
        if self.guide == "none":
            return None
        guide = self.guide_scale * (self.static_h.weight.flatten(2) + self.static_w.weight.flatten(2))  # [g, g, k*k]
        if self.guide == "conv":
            guide = torch.einsum("og,ghk,ih->oik", self.guide_out, guide, self.guide_in)
        if self.guide == "average":
            guide = F.adaptive_avg_pool2d(guide.permute(2, 0, 1), self.kernel_channels).permute(1, 2, 0)
        return guide.reshape(-1, self.kernel_channels[1], self.kernel_size, self.kernel_size)  # psi (Eq. 10)

    def forward(self, x: Tensor) -> Tensor:
        rd, h, w, identity = x.split(self.split, 1)
        done, due = parts(self.dynamic(rd, self.guide_kernel()))
        y = cat_silu(done, [*due, self.static_h(h), self.static_w(w)], identity)  # (Eq. 8, with W'_rd of Eq. 10; Eq. 9)
        return y + torch.cat([rd, h, w, torch.zeros_like(identity)], 1) if self.residual else y

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the guide and the BatchNorms, which are constant at evaluation, into the kernels, once."""
        self.dynamic.fuse(self.guide_kernel())  # before the strips' own BatchNorms change their weights
        self.guide = "none"
        self.static_h.fuse()
        self.static_w.fuse()
        if isinstance(self.dynamic, LeavesOpen):  # one concatenation and one SiLU for both layers
            self.dynamic.leave_open()

    def unnamed_options(self) -> dict[str, Any]:
        """Arguments that a row may leave out in a checkpoint of an earlier release, whose default they were."""
        return {"guide": "average"} if self.guide == "average" else {}

    def log_note(self) -> str:
        """What the table of a model's rows says beside the arguments."""
        return f"guide: {self.guide}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "guided" in self.__dict__:  # checkpoints from before dynamic kernels had groups
            self.kernel_channels = [self.__dict__.pop("guided")] * 2


def _check_sizes(
    in_channels: int, out_channels: int, ratio: float, kernel_size: int, static_size: int, razor_ratio: float
) -> None:
    if in_channels != out_channels:
        raise ValueError(f"SGDM keeps the channels: got {in_channels} in and {out_channels} out")
    if not 0 < ratio <= 1 / 3:
        raise ValueError(f"ratio must lie in (0, 1/3], got {ratio}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {kernel_size}")
    if not 0 < razor_ratio < 1:
        raise ValueError(f"razor_ratio must lie in (0, 1), got {razor_ratio}")
    if static_size < 1 or static_size % 2 == 0:
        raise ValueError(f"static_size must be odd, got {static_size}")


def _check_guide(guide: str | None, dynamic: type[nn.Module], kernel_size: int, static_size: int) -> None:
    if guide not in (None, *GUIDES):
        raise ValueError(f"guide must be one of {', '.join(GUIDES)}, got {guide!r}")
    if guide == "none":
        return
    if not issubclass(dynamic, Guidable):
        raise ValueError(f"{dynamic.__name__} takes no guide: set guide to 'none'")
    if static_size != kernel_size * kernel_size:
        raise ValueError(
            f"a strip of static_size {static_size} cannot be reshaped to the dynamic kernel of kernel_size "
            f"{kernel_size}: static_size must be {kernel_size * kernel_size}, or guide 'none'"
        )
