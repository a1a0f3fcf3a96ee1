"""Static-Guided Dynamic Module (SGDM) of "SGDM: Static-Guided Dynamic Module Make Stronger Visual Models", Sec. 3.4.

Deviations and choices, where the paper is silent or contradicts itself:
- Eq. 9 concatenates X'_h twice; the second is X'_w;
- the static strips are dense (g -> g, as Eq. 8 writes them) and followed by BatchNorm and SiLU;
- the paper says that at its defaults the strip kernels map onto the dynamic kernel directly, but [g, g, 9] does not fit
  [c_r, c_r, 3, 3]: ``guide="average"`` averages neighbouring channels, without parameters;
- the guide is scaled to unit variance at initialisation. Unscaled, it would multiply two freshly initialised kernels,
  and the dynamic branch would vanish.
"""

import inspect
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_dyn.layers.blocks import ConvNorm, ConvNormAct
from yolo_dyn.layers.functional import SILU_GAIN
from yolo_dyn.layers.rdconv import RDConv

GUIDES = ("average", "none")


def guide_kernel(weight_h: Tensor, weight_w: Tensor, channels: int, kernel_size: int) -> Tensor:
    """Turn the two static strips into a guide for the dynamic kernel (SGDM Eq. 10).

    Args:
        weight_h: vertical strips, ``[g, g, k*k, 1]``.
        weight_w: horizontal strips, ``[g, g, 1, k*k]``.
        channels: intrinsic channels of the dynamic kernel, c_r; neighbouring strip channels are averaged.
        kernel_size: k; each strip of ``k*k`` taps is reshaped to ``k x k`` (the paper's psi).

    Returns:
        ``[c_r, c_r, k, k]``.
    """
    strips = (weight_h.flatten(2) + weight_w.flatten(2)).permute(2, 0, 1)  # [k*k, g, g]
    strips = F.adaptive_avg_pool2d(strips, (channels, channels))  # [k*k, c_r, c_r]
    return strips.permute(1, 2, 0).reshape(channels, channels, kernel_size, kernel_size)


class SGDM(nn.Module):
    """Split the channels into a dynamic part, two static strips and an identity; let the strips guide the dynamic part.

    Args:
        in_channels, out_channels: C, equal.
        ratio: split ratio r of the paper's Table 8, in (0, 1/3]; g = round(r C) channels for each of three branches.
        kernel_size: k_d, size of the dynamic kernel, odd.
        static_size: k_s, length of the static strips; ``k_d * k_d`` (the default), so that a strip reshapes to the
            dynamic kernel. Any odd length with ``guide="none"``.
        strip_size: length of the strips in RDConv's spatial branch (Table 7).
        razor_ratio: RDConv's razor ratio (Table 6).
        num_experts: number of the dynamic layer's expert kernels, K.
        guide: "average", or "none" to switch the guide off.
        dynamic: class of the dynamic layer (Table 3); in a YAML its name. One that is no RDConv mixes all g channels
            and is followed by BatchNorm and SiLU. The guide then needs no average: it is W_h + W_w, tap by tap.
        **options: the dynamic layer's own.

    Shape:
        ``[B, C, H, W]`` -> ``[B, C, H, W]``.

    Raises:
        ValueError: for an argument outside its range; the message names it.
    """

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
        guide: str = "average",
        dynamic: type[nn.Module] = RDConv,
        **options: Any,
    ):
        super().__init__()
        static_size = kernel_size * kernel_size if static_size is None else static_size
        g = min(round(ratio * in_channels), in_channels // 3)
        for wrong, message in (
            (in_channels != out_channels, f"SGDM keeps the channels: got {in_channels} in and {out_channels} out"),
            (not 0 < ratio <= 1 / 3, f"ratio must lie in (0, 1/3], got {ratio}"),
            (g < 2, f"ratio {ratio} of {in_channels} channels leaves {g} for a branch, at least 2 are needed"),
            (kernel_size < 1 or kernel_size % 2 == 0, f"kernel_size must be odd, got {kernel_size}"),
            (not 0 < razor_ratio < 1, f"razor_ratio must lie in (0, 1), got {razor_ratio}"),
            (static_size < 1 or static_size % 2 == 0, f"static_size must be odd, got {static_size}"),
            (guide not in GUIDES, f"guide must be one of {', '.join(GUIDES)}, got {guide!r}"),
            (guide != "none" and not _takes_guide(dynamic), f"{dynamic.__name__} takes no guide: set guide to 'none'"),
            (
                guide != "none" and static_size != kernel_size * kernel_size,
                f"a strip of static_size {static_size} cannot be reshaped to the dynamic kernel of kernel_size "
                f"{kernel_size}: static_size must be {kernel_size * kernel_size}, or guide 'none'",
            ),
        ):
            if wrong:
                raise ValueError(message)

        self.split = [g, g, g, in_channels - 3 * g]  # channels of X_rd, X_h, X_w, X_id
        if "num_experts" in inspect.signature(dynamic).parameters:
            options["num_experts"] = num_experts
        if dynamic is RDConv:
            self.dynamic: RDConv | ConvNormAct = RDConv(
                g, g, kernel_size, ratio=razor_ratio, strip_size=strip_size, **options
            )
        else:
            self.dynamic = ConvNormAct(dynamic, g, g, kernel_size, **options)
        self.static_h = ConvNorm(g, g, (static_size, 1))
        self.static_w = ConvNorm(g, g, (1, static_size))
        self.guide, self.kernel_size = guide, kernel_size
        self.guided = getattr(self.dynamic, "intrinsic", g)  # channels of the dynamic kernel, c_r
        # a strip's weights start with variance SILU_GAIN^2 / (g k_s); the guide adds two, averages (g / c_r)^2 of them
        self.guide_scale = g / self.guided * math.sqrt(g * static_size / 2) / SILU_GAIN

    def guide_kernel(self) -> Tensor | None:
        """The scaled guide ``[c_r, c_r, k, k]``, or None where it is off or already folded."""
        if self.guide == "none":
            return None
        weight_h, weight_w = self.static_h.weight, self.static_w.weight
        return self.guide_scale * guide_kernel(weight_h, weight_w, self.guided, self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        rd, h, w, identity = x.split(self.split, 1)
        h, w = F.silu(self.static_h(h), inplace=True), F.silu(self.static_w(w), inplace=True)
        rd = self.dynamic(rd, self.guide_kernel())  # (Eq. 8, with W'_rd of Eq. 10)
        return torch.cat([rd, h, w, identity], 1)  # (Eq. 9)

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the guide and the BatchNorms, which are constant at evaluation, into the kernels, once."""
        self.dynamic.fuse(self.guide_kernel())  # before the strips' own BatchNorms change their weights
        self.guide = "none"
        self.static_h.fuse()
        self.static_w.fuse()


def _takes_guide(dynamic: type[nn.Module]) -> bool:
    fuse = getattr(dynamic, "fuse", None)
    return all("guide" in inspect.signature(f).parameters for f in (dynamic.forward, fuse) if f) and bool(fuse)
