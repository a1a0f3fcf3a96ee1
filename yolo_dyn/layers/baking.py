"""Static convolutions in place of layers that mix kernels, each with the mean of the kernels that it used.

The layers must be fused: what they convolve with is told by `protocol.MixesKernels` and `protocol.Bakes`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from yolo_dyn.layers.protocol import Bakes, MixesKernels


class Mean:
    """The mean over samples of tensors ``[B, ...]``, in double precision and on the CPU."""

    def __init__(self) -> None:
        self.count, self.total = 0, torch.zeros(())

    def add(self, samples: Tensor) -> None:
        self.total = self.total + samples.sum(0).cpu().double()
        self.count += len(samples)

    @property
    def value(self) -> Tensor:
        return self.total / self.count

    def like(self, samples: Tensor) -> Tensor:
        """The mean, where and of the kind that such samples are."""
        return self.value.to(samples)


class MeanKernel:
    """The mean of the kernels and biases that a layer has used, each sample counting once."""

    def __init__(self) -> None:
        self.kernels, self.biases = Mean(), Mean()
        self.sample: tuple[Tensor, Tensor | None]  # of the last batch, which says what kind they are of

    def add(self, kernel: Tensor, bias: Tensor | None) -> None:
        """Add those of a batch, as `mixed` tells them."""
        self.kernels.add(kernel)
        if bias is not None:
            self.biases.add(bias.expand(len(kernel), -1))
        self.sample = kernel[:0], None if bias is None else bias[:0]

    def means(self) -> tuple[Tensor, Tensor | None]:
        """``[C_out, C_in/groups, kH, kW]`` and ``[C_out]``."""
        kernel, bias = self.sample
        return self.kernels.like(kernel), None if bias is None else self.biases.like(bias)


def mixing_layers(net: nn.Module) -> dict[str, Any]:
    """The layers of a network that mix kernels, by their names; not those that are baked already."""
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, MixesKernels) or (isinstance(module, Bakes) and not module.baked)
    }


def show(
    net: nn.Module, images: Iterable[Tensor], layers: dict[str, Any], see: Callable[[str, Any, Any, Any], None]
) -> None:
    """Run a network on batches; before each run of a layer ``see(name, layer, args, kwargs)`` gets what it is given."""
    hooks = [layer.register_forward_pre_hook(partial(see, name), with_kwargs=True) for name, layer in layers.items()]
    try:
        for batch in images:
            net(batch)
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def mean_kernels(net: nn.Module, images: Iterable[Tensor]) -> dict[str, MeanKernel]:
    """Of the layers of a fused network that mix kernels, over batches ``[B, C, H, W]``; one never reached is absent."""
    found: dict[str, MeanKernel] = {}

    def see(name: str, layer: Any, args: Any, kwargs: Any) -> None:
        found.setdefault(name, MeanKernel()).add(*layer.mixed(*args, **kwargs))

    show(net, images, mixing_layers(net), see)
    return found


def freeze(net: nn.Module, name: str, mean: MeanKernel) -> bool:
    """Let one layer of a fused network keep its mean kernel; whether all of it is static then."""
    layer: Any = net.get_submodule(name)
    kernel, bias = mean.means()
    device = next(layer.parameters()).device
    kernel, bias = kernel.to(device), None if bias is None else bias.to(device)
    if isinstance(layer, Bakes):
        layer.bake(kernel, bias)
        return False
    parent, _, attribute = name.rpartition(".")
    setattr(net.get_submodule(parent), attribute, _conv(kernel, bias, layer.geometry))
    return True


def _conv(kernel: Tensor, bias: Tensor | None, geometry: tuple[Any, Any, Any, int]) -> nn.Conv2d:
    out, within, *size = kernel.shape
    conv = nn.Conv2d(within * geometry[3], out, tuple(size), *geometry, bias=bias is not None)  # type: ignore[arg-type]
    conv.weight = nn.Parameter(kernel, requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return conv
