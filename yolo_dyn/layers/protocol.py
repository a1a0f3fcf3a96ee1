"""The layer contract: what the rest of the package may ask of a layer, beyond being an ``nn.Module``.

A class becomes a layer by being registered (`yolo_dyn.register`) as one of three kinds:

- "convolution": is built as ``layer(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)``,
  with its own options by keyword after these, and maps ``[B, C_in, H, W]`` to ``[B, C_out, H', W']`` like
  ``nn.Conv2d``. A row of a model YAML adds BatchNorm and SiLU;
- "module": is built as ``layer(in_channels, out_channels, *args, **options)``, by a row as it is;
- "network": a part of whole networks, with fixed channels or several inputs; it declares its output channels.

Everything else is optional. A layer takes part in one of the following by having the method, or the attributes, with
this signature; there is nothing to inherit from. `yolo-dyn check layer=Name` tells what a layer keeps of all this.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Fusible(Protocol):
    """Folds what is constant at evaluation, its own BatchNorms above all.

    It is called when a model is fused for inference, for an outer layer before those inside it, and again when such a
    model is opened, a baked one too: then it changes nothing.
    """

    def fuse(self) -> None: ...


@runtime_checkable
class FusibleConvolution(Protocol):
    """A convolution that folds what comes with it too: the guide of an SGDM, and the BatchNorm that follows it.

    A convolution must take both arguments if it has the method at all.
    """

    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None: ...


@runtime_checkable
class Guidable(Protocol):
    """Lets SGDM guide it: ``forward(x, guide)`` and ``fuse(guide)`` multiply its kernels by the guide (SGDM Eq. 10)."""

    def guide_shape(self) -> tuple[int, int, int]:
        """How many guides it takes, one or as many as experts, and the channels of each: ``(K or 1, C_out, C_in)``."""
        ...


@runtime_checkable
class LeavesOpen(Protocol):
    """Ends in SiLU, or a concatenation and SiLU, and lets SGDM, that ends in both too, do all in two operations."""

    def leave_open(self) -> None:
        """From now on `forward` returns a list: parts that are complete, and a last one to which SiLU is due."""
        ...


@runtime_checkable
class StartsFromStatic(Protocol):
    """Can start as a given static convolution, exact but for rounding (`yolo_dyn.convert(..., from_static=True)`)."""

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take ``[C_out, C_in/groups, k, k]`` and ``[C_out]``; ValueError if the layer's own kernels are not so."""
        ...


@runtime_checkable
class MixesKernels(Protocol):
    """Convolves each sample with one kernel, and can tell which, once it is fused (`yolo-dyn bake`)."""

    geometry: tuple[Any, Any, Any, int]  # stride, padding, dilation, groups

    def mixed(self, x: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """``[B, C_out, C_in/groups, kH, kW]`` and ``[B, C_out]``, or ``[C_out]`` of all, of what `forward` is given."""
        ...


@runtime_checkable
class Bakes(Protocol):
    """Mixes kernels, and keeps something else that varies when it is given a constant one."""

    baked: bool  # whether it was given one

    def mixed(self, x: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As in `MixesKernels`."""
        ...

    def bake(self, kernel: Tensor, bias: Tensor | None) -> None:
        """Keep this one kernel, ``[C_out, C_in/groups, kH, kW]``, and bias, ``[C_out]``."""
        ...


@runtime_checkable
class Reads(Protocol):
    """Mixes kernels that convolve something made of its input, not the input itself."""

    def read(self, x: Tensor) -> tuple[Tensor, tuple[Any, Any, Any, int]]:
        """What the kernels convolve, ``[B, C_in, H, W]``, and how: stride, padding, dilation, groups."""
        ...


@runtime_checkable
class WeighsExperts(Protocol):
    """Mixes kernels that are the same for all samples, its experts, and can tell how, once it is fused.

    `yolo-dyn experts` asks for it.
    """

    sums_to_one: bool  # whether the weights of a mixture lie between 0 and 1 and sum to one

    def weigh(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """``[B, m, K]``, of what `forward` is given: of K experts in m mixtures, more than one if each is a part."""
        ...

    def expert_kernels(self) -> Tensor:
        """``[K, ...]``."""
        ...


@runtime_checkable
class DeclaresChannels(Protocol):
    """Tells its output channels itself, so that it may take several inputs and yield several maps.

    Its row builds ``layer(in_channels, *args, **options)``, with a list of channels if the row reads several rows; its
    ``forward`` takes a list of maps then.
    """

    @staticmethod
    def out_channels(in_channels: Any, args: list[Any]) -> int | list[int]: ...


@runtime_checkable
class RefusesExport(Protocol):
    """Knows formats of `yolo export` that cannot take it."""

    def cannot_export(self, target: str) -> str | None:
        """The reason, or None if the format can take it."""
        ...


@runtime_checkable
class HasForm(Protocol):
    """Computes its mixture in one of several forms, see `functional.mixture_conv`; an export chooses among them."""

    form: str


@runtime_checkable
class Shares(Protocol):
    """Shares parameters with the other layers of its model that are built with the same ``warehouse=name``.

    What they share is built once all of them are there: `seal` is called on a model when it is complete. A module that
    is shared must be registered by one of its layers alone, or a moving average moves it as often as it is listed.
    """

    @classmethod
    def seal(cls, model: nn.Module) -> None:
        """Complete the layers of this class in a model that are not yet; ValueError if some do not fit together."""
        ...


@runtime_checkable
class Annealed(Protocol):
    """Has a temperature that training lowers by a schedule; None for none.

    ``{start, step}``: logits are divided by it, down to 1 by `step` an epoch. ``{epochs}``: a share, from 1 down to 0.
    """

    anneal: dict[str, float] | None
    temperature: float


@runtime_checkable
class DropsPaths(Protocol):
    """Leaves out a residual branch at random in training, with this probability (stochastic depth)."""

    drop_path: float


@runtime_checkable
class RemembersOptions(Protocol):
    """Its defaults have changed since earlier releases, whose checkpoints are to stay what they were."""

    def unnamed_options(self) -> dict[str, Any]:
        """The options, by their names in a YAML, that it was built with and that are not today's defaults."""
        ...


@runtime_checkable
class HasNote(Protocol):
    """Has something to say in the table of a model's rows, beside its arguments."""

    def log_note(self) -> str: ...


def seal(model: nn.Module) -> None:
    """Complete the layers of a model that share parameters.

    Raises:
        ValueError: if some that are to share do not fit together; the message names what they share.
    """
    for kind in dict.fromkeys(type(module) for module in model.modules() if isinstance(module, Shares)):
        kind.seal(model)


def options_of(layer: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    """The arguments that a layer can be built with."""
    return inspect.signature(layer).parameters


def check_static(weight: Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError if kernels of a shape, ``[C_out, C_in/groups, kH, kW]``, cannot start from these."""
    if tuple(weight.shape) != tuple(shape):
        raise ValueError(f"kernels of {tuple(shape)} cannot start from static ones of {tuple(weight.shape)}")


def parts(y: Tensor | list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Of an output: what is complete, and what lacks its SiLU, see `LeavesOpen`."""
    return ([y], []) if isinstance(y, Tensor) else (y[:-1], y[-1:])


def is_fusible(layer: nn.Module | type[nn.Module]) -> bool:
    """Whether a layer, or a class of layers, has a method `fuse`."""
    return issubclass(layer if isinstance(layer, type) else type(layer), Fusible)


def folds_norm(layer: nn.Module | type[nn.Module]) -> TypeGuard[FusibleConvolution]:
    """Whether its `fuse` takes the BatchNorm that follows it; a module's folds its own alone."""
    kind = layer if isinstance(layer, type) else type(layer)
    return issubclass(kind, Fusible) and "bn" in inspect.signature(kind.fuse).parameters


def declares_channels(layer: type[nn.Module]) -> TypeGuard[type[DeclaresChannels]]:
    """Whether a class tells its output channels; an ``nn.Conv2d`` has an attribute of that name, which is none."""
    return callable(getattr(layer, "out_channels", None))


def ends_in_norm(layer: type[nn.Module]) -> bool:
    """Whether it brings BatchNorm and activation itself, which a class says by ``normed = True``.

    SGDM then adds none; its `forward` and `fuse` take a guide, which may be None.
    """
    return getattr(layer, "normed", False)
