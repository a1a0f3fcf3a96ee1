"""Dynamic channel fusion (DCD) of "Revisiting Dynamic Convolution via Matrix Decomposition" (Li et al., 2021).

https://arxiv.org/abs/2103.08756

``W(x) = Lambda(x) W0 + P Phi(x) Q^T``: one static kernel, scaled a channel, plus a low-rank mixing of channels. In
training the two BatchNorms of the low-rank part need its features; once they are folded, ``P Phi(x)`` is one matrix.
Both parts keep constant convolutions, so that any batch size exports.

Readings, from the counts of the ResNets:
- the pooled input is 2x2 in ResNet-18 (``pool=2``) and 1x1 in ResNet-50 (``pool=1``). It has D = pool^2 C_in entries,
  the inner width is floor(sqrt(D)), the squeezed one max(D, inner^2) / 16, at least 4;
- both counts, 14.703 M and 29.835 M, hold a dynamic classifier with inner and squeezed width 32;
- the squeezed vector is gated by itself, Phi comes with an identity after its BatchNorm.

Deviation: the squeezed width has its floor of 4 with ``pool=1`` too, where the published code has none.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from yolo_dyn.layers.functional import Size, fold_batchnorm, fold_scale, init_kernels
from yolo_dyn.layers.graph import pooled, scaled
from yolo_dyn.layers.protocol import check_static


class DCD(nn.Module):
    """Scale a static kernel's output channels dynamically and add a dynamic fusion of the input channels.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``; `groups`
            must be 1, and the kernel must have a centre.
        pool: the input is pooled to ``pool x pool`` before it is squeezed; 2 by default, 1 for a 1x1 kernel.
        inner: width of the fused channels; ``floor(sqrt(pool^2 C_in))`` by default.
        squeezed: width of the squeezed vector.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = DCD(16, 32, kernel_size=3, stride=2, padding=1)
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
        pool: int | None = None,
        inner: int | None = None,
        squeezed: int | None = None,
    ) -> None:
        super().__init__()
        k = self.kernel_size = _pair(kernel_size)
        if groups != 1:
            raise ValueError(f"groups must be 1: DCD fuses all channels, got {groups}")
        if not all(size % 2 for size in k):
            raise ValueError(f"kernel_size must be odd, so that the kernel has a centre, got {kernel_size}")
        self.pool = pool or (1 if max(k) == 1 else 2)
        entries = self.pool**2 * in_channels
        self.inner = inner or math.isqrt(entries)
        squeezed = squeezed or max(max(entries, self.inner**2) // 16, 4)
        self.stride, self.padding, self.dilation = _pair(stride), _pair(padding), _pair(dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *k))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.squeeze = nn.Linear(entries, squeezed, bias=False)
        self.gate = nn.Linear(squeezed, squeezed, bias=False)
        self.phi = nn.Linear(squeezed, self.inner**2, bias=False)
        self.scale = nn.Linear(squeezed, out_channels, bias=False)
        self.q = nn.Parameter(torch.empty(self.inner, in_channels, 1, 1))
        self.p = nn.Parameter(torch.empty(out_channels, self.inner, 1, 1))
        self.q_shift: nn.Parameter | None = None  # [d], takes the folded BatchNorm's shift
        self.norm_q: nn.BatchNorm2d | None = nn.BatchNorm2d(self.inner)
        self.norm_phi: nn.BatchNorm2d | None = nn.BatchNorm2d(self.inner)
        for weight in (self.weight, self.q, self.p):
            init_kernels(weight)

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in, k, k]``, multiplies the static kernel (SGDM Eq. 10)."""
        phi, scale = self.phi_and_scale(x)
        static = self.weight if guide is None else self.weight * guide
        y = F.conv2d(x, static, None, self.stride, self.padding, self.dilation)
        fused = F.conv2d(self._centred(x), self.q, self.q_shift, self.stride)  # [B, d, H', W'], Q^T x
        if self.norm_q is not None and self.norm_phi is not None:
            fused = self.norm_q(fused)
            fused = self.norm_phi((phi @ fused.flatten(2)).reshape(fused.shape)) + fused
            fused = F.conv2d(fused, self.p, self.bias)
        else:
            assert self.bias is not None  # folding has made one
            fused = ((self.p.flatten(1) @ phi) @ fused.flatten(2)).reshape(y.shape) + self.bias[:, None, None]
        return fused + scaled(y, scale[:, :, None, None])

    def phi_and_scale(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Phi, ``[B, d, d]``, and the diagonal of Lambda, ``[B, C_out]``."""
        squeezed = self.squeeze(pooled(x, self.pool))  # [B, s]
        squeezed = squeezed * _gate(self.gate(squeezed))
        return self.phi(squeezed).reshape(-1, self.inner, self.inner), _gate(self.scale(squeezed))

    def mixed(self, x: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Once it is fused: Lambda W_0 + P Phi Q^T at the kernel's centre, and the bias."""
        assert self.q_shift is not None
        assert self.bias is not None
        phi, scale = self.phi_and_scale(x)
        static = self.weight if guide is None else self.weight * guide
        kernel, fusion = static * scale[:, :, None, None, None], self.p.flatten(1) @ phi  # [B, C_out, d]
        kernel[..., self.kernel_size[0] // 2, self.kernel_size[1] // 2] += fusion @ self.q.flatten(1)
        return kernel, self.bias + fusion @ self.q_shift

    @property
    def geometry(self) -> tuple[Size, Size, Size, int]:
        """Stride, padding, dilation and groups."""
        return self.stride, self.padding, self.dilation, 1

    def _centred(self, x: Tensor) -> Tensor:
        """The input with the border, maybe negative, that gives a 1x1 convolution the output size of this one."""
        border = [p - d * (k // 2) for p, d, k in zip(self.padding, self.dilation, self.kernel_size, strict=True)]
        return F.pad(x, (border[1], border[1], border[0], border[0])) if any(border) else x

    @torch.no_grad()
    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Start as this static convolution: scales of one, and a fusion that adds nothing."""
        check_static(weight, self.weight.shape)
        self.weight.copy_(weight)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.p)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    def guide_shape(self) -> tuple[int, int, int]:
        return 1, self.weight.shape[0], self.weight.shape[1]

    @torch.no_grad()
    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold the inner norms, and a guide and a following BatchNorm, which are constant at evaluation."""
        bias = torch.zeros_like(self.weight[:, 0, 0, 0]) if self.bias is None else self.bias
        if self.norm_q is not None and self.norm_phi is not None:
            self.q, self.q_shift = fold_batchnorm(self.q, self.norm_q)
            scale, shift = fold_scale(self.norm_phi)
            self.phi.weight = nn.Parameter(self.phi.weight * scale.repeat_interleave(self.inner)[:, None], False)
            self.phi.bias = nn.Parameter(torch.eye(self.inner).flatten().to(scale), False)  # Phi's way around its norm
            bias = bias + self.p.flatten(1) @ shift
            self.norm_q = self.norm_phi = None
        if guide is not None:
            self.weight = nn.Parameter(self.weight * guide, False)
        if bn is not None:
            scale, shift = fold_scale(bn)
            bias = scale * bias + shift
            self.weight = nn.Parameter(scale.view(-1, 1, 1, 1) * self.weight, False)
            self.p = nn.Parameter(scale.view(-1, 1, 1, 1) * self.p, False)
        self.bias = nn.Parameter(bias, False)


def _gate(z: Tensor) -> Tensor:
    """A hard sigmoid from 0 to 2, with 1 at zero."""
    return 2 * F.hardsigmoid(z)
