"""Kernels and maps in the frequency domain, as pure functions, for FDConv.

Eager code takes the fast Fourier transform. What runs in an exported graph, which rarely has one, multiplies by the
same transform's real matrices instead.
"""

import functools
import math

import torch
from torch import Tensor

from yolo_dyn.layers.graph import becomes_a_graph, compiling


def frequency_groups(rows: int, columns: int, count: int) -> Tensor:
    """Split the half spectrum of a real matrix into `count` groups by rising frequency.

    Frequencies are ordered exactly, as integers; of equal ones the first row-major comes first. Group sizes differ by
    one at most.

    Args:
        rows, columns: of the matrix, M and N.
        count: number of groups, K, at most 256 and at most as many as there are coefficients.

    Returns:
        The group of each coefficient of ``torch.fft.rfft2``, ``[M, N // 2 + 1]``, uint8.
    """
    half = columns // 2 + 1
    u, v = torch.arange(rows), torch.arange(half)
    squared = (torch.minimum(u, rows - u) * columns).square()[:, None] + (v * rows).square()  # of M N times frequency
    order = torch.argsort(squared.flatten(), stable=True)
    groups = torch.empty_like(order)
    groups[order] = torch.arange(rows * half) * count // (rows * half)
    return groups.to(torch.uint8).view(rows, half)


def modulated(weight: Tensor, factors: Tensor, groups: Tensor) -> Tensor:
    """Multiply the spectrum of a kernel by one factor for each group of frequencies.

    The kernel is laid out as one matrix ``[kH C_out, kW C_in]``, each kernel's taps a block of it.

    Args:
        weight: ``[C_out, C_in, kH, kW]``.
        factors: of each group for each sample, ``[B, K]``.
        groups: of `frequency_groups`.

    Returns:
        One kernel per sample, ``[B, C_out, C_in, kH, kW]``.
    """
    c_out, c_in, k_h, k_w = weight.shape
    exact = weight.dtype if weight.dtype is torch.float64 else torch.float32  # transforms know no half precision
    plane = weight.permute(0, 2, 1, 3).reshape(c_out * k_h, c_in * k_w).to(exact)
    by_frequency = factors.to(exact).index_select(1, groups.flatten().long()).unflatten(1, groups.shape)
    if becomes_a_graph():
        planes = _filtered(plane, by_frequency)
    else:
        planes = torch.fft.irfft2(torch.fft.rfft2(plane) * by_frequency, plane.shape)
    kernels = planes.reshape(-1, c_out, k_h, c_in, k_w).permute(0, 1, 3, 2, 4)
    return kernels.to(weight.dtype)


def _filtered(plane: Tensor, by_frequency: Tensor) -> Tensor:
    """``irfft2(rfft2(plane) * by_frequency)`` in real matrix products."""
    m, n = map(int, plane.shape)  # plain numbers in a traced graph
    half = n // 2 + 1
    (cos_m, sin_m), (cos_n, sin_n) = _waves(m, m, plane), _waves(n, half, plane)
    real = cos_m @ plane @ cos_n - sin_m @ plane @ sin_n  # [M, N//2+1]
    imaginary = -(sin_m @ plane @ cos_n + cos_m @ plane @ sin_n)
    real, imaginary = by_frequency * real, by_frequency * imaginary  # [B, M, N//2+1]
    rows_real, rows_imaginary = cos_m @ real - sin_m @ imaginary, cos_m @ imaginary + sin_m @ real
    twice = [1.0 if v == 0 or 2 * v == n else 2.0 for v in range(half)]  # the other half mirrors this one
    weights = torch.tensor(twice, dtype=plane.dtype, device=plane.device) / (m * n)
    return (rows_real * weights) @ cos_n.T - (rows_imaginary * weights) @ sin_n.T


def _waves(length: int, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the first `count` frequencies of a length, ``[length, count]`` each."""
    i = torch.arange(length, device=like.device)
    phase = (i[:, None] * i[:count]) % length  # as integers: a large phase would round badly
    phase = phase.to(like.dtype) * (2 * math.pi / length)
    return torch.cos(phase), torch.sin(phase)


def low_pass(x: Tensor, part: int, constant: bool = True) -> Tensor:
    """Keep the frequencies of a map that are lower than ``1 / part`` in both directions, in cycles a pixel.

    The pass band is a square: what is kept is a projection of the columns and one of the rows, each on few waves.

    Args:
        x: ``[B, C, H, W]``.
        part: at least 3; 2 is the highest frequency there is.
        constant: write the waves into a traced graph as constants; else they follow its height and width.

    Returns:
        ``[B, C, H, W]``.
    """
    rows, columns = (_low_waves(x, dim, part, constant) for dim in (2, 3))  # [H, r], [W, r']
    return rows @ (rows.T @ (x @ columns)) @ columns.T


def _low_waves(x: Tensor, dim: int, part: int, constant: bool) -> Tensor:
    exact = torch.float64 if x.dtype is torch.float64 else torch.float32
    length = x.shape[dim]
    if not (becomes_a_graph() or compiling()):
        return _kept_waves(length, part, x.dtype, x.device)
    if constant and torch.jit.is_tracing():
        values = _orthonormal_waves(int(length), part, torch.float64, torch.device("cpu")).tolist()
        return torch.tensor(values, dtype=x.dtype, device=x.device)
    return _orthonormal_waves(length, part, exact, x.device).to(x.dtype)


@functools.lru_cache(maxsize=256)
def _kept_waves(length: int, part: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Kept here, since a module would put them into checkpoints; a tensor made for inference cannot be trained with."""
    with torch.inference_mode(False), torch.no_grad():
        return _orthonormal_waves(length, part, torch.float64, torch.device("cpu")).to(device, dtype)


def _orthonormal_waves(length: int, part: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One, and cosine and sine of each frequency below ``1 / part``, as orthonormal columns, ``[length, r]``."""
    i = torch.arange(length, device=device)
    frequencies = torch.arange(1, (length - 1) // part + 1, device=device)
    phase = ((i[:, None] * frequencies) % length).to(dtype) * (2 * math.pi / length)
    waves = torch.cat([torch.ones_like(i[:, None]).to(dtype), torch.cos(phase), torch.sin(phase)], 1)
    return waves / waves.norm(dim=0)
