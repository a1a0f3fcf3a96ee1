"""Averages over sampled positions of a map, as pure functions (A2D2C, Sec. 3.2 and 3.3).

The mean over M positions is a sum over the whole map, each value times the share of the sample that fell on it. As one
matrix product that was 1.2 to 60 times faster than picking the values, forward and backward, on two CPU cores that were
not idle; and in a file of fixed size the shares are constants, which NCNN needs.

Positions are rows and columns of a map, ``[K, M]``: a sample of M for each of K kernels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _pair

from yolo_dyn.layers.functional import Size, unfold
from yolo_dyn.layers.graph import becomes_a_graph

GRID = 1 << 16  # positions are kept as integers in [0, 65536), for maps of any size and models of any precision


def scatter_points(num_experts: int, num_points: int, regular: bool) -> Tensor:
    """Positions for each kernel, rows and columns in 1/65536 of the map, ``[2, K, M]``.

    Args:
        num_experts: K.
        num_points: M.
        regular: the middles of a square grid, for which M is rounded to a square; else random, always the same.
    """
    if not regular:
        return torch.randint(GRID, (2, num_experts, num_points), generator=torch.Generator().manual_seed(0))
    side = round(num_points**0.5)
    middles = (torch.arange(side) * 2 + 1) * GRID // (2 * side)
    return torch.cartesian_prod(middles, middles).T[:, None].expand(2, num_experts, -1).clone()


def conv_size(x: Tensor, kernel_size: Size, stride: Size, padding: Size, dilation: Size) -> tuple[int, int]:
    """Height and width of what a convolution makes of ``[B, C, H, W]``."""
    pairs = zip(x.shape[2:], *map(_pair, (kernel_size, stride, padding, dilation)), strict=True)
    height, width = ((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in pairs)
    return height, width


def counts_of(
    rows: Tensor,
    columns: Tensor,
    height: int,
    width: int,
    kernel_size: Size = 1,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
) -> Tensor:
    """How often a sample reads each place of a map, through each tap of a kernel.

    Args:
        rows, columns: positions on the map that a convolution makes of this one, ``[K, M]``.
        height, width: of this map.
        kernel_size, stride, padding, dilation: of the convolution; by default the two maps are the same.

    Returns:
        How often each place is read, of M times, ``[K, kH*kW, H, W]``, float32. What falls on the padding is left out.
    """
    (k_h, k_w), (s_h, s_w), (p_h, p_w), (d_h, d_w) = map(_pair, (kernel_size, stride, padding, dilation))
    down = rows[:, None, None] * s_h + torch.arange(k_h, device=rows.device)[:, None, None] * d_h  # [K, kH, 1, M]
    right = columns[:, None, None] * s_w + torch.arange(k_w, device=rows.device)[:, None] * d_w  # [K, 1, kW, M]
    tall, wide = height + 2 * p_h, width + 2 * p_w
    places = (down * wide + right).flatten(0, 2)  # [K*kH*kW, M], by number on the padded map
    counts = torch.zeros(places.shape[0], tall * wide, device=rows.device)
    counts = counts.scatter_add(1, places, torch.ones_like(places, dtype=counts.dtype))
    counts = counts.reshape(rows.shape[0], k_h * k_w, tall, wide)
    return counts[:, :, p_h : p_h + height, p_w : p_w + width]


def mean_patches(
    x: Tensor,
    positions: tuple[Tensor, Tensor] | None,
    kernel_size: Size = 1,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
) -> Tensor:
    """Average the input under each tap of a kernel over sampled positions of the output.

    Averaging commutes with convolution: the kernel times this patch is the mean of its responses at these positions.

    Args:
        x: ``[B, C_in, H, W]``.
        positions: rows and columns on the output map, ``[K, M]`` each; None for all of it.
        kernel_size, stride, padding, dilation: as in ``torch.nn.functional.conv2d``; by default `x` itself is averaged.

    Returns:
        ``[B, K, C_in, kH*kW]``, with a K of 1 if `positions` is None.
    """
    if positions is None:
        return unfold(x, _pair(kernel_size), stride, padding, dilation).mean((3, 4))[:, None]
    rows, columns = positions
    counts = counts_of(rows, columns, x.shape[2], x.shape[3], kernel_size, stride, padding, dilation)
    mean = counts.flatten(2).flatten(0, 1).to(x.dtype) / rows.shape[1]  # [K*kH*kW, H*W]
    patches = x.flatten(2) @ mean.T  # [B, C_in, K*kH*kW]
    return patches.reshape(*x.shape[:2], rows.shape[0], -1).transpose(1, 2)


def patch_responses(patches: Tensor, weight: Tensor, bias: Tensor | None, num_experts: int, groups: int) -> Tensor:
    """The response of each kernel to its patch.

    Args:
        patches: ``[B, K, C_in, kH*kW]``, or one for all kernels, ``[B, 1, C_in, kH*kW]``.
        weight: bank of kernels, ``[K*C_out, C_in/groups, kH, kW]``.
        bias: ``[K*C_out]``, or None.
        num_experts: K.
        groups: of the convolution.

    Returns:
        ``[B, K, C_out]``.
    """
    patches = patches.expand(-1, num_experts, -1, -1)
    if (
        becomes_a_graph()
    ):  # one convolution of one pixel, which all formats have; it is several times slower than products
        pixels = patches.reshape(patches.shape[0], -1, *weight.shape[2:])  # [B, K*C_in, kH, kW]
        return F.conv2d(pixels, weight, bias, groups=num_experts * groups).reshape(patches.shape[0], num_experts, -1)
    patches = patches.reshape(patches.shape[0], num_experts * groups, -1)
    kernels = weight.reshape(num_experts * groups, -1, patches.shape[2])  # [K*groups, C_out/groups, C_in/groups*kH*kW]
    responses = (kernels @ patches.permute(1, 2, 0)).permute(2, 0, 1)  # [B, K*groups, C_out/groups]
    responses = responses.reshape(patches.shape[0], num_experts, -1)
    return responses if bias is None else responses + bias.reshape(num_experts, -1)


def mean_responses(
    responses: Tensor,
    positions: tuple[Tensor, Tensor] | None,
    num_experts: int,
    groups: int = 1,
    weighted: bool = False,
) -> Tensor:
    """Average each kernel's response over its own sample of positions (A2D2C Eq. 4).

    Args:
        responses: of `functional.expert_responses`, ``[B, groups*K*C_out/groups, H', W']``.
        positions: rows and columns, ``[K, M]`` each; None for the whole map.
        num_experts: K.
        groups: of the convolution.
        weighted: weight each position by the magnitude of the kernel's response there, its mean absolute value over
            the channels.

    Returns:
        ``[B, K, C_out]``.
    """
    height, width = responses.shape[2:]
    maps = responses.reshape(responses.shape[0], groups * num_experts, -1, height * width)  # [B, groups*K, ., H'*W']
    precise = torch.promote_types(maps.dtype, torch.float32)  # sums over a map do not fit half precision
    share = maps.new_ones(1, num_experts, 1, height * width, dtype=precise)
    if positions is not None:
        share = counts_of(*positions, height, width).flatten(2)[None].to(precise)
    if weighted:
        size = (
            maps.abs().mean(2, dtype=precise).reshape(-1, groups, num_experts, height * width).mean(1)
        )  # [B, K, H'*W']
        share = share * size[:, :, None]
    share = share / torch.clamp(share.sum(3, keepdim=True), min=torch.finfo(precise).tiny)  # [B or 1, K, 1, H'*W']
    means = maps @ share.to(maps.dtype).repeat(1, groups, 1, 1).transpose(2, 3)  # [B, groups*K, C_out/groups, 1]
    return means.reshape(means.shape[0], groups, num_experts, -1).transpose(1, 2).flatten(2)
