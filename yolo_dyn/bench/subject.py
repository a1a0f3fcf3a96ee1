"""What the layer contract is checked on: a layer, how it is built, and inputs of its shapes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from yolo_dyn import registry

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Subject:
    """A layer, and how it is built and fed."""

    name: str
    layer: type[nn.Module]
    kind: registry.Kind
    shapes: list[tuple[int, ...]]  # of the inputs, without the batch: maps (C, H, W) and tokens (M, d)
    args: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def in_channels(self) -> Any:
        channels = [shape[0] if len(shape) == 3 else shape[-1] for shape in self.shapes]
        return channels[0] if len(channels) == 1 else channels

    def build(self, **options: Any) -> nn.Module:
        torch.manual_seed(0)
        c, options = self.in_channels, {**self.options, **options}
        if self.kind == "convolution":
            options = {"kernel_size": 3, "padding": 1, **options}
            return self.layer(c, options.pop("out_channels", c), *self.args, **options)
        if self.kind == "module":
            return self.layer(c, c, *self.args, **options)
        return self.layer(c, *self.args, **options)

    def trained(self) -> nn.Module:
        """The layer in float64, with statistics as after a training: folding a norm is then not folding an identity."""
        return with_statistics(self.build().double()).eval()

    def inputs(self, batch: int = 2, size: Sequence[int] | None = None, dtype: torch.dtype = torch.float64) -> Any:
        shapes = [(shape[0], *size) if size and len(shape) == 3 else shape for shape in self.shapes]
        tensors = [torch.randn(batch, *shape, dtype=torch.float64).to(dtype) for shape in shapes]
        return tensors[0] if len(tensors) == 1 else tensors


class DoesNotApplyError(Exception):
    """A line of the contract that this layer has no part in."""


def with_statistics(model: Model) -> Model:
    """Draw the statistics and scales of all BatchNorms; return the model."""
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (norm.running_mean, -0.3, 0.3),
                (norm.running_var, 0.5, 2),
                (norm.weight, 0.5, 2),
            ):
                if tensor is not None:
                    nn.init.uniform_(tensor, low, high)
    return model
