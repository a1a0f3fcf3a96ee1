"""LDConv of "LDConv: Linear deformable convolution for improving convolutional neural networks" (Zhang et al., 2024).

https://arxiv.org/abs/2311.11587 (there called AKConv)

A static kernel of any number of taps N, which read the input at learnt positions: a regular grid that is anchored at
the tap (0, 0), not centred, plus an offset for each tap and place, which a 3x3 convolution gives.

Deviations:
- a position is clamped to the map, then interpolated. In the published code a tap at or beyond the last row or column
  counts twice;
- offsets start at zero; the published bias starts at random;
- the hook that should scale the gradient of the offsets by 0.1 does nothing in the published code: it is left out;
- SGDM's guide multiplies the taps of ``N = k^2``, in the order of the grid, which is that of a kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from yolo_dyn.layers.functional import Size, check_geometry, fold_scale, init_kernels


class LDConv(nn.Module):
    """Convolve what any number of taps read at learnt positions.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``; the size
            must be kept at stride 1: an odd kernel and half of it as padding; `dilation` and `groups` must be 1.
        num_points: number of taps, N; as many as the kernel's by default.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = LDConv(16, 32, kernel_size=3, stride=2, padding=1, num_points=5)
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
        num_points: int | None = None,
    ) -> None:
        super().__init__()
        check_geometry(kernel_size, stride, padding, dilation)
        k_h, k_w = self.kernel_size = _pair(kernel_size)
        if groups != 1 or _pair(dilation) != (1, 1):
            raise ValueError(f"LDConv takes groups 1 and dilation 1 only, got {groups} and {dilation}")
        if not (k_h % 2 and k_w % 2) or _pair(padding) != (k_h // 2, k_w // 2):
            raise ValueError(f"padding must be half of an odd kernel_size, got {padding} and {kernel_size}")
        count = k_h * k_w if num_points is None else num_points
        if count < 1:
            raise ValueError(f"num_points must be at least 1, got {num_points}")
        self.num_points, self.stride = count, _pair(stride)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, count, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        init_kernels(self.weight)
        self.offset = nn.Conv2d(in_channels, 2 * count, 3, self.stride, padding=1)  # rows, then columns
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in, k, k]``, multiplies the kernel (SGDM Eq. 10)."""
        weight = self.weight if guide is None else self.weight * guide.reshape(self.weight.shape)
        taps = sampled(x, *self.positions(self.offset(x)))  # [B, C_in*N, H', W']
        return F.conv2d(taps, weight.reshape(weight.shape[0], -1, 1, 1), self.bias)

    def positions(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns that the taps read, ``[B, N, H', W']`` each; half precision cannot count pixels."""
        exact = torch.promote_types(offset.dtype, torch.float32)
        below, right = offset.to(exact).chunk(2, 1)
        grid = [divmod(tap, round(self.num_points**0.5)) for tap in range(self.num_points)]
        tap_rows, tap_columns = torch.tensor(grid, dtype=exact, device=offset.device).T.reshape(2, -1, 1, 1)
        rows, columns = (torch.arange(n, dtype=exact, device=offset.device) for n in offset.shape[2:])
        rows, columns = self.stride[0] * rows, self.stride[1] * columns
        return rows[:, None] + tap_rows + below, columns + tap_columns + right

    def guide_shape(self) -> tuple[int, int, int]:
        if self.num_points != self.kernel_size[0] * self.kernel_size[1]:
            raise ValueError(
                f"num_points must be those of the kernel {self.kernel_size} for a guide, got {self.num_points}; "
                "or set guide to 'none'"
            )
        return 1, self.weight.shape[0], self.weight.shape[1]

    @torch.no_grad()
    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold a guide and a following BatchNorm, which are constant at evaluation."""
        if guide is not None:
            self.weight = nn.Parameter(self.weight * guide.reshape(self.weight.shape), requires_grad=False)
        if bn is not None:
            scale, shift = fold_scale(bn)
            shift = shift if self.bias is None else shift + scale * self.bias
            self.weight = nn.Parameter(self.weight * scale.view(-1, 1, 1, 1), requires_grad=False)
            self.bias = nn.Parameter(shift, requires_grad=False)


def sampled(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read a map between its pixels; positions beyond it are those of its border.

    Args:
        x: ``[B, C, H, W]``.
        rows, columns: in pixels, ``[B, N, H', W']``.

    Returns:
        ``[B, C*N, H', W']``, the samples of a channel beside each other.
    """
    height, width = x.shape[2:]
    within = [2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1]  # -1 and 1 are the outer pixels
    grid = torch.stack(within, 4).flatten(1, 2)  # [B, N*H', W', 2]
    values = F.grid_sample(x.to(grid.dtype), grid, "bilinear", "border", align_corners=True)  # [B, C, N*H', W']
    return values.to(x.dtype).reshape(x.shape[0], -1, *rows.shape[2:])
