"""The slow, obvious oracles: float64, one sample and one output value at a time, straight from the equations."""

import math

import torch
from torch import Tensor, nn

from yolo_dyn.layers import SGDM, RDConv
from yolo_dyn.layers.blocks import ConvNorm


def conv2d(x: Tensor, weight: Tensor, stride: int = 1, padding: tuple[int, int] = (0, 0), groups: int = 1) -> Tensor:
    """One sample ``[C_in, H, W]``, kernels ``[C_out, C_in/groups, kH, kW]``, as a sum over the taps of Eq. 1."""
    c_out, c_in, kh, kw = weight.shape
    x = nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    height, width = ((size - k) // stride + 1 for size, k in zip(x.shape[1:], (kh, kw), strict=True))
    y = torch.zeros(c_out, height, width, dtype=x.dtype)
    for o in range(c_out):
        first = o // (c_out // groups) * c_in
        for c in range(c_in):
            for i in range(kh):
                for j in range(kw):
                    taps = x[first + c, i : i + stride * height : stride, j : j + stride * width : stride]
                    y[o] += weight[o, c, i, j] * taps[:height, :width]
    return y


def norm(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    """Evaluation-time BatchNorm of one sample."""
    return torch.stack(
        [
            (x[c] - bn.running_mean[c]) / math.sqrt(bn.running_var[c] + bn.eps) * bn.weight[c] + bn.bias[c]
            for c in range(len(x))
        ]
    )


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def conv_norm_act(x: Tensor, block: ConvNorm) -> Tensor:
    padding = tuple(k // 2 for k in block.kernel_size)
    return silu(norm(conv2d(x, block.weight, block.stride[0], padding, block.groups), block.norm))


def rdconv(x: Tensor, layer: RDConv, guide: Tensor | None = None) -> Tensor:
    """RDConv at evaluation for a batch, in float64. `layer` must be in float64."""
    k = layer.kernel_size
    out = []
    for sample in x:
        intrinsic = conv_norm_act(sample, layer.razor)
        pooled = intrinsic.flatten(1).sum(1) / intrinsic[0].numel()
        hidden = silu(layer.attention.squeeze.weight @ pooled + layer.attention.squeeze.bias)
        attention = sigmoid(layer.attention.expand.weight @ hidden + layer.attention.expand.bias)
        experts = layer.weight.view(len(attention), layer.intrinsic, -1, k, k)
        kernel = torch.zeros_like(experts[0])
        for number, (share, expert) in enumerate(zip(attention, experts, strict=True)):
            if guide is None:
                kernel += share * expert
            elif len(guide) == layer.intrinsic:  # one for all experts
                kernel += share * expert * guide
            else:
                kernel += share * expert * guide[number * layer.intrinsic : (number + 1) * layer.intrinsic]
        y = conv2d(intrinsic, kernel, layer.stride, (layer.padding, layer.padding), layer.groups)
        y = silu(norm(y, layer.norm))

        row, col = layer.conv_w, layer.conv_h
        weight = torch.zeros_like(y)
        for c in range(layer.intrinsic):
            over_h = intrinsic[c].sum(0) / intrinsic.shape[1]  # [W]
            over_w = intrinsic[c].sum(1) / intrinsic.shape[2]  # [H]
            across = conv2d(over_h[None, :, None], row.weight[c : c + 1], padding=(row.padding[0], 0))[0, :, 0]
            down = conv2d(over_w[None, :, None], col.weight[c : c + 1], padding=(col.padding[0], 0))[0, :, 0]
            across, down = across[:: layer.stride] + row.bias[c], down[:: layer.stride] + col.bias[c]
            for i in range(y.shape[1]):
                for j in range(y.shape[2]):
                    weight[c, i, j] = sigmoid(across[j] + down[i])
        y = y * weight
        cheap = conv_norm_act(intrinsic if layer.bypass else y, layer.cheap)
        out.append(torch.cat([y, cheap])[: layer.out_channels])
    return torch.stack(out)


def guide(layer: SGDM) -> Tensor | None:
    """Eq. 10: reshape both strips to the dynamic kernel, add them, bring them to its channels, scale."""
    strips_h, strips_w = layer.static_h.weight, layer.static_w.weight
    g, k = len(strips_h), layer.kernel_size
    square = strips_h.reshape(g, g, k, k) + strips_w.reshape(g, g, k, k)
    if layer.guide == "none":
        return None
    if layer.guide == "reshape":
        return layer.guide_scale * _in_order(square, layer.kernel_channels[1])
    c_out, c_in = layer.kernel_channels
    out = torch.zeros(c_out, c_in, k, k, dtype=square.dtype)
    for o in range(c_out):
        for i in range(c_in):
            if layer.guide == "conv":
                for a in range(g):
                    for b in range(g):
                        out[o, i] += layer.guide_out[o, a] * square[a, b] * layer.guide_in[i, b]
            else:
                group = [square[a, b] for a in _neighbours(o, g, c_out) for b in _neighbours(i, g, c_in)]
                out[o, i] = sum(group) / len(group)
    return layer.guide_scale * out


def _in_order(square: Tensor, c_in: int) -> Tensor:
    """Deal the kernels ``[g, g, k, k]`` out, one after another, to rows of `c_in`: output channels of all experts."""
    kernels = [kernel for row in square for kernel in row]
    rows = [kernels[first : first + c_in] for first in range(0, len(kernels), c_in)]
    return torch.stack([torch.stack(row) for row in rows])


def _neighbours(i: int, g: int, channels: int) -> range:  # torch's adaptive bins
    return range(i * g // channels, -(-(i + 1) * g // channels))


def sgdm(x: Tensor, layer: SGDM) -> Tensor:
    """SGDM at evaluation for a batch, in float64."""
    g = layer.split[0]
    rd, h, w, identity = x[:, :g], x[:, g : 2 * g], x[:, 2 * g : 3 * g], x[:, 3 * g :]
    parts = [
        rdconv(rd, layer.dynamic, guide(layer)),
        torch.stack([conv_norm_act(sample, layer.static_h) for sample in h]),
        torch.stack([conv_norm_act(sample, layer.static_w) for sample in w]),
    ]
    if layer.residual:
        parts = [part + branch for part, branch in zip(parts, (rd, h, w), strict=True)]
    return torch.cat([*parts, identity], 1)
