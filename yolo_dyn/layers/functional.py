"""The mixture of expert kernels, as pure functions. Every dynamic layer is built from these.

All mixing layers compute ``y_b = (sum_k attention[b, k] W_k) * x_b``. A bank of K expert kernels is stored as one 4-D
tensor ``[K*C_out, C_in/groups, kH, kW]`` because a 5-D parameter breaks ``model.to(memory_format=channels_last)``.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SILU_GAIN = 1.68  # 1 / rms(SiLU(z)), z ~ N(0, 1): keeps the scale through a convolution between two SiLUs


def init_kernels(weight: Tensor) -> None:
    """Draw kernels from the Kaiming normal distribution for SiLU; in a bank each expert like its own convolution.

    Args:
        weight: ``[K*C_out, C_in/groups, kH, kW]``; the fan-in is that of one output channel.
    """
    nn.init.normal_(weight, std=SILU_GAIN / math.sqrt(weight[0].numel()))


def mix_kernels(weight: Tensor, attention: Tensor) -> Tensor:
    """Mix the expert kernels of a bank into one kernel per sample (SGDM Eq. 2).

    Args:
        weight: bank of expert kernels, ``[K*C_out, C_in/groups, kH, kW]``.
        attention: weight of each expert for each sample, ``[B, K]``.

    Returns:
        One kernel per sample, ``[B, C_out, C_in/groups, kH, kW]``.
    """
    batch, num_experts = attention.shape
    kernel = attention @ weight.reshape(num_experts, -1)
    return kernel.reshape(batch, -1, *weight.shape[1:])


def conv_per_sample(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve every sample with its own kernel, as one convolution with the batch folded into its groups.

    Args:
        x: ``[B, C_in, H, W]``.
        weight: one kernel per sample, ``[B, C_out, C_in/groups, kH, kW]``.
        bias: shared by all samples, ``[C_out]``.
        stride, padding, dilation, groups: as in ``torch.nn.functional.conv2d``.

    Returns:
        ``[B, C_out, H', W']``.
    """
    batch, c_out = weight.shape[:2]
    if batch == 1:
        return F.conv2d(x, weight[0], bias, stride, padding, dilation, groups)
    folded = x.reshape(1, -1, *x.shape[2:])  # [1, B*C_in, H, W]
    bias = None if bias is None else bias.repeat(batch)
    y = F.conv2d(folded, weight.flatten(0, 1), bias, stride, padding, dilation, batch * groups)
    return y.reshape(batch, c_out, *y.shape[2:])


def fold_batchnorm(weight: Tensor, bn: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    """Fold an evaluation-time BatchNorm into the bias-free kernels before it; exact for a bank, since mixing is linear.

    Args:
        weight: one kernel or a bank of K of them, ``[K*C_out, C_in/groups, kH, kW]``.
        bn: BatchNorm over the ``C_out`` channels.

    Returns:
        The scaled weight, shaped like `weight`, and the bias ``[C_out]``; neither takes a gradient.
    """
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    scale = torch.rsqrt(bn.running_var + bn.eps) * bn.weight
    folded = weight * scale.repeat(weight.shape[0] // scale.numel()).view(-1, 1, 1, 1)
    bias = bn.bias - bn.running_mean * scale
    return nn.Parameter(folded.detach(), requires_grad=False), nn.Parameter(bias.detach(), requires_grad=False)
