"""The mixture of expert kernels, as pure functions. Every dynamic layer is built from these.

All mixing layers compute ``y_b = (sum_k attention[b, k] W_k) * x_b``. A bank of K expert kernels is stored as one 4-D
tensor ``[K*C_out, C_in/groups, kH, kW]`` because a 5-D parameter breaks ``model.to(memory_format=channels_last)``.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from yolo_dyn.layers.graph import becomes_a_graph, exporting

FORMS = ("kernel", "response", "unfold")
PER_SAMPLE_FORMS = ("kernel", "unfold")  # of a kernel that is there already
Size = int | tuple[int, int]
SILU_GAIN = 1.68  # 1 / rms(SiLU(z)), z ~ N(0, 1): keeps the scale through a convolution between two SiLUs


def check_geometry(kernel_size: Size, stride: Size, padding: Size, dilation: Size) -> None:
    """Raise ValueError for what no convolution has, which torch notices when it is run, if at all."""
    for name, value, least in (
        ("kernel_size", kernel_size, 1),
        ("stride", stride, 1),
        ("padding", padding, 0),
        ("dilation", dilation, 1),
    ):
        if min(_pair(value)) < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


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
    if not weight.is_contiguous() and batch == 1:  # channels_last, as the stock predictor has it: no copy of the bank
        last = weight.permute(0, 2, 3, 1)
        kernel = attention @ last.reshape(num_experts, -1)
        return kernel.reshape(1, -1, *last.shape[1:]).permute(0, 1, 4, 2, 3)
    kernel = attention @ weight.reshape(num_experts, -1)
    return kernel.reshape(batch, -1, *weight.shape[1:])


def guided(bank: Tensor, guide: Tensor | None) -> Tensor:
    """Multiply the kernels of a bank by a guide, tap by tap (SGDM Eq. 10).

    Args:
        bank: ``[K*C_out, C_in/groups, kH, kW]``.
        guide: one for all experts, ``[C_out, C_in/groups, kH, kW]``, one for each, of the bank's shape, or None.

    Returns:
        A bank of the same shape.
    """
    return bank if guide is None else bank * guide.repeat(len(bank) // len(guide), 1, 1, 1)


def conv_per_sample(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    form: str = "kernel",
) -> Tensor:
    """Convolve every sample with its own kernel.

    Args:
        x: ``[B, C_in, H, W]``.
        weight: one kernel per sample, ``[B, C_out, C_in/groups, kH, kW]``.
        bias: shared by all samples, ``[C_out]``, or one per sample, ``[B, C_out]``.
        stride, padding, dilation, groups: as in ``torch.nn.functional.conv2d``.
        form: "kernel" folds the batch into the groups of one convolution; "unfold" multiplies the columns of the input
            by the kernels, batched, and so leaves the batch size free in an exported graph. torch.export with a free
            batch size takes it by itself.

    Returns:
        ``[B, C_out, H', W']``.
    """
    batch, c_out = weight.shape[:2]
    if form == "unfold" or (exporting() and isinstance(batch, torch.SymInt)):
        return _conv_unfolded(x, weight, bias, stride, padding, dilation, groups)
    # plain numbers: an exporter must know a kernel's shape, and some backbones hide the batch size from it
    batch, c_out, *taps = map(int, weight.shape)
    if bias is not None:
        bias = bias.expand(batch, c_out).flatten()
    kernels = weight.reshape(batch * c_out, *taps)  # [B*C_out, C_in/groups, kH, kW]
    if batch == 1:
        return F.conv2d(x, kernels, bias, stride, padding, dilation, groups)
    folded = x.reshape(1, -1, *x.shape[2:])  # [1, B*C_in, H, W]
    y = F.conv2d(folded, kernels, bias, stride, padding, dilation, batch * groups)
    return y.reshape(batch, c_out, *y.shape[2:])


def _conv_unfolded(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size, dilation: Size, groups: int
) -> Tensor:
    columns = unfold(x, (weight.shape[3], weight.shape[4]), stride, padding, dilation)  # [B, C_in, kH*kW, H', W']
    height, width = columns.shape[3:]
    columns = columns.reshape(x.shape[0], groups, -1, height * width)
    y = weight.reshape(x.shape[0], groups, weight.shape[1] // groups, -1) @ columns  # [B, groups, C_out/groups, H'*W']
    y = y.reshape(x.shape[0], -1, height, width)
    return y if bias is None else y + bias[..., None, None]


def unfold(x: Tensor, kernel_size: tuple[int, int], stride: Size, padding: Size, dilation: Size) -> Tensor:
    """The values under each tap of a kernel: ``[B, C, H, W]`` -> ``[B, C, kH*kW, H', W']``.

    Slices whose ends are constant, so that batch, height and width stay free in an exported graph, which those of
    ``torch.nn.functional.unfold`` do not.
    """
    (s_h, s_w), (p_h, p_w), (d_h, d_w) = _pair(stride), _pair(padding), _pair(dilation)
    x = F.pad(x, (p_w, p_w, p_h, p_h))
    rows, columns = _taps(kernel_size[0], s_h, d_h), _taps(kernel_size[1], s_w, d_w)
    return torch.stack([x[:, :, row, column] for row in rows for column in columns], 2)


def _taps(size: int, stride: int, dilation: int) -> list[slice]:
    """For each tap of a kernel, where it falls along one side; ends are counted from the far end, which is free."""
    return [slice(i * dilation, -(size - 1 - i) * dilation or None, stride) for i in range(size)]


def expert_responses(
    x: Tensor,
    weight: Tensor,
    num_experts: int,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve with every expert kernel of a bank.

    Args:
        x: ``[B, C_in, H, W]``.
        weight: bank of expert kernels, ``[K*C_out, C_in/groups, kH, kW]``.
        num_experts: K.
        bias: one per expert, ``[K*C_out]``.
        stride, padding, dilation, groups: as in ``torch.nn.functional.conv2d``.

    Returns:
        ``[B, groups*K*C_out/groups, H', W']``: the experts stand inside the groups of the one convolution.
    """
    weight = weight.unflatten(0, (num_experts, groups, -1)).transpose(0, 1).flatten(0, 2)
    if bias is not None:
        bias = bias.reshape(num_experts, groups, -1).transpose(0, 1).flatten()
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def mix_responses(responses: Tensor, attention: Tensor, groups: int = 1) -> Tensor:
    """Mix the responses of all expert kernels (A2D2C Eq. 8), which equals the response of the mixed kernel.

    Args:
        responses: of `expert_responses`, ``[B, groups*K*C_out/groups, H', W']``.
        attention: weight of each expert for each sample, ``[B, K]``.
        groups: of the convolution.

    Returns:
        ``[B, C_out, H', W']``.
    """
    batch, _, height, width = responses.shape
    by_expert = responses.reshape(batch, groups, attention.shape[1], -1)  # [B, groups, K, C_out/groups*H'*W']
    return (attention[:, None, None] @ by_expert).reshape(batch, -1, height, width)


def mixture_conv(
    x: Tensor,
    weight: Tensor,
    attention: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    form: str = "kernel",
) -> Tensor:
    """Convolve every sample with its own mixture of expert kernels; the three forms give the same numbers.

    "kernel" is the default since it was the fastest in every cell that was measured: channels and map of 64 at 80x80,
    128 at 40x40 and 256 at 20x20, batch 1 and 8, inference and training, on 2 CPU cores (`yolo-dyn bench forms`).

    Args:
        x: ``[B, C_in, H, W]``.
        weight: bank of expert kernels, ``[K*C_out, C_in/groups, kH, kW]``.
        attention: weight of each expert for each sample, ``[B, K]``.
        bias: one per expert, mixed like the kernels, ``[K*C_out]``.
        stride, padding, dilation, groups: as in ``torch.nn.functional.conv2d``.
        form: "kernel" mixes the kernels, then convolves once; "response" convolves with every expert, then mixes the
            results: K times the multiplications, but constant weights and any batch size; "unfold" mixes the kernels
            and multiplies them with the unfolded input: any batch size too.

    Returns:
        ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an unknown form.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    num_experts = attention.shape[1]
    if form == "response":
        responses = expert_responses(x, weight, num_experts, bias, stride, padding, dilation, groups)
        return mix_responses(responses, attention, groups)
    kernel = mix_kernels(weight, attention)
    if bias is not None:
        bias = attention @ bias.reshape(num_experts, -1)
    return conv_per_sample(x, kernel, bias, stride, padding, dilation, groups, form)


FEW = 64  # experts times pixels; with 4 experts columns are faster on maps of 4x4 (1.7 times), kernels on those of 8x8


def few_pixels(x: Tensor, num_experts: int, stride: tuple[int, int]) -> bool:
    """Whether a batch has so few pixels that the kernel form spends its time on writing a kernel for every sample.

    That is the case in the last stages of a classifier of small images. An exported graph keeps the form it asks for.
    """
    if becomes_a_graph():
        return False
    pixels = -(-x.shape[2] // stride[0]) * -(-x.shape[3] // stride[1])
    return x.shape[0] > 1 and num_experts * pixels <= FEW


def mix_columns(
    x: Tensor,
    weight: Tensor,
    attention: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    taps: Tensor | None = None,
) -> Tensor:
    """The response form as one matrix product, without a kernel for each sample; for maps of few pixels.

    Args:
        x: ``[B, C_in, H, W]``.
        weight: bank of expert kernels without groups, ``[K*C_out, C_in, kH, kW]``.
        attention: weight of each expert for each sample, ``[B, K]``.
        bias: one per expert, mixed like the kernels, ``[K*C_out]``.
        stride, padding, dilation: as in ``torch.nn.functional.conv2d``.
        taps: factor of each tap of all kernels of a sample, ``[B, kH*kW]`` (ODConv's spatial attention).

    Returns:
        ``[B, C_out, H', W']``.
    """
    columns = unfold(x, (weight.shape[2], weight.shape[3]), stride, padding, dilation)  # [B, C_in, kH*kW, H', W']
    if taps is not None:
        columns = columns * taps[:, None, :, None, None]
    columns = columns.permute(0, 3, 4, 1, 2).flatten(3)  # [B, H', W', C_in*kH*kW]
    responses = F.linear(columns, weight.flatten(1), bias).unflatten(3, (attention.shape[1], -1))
    return torch.einsum("bk,bhwko->bohw", attention, responses)


def fold_scale(bn: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the scale and the shift, ``[C]`` each, that a BatchNorm applies at evaluation."""
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    scale = torch.rsqrt(bn.running_var + bn.eps) * bn.weight
    return scale, bn.bias - bn.running_mean * scale


def fold_batchnorm(weight: Tensor, bn: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    """Fold an evaluation-time BatchNorm into the bias-free kernels before it; exact for a bank, since mixing is linear.

    Args:
        weight: one kernel, a bank of K of them, ``[K*C_out, C_in/groups, kH, kW]``, or a matrix, ``[C_out, C_in]``.
        bn: BatchNorm over the ``C_out`` channels.

    Returns:
        The scaled weight, shaped like `weight`, and the bias ``[C_out]``; neither takes a gradient.
    """
    scale, shift = fold_scale(bn)
    folded = weight * scale.repeat(weight.shape[0] // scale.numel()).view(-1, *[1] * (weight.dim() - 1))
    return nn.Parameter(folded.detach(), requires_grad=False), nn.Parameter(shift.detach(), requires_grad=False)
