"""A dynamic layer in place of chosen convolutions of any torch model: torchvision, timm, one's own."""

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from yolo_dyn import registry
from yolo_dyn.errors import YoloDynError
from yolo_dyn.layers.blocks import AsLinear
from yolo_dyn.layers.protocol import Shares, StartsFromStatic, seal

Where = Callable[[str, nn.Module], bool]
Share = Callable[[str, nn.Module], str | None]  # the name of what a layer shares with others; None for nothing


def convert(
    model: nn.Module,
    layer: type[nn.Module] | str,
    where: Where,
    from_static: bool = False,
    share: Share | None = None,
    **options: Any,
) -> nn.Module:
    """Replace chosen convolutions, and linear layers as 1x1 convolutions, of any torch model by a dynamic layer.

    Args:
        model: changed in place.
        layer: a class with the arguments of ``nn.Conv2d``, or the name of a registered one.
        where: is given the name and the module of each ``nn.Conv2d`` and ``nn.Linear``; those it accepts are replaced.
        from_static: start every expert from the static weights, so that the network computes at first what it did.
            That is exact but for the rounding if the layer has ``start_from``: all convolutions of this package but
            RDConv, RFAConv and LDConv, and KWConv with a budget below 1. Attentions that scale the kernel then start at
            zero logits.
        share: of a layer that shares parameters (KWConv), is given the name and the module of each replaced one and
            returns the name of its warehouse; `stages` by default.
        **options: the layer's own; `bias` is that of the replaced module if it is not given.

    Returns:
        The model.

    Raises:
        YoloDynError: if `where` accepts nothing, or a module cannot be replaced by this layer.

    Examples:
        >>> from torchvision.models import resnet18
        >>> network = convert(resnet18(), "ODConv", block_convolutions, num_experts=1)
        >>> type(network.layer1[0].conv1).__name__
        'ODConv'
    """
    kind = registry.require(layer) if isinstance(layer, str) else layer
    if issubclass(kind, Shares):
        share = share or stages(model)
    elif share is not None:
        raise YoloDynError(f"{kind.__name__} shares no parameters: share is for layers that do")
    made = replace_chosen(model, kind, where, from_static, share, **options)
    try:
        seal(model)
    except ValueError as error:
        raise YoloDynError(str(error)) from error
    for name, new, weight, bias in made if from_static else ():
        assert isinstance(new, StartsFromStatic)
        try:
            new.start_from(weight, bias)
        except ValueError as error:
            raise YoloDynError(f"{name}: {error}") from error
    return model


# name, new layer, static weight ``[C_out, C_in/groups, k, k]`` and bias
Replaced = tuple[str, nn.Module, Tensor, Tensor | None]


def replace_chosen(
    model: nn.Module,
    kind: type[nn.Module],
    where: Where,
    from_static: bool = False,
    share: Share | None = None,
    **options: Any,
) -> list[Replaced]:
    """What `convert` does, but for sealing what layers share, and for starting them from the static weights.

    Returns:
        The new layers, with what they replace.
    """
    if from_static and not issubclass(kind, StartsFromStatic):
        raise YoloDynError(f"{kind.__name__} cannot start from static weights: set from_static=False")
    found = [(name, m) for name, m in model.named_modules() if type(m) in (nn.Conv2d, nn.Linear)]
    chosen = [(name, m) for name, m in found if where(name, m)]
    if not chosen:
        examples = ", ".join(name for name, _ in found[:5]) or "none"
        raise YoloDynError(f"where matches none of the {len(found)} convolutions and linear layers ({examples}, ...)")
    made = []
    for name, module in chosen:
        parent, _, attribute = name.rpartition(".")
        if not name:
            raise YoloDynError("the model is a single layer: build the dynamic layer in its place")
        named = {"warehouse": share(name, module), **options} if share is not None else options
        new = _replacement(name, module, kind, named)
        setattr(model.get_submodule(parent), attribute, new if isinstance(module, nn.Conv2d) else AsLinear(new))
        for size in ("in_channels", "out_channels") if isinstance(module, nn.Conv2d) else ():
            if not hasattr(new, size):
                setattr(new, size, getattr(module, size))  # which others read of their convolutions
        weight = module.weight if isinstance(module, nn.Conv2d) else module.weight[:, :, None, None]
        made.append((name, new, weight, module.bias))
    return made


def _replacement(name: str, module: nn.Module, kind: type[nn.Module], options: dict[str, Any]) -> nn.Module:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    options = {"bias": module.bias is not None, **options}
    if isinstance(module, nn.Conv2d):
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            found = module.padding if isinstance(module.padding, str) else module.padding_mode
            raise YoloDynError(f"{name}: only numeric zero padding can be replaced, found {found!r}")
        shape = (module.in_channels, module.out_channels, module.kernel_size)
        geometry = (module.stride, module.padding, module.dilation, module.groups)
    else:
        shape, geometry = (module.in_features, module.out_features, (1, 1)), ((1, 1), (0, 0), (1, 1), 1)
    try:
        new = kind(*shape, *geometry, **options)
    except (TypeError, ValueError) as error:
        raise YoloDynError(f"{name}: {error}") from error
    return new.to(module.weight).train(module.training)


# what the papers replace, in the names of torchvision's networks ------------------------------------------------------


def kernel_size(module: nn.Module) -> int:
    """Larger side of a convolution's kernel; 0 for a linear layer."""
    return max(module.kernel_size) if isinstance(module, nn.Conv2d) else 0


def last_blocks(model: nn.Module) -> Where:
    """CondConv on ResNets: the 3x3 convolutions of the last three blocks, and the classifier."""
    blocks = [b for stage in ("layer3", "layer4") for b in model.get_submodule(stage).children()][-3:]
    chosen = [m for block in blocks for m in block.modules() if kernel_size(m) == 3]
    return lambda name, module: any(module is m for m in chosen) or name == "fc"


def all_but_stem(name: str, module: nn.Module) -> bool:
    """DynamicConv on ResNets, ODConv and A2D2C's counts of MobileNetV2: every convolution but the first."""
    return isinstance(module, nn.Conv2d) and name not in ("conv1", "features.0.0")


def all_convolutions(name: str, module: nn.Module) -> bool:
    """KernelWarehouse on MobileNetV2: every convolution."""
    return isinstance(module, nn.Conv2d)


def block_convolutions(name: str, module: nn.Module) -> bool:
    """DCD and ODConv on ResNets, the nearest to A2D2C's count of ResNet-50: the convolutions of the blocks.

    Stem and downsampling stay static.
    """
    return isinstance(module, nn.Conv2d) and name.startswith("layer") and "downsample" not in name


def block_3x3(name: str, module: nn.Module) -> bool:
    """FMDConv on ResNets, and A2D2C's counts of ResNet-18: all 3x3 convolutions of the blocks."""
    return name.startswith("layer") and kernel_size(module) == 3


def initial(name: str, module: nn.Module) -> bool:
    """A2D2C's Table 10, "Initial": the first convolution of each block of a ResNet, in all four stages."""
    return isinstance(module, nn.Conv2d) and name.startswith("layer") and name.endswith(".conv1")


def first_3x3(model: nn.Module) -> Where:
    """A2D2C's text on ResNets: the first 3x3 convolution of each block in stages 2 to 4, a different one by block."""
    chosen = []
    for stage in ("layer2", "layer3", "layer4"):
        for block in model.get_submodule(stage).children():
            chosen.append(next(m for m in block.modules() if kernel_size(m) == 3))
    return lambda name, module: any(module is m for m in chosen)


def pointwise(name: str, module: nn.Module) -> bool:
    """DCD on MobileNetV2: the 1x1 convolutions, since DCD fuses all channels."""
    return isinstance(module, nn.Conv2d) and module.groups == 1 and kernel_size(module) == 1


def depthwise_3x3(name: str, module: nn.Module) -> bool:
    """A2D2C's text on MobileNetV2: the depthwise 3x3 convolution of each inverted residual block."""
    return isinstance(module, nn.Conv2d) and module.groups > 1 and kernel_size(module) == 3


def sharing_blocks(model: nn.Module) -> Where:
    """KernelWarehouse on ResNets: all convolutions of the blocks, but those of a first bottleneck that see the stem."""
    bottlenecks = any(name.startswith("layer1") and name.endswith("conv3") for name, _ in model.named_modules())
    static = ("layer1.0.conv1", "layer1.0.downsample.0") if bottlenecks else ()
    return lambda name, module: isinstance(module, nn.Conv2d) and name.startswith("layer") and name not in static


def stages(model: nn.Module, apart: bool = False) -> Share:
    """KernelWarehouse: the layers of a stage share a warehouse, and those that lead into the next one belong to it.

    Known are torchvision's ResNets and MobileNetV2, whose depthwise and pointwise convolutions have warehouses of their
    own; in other networks, convolutions of equal channels share.

    Args:
        model: the network.
        apart: let MobileNetV2's expansions and projections have warehouses of their own (4x).
    """
    mobile = type(model).__name__ == "MobileNetV2"

    def share(name: str, module: nn.Module) -> str | None:
        if found := re.fullmatch(r"layer(\d)\.(\d+)\.(conv\d|downsample\.0)", name):
            leads_in = found[2] == "0" and found[3] in ("conv1", "downsample.0")
            return f"stage{max(int(found[1]) - leads_in, 1)}"
        if mobile and isinstance(module, nn.Conv2d):
            block = int(name.split(".")[1])
            if block == 0:
                return None  # the stem
            kind = "depthwise" if module.groups > 1 else "pointwise"
            if apart and kind == "pointwise":
                kind = "expansion" if name.endswith("conv.0.0") else "projection"
            return f"stage{MOBILE_STAGES[block - 1]}, {kind}"
        if isinstance(module, nn.Conv2d):
            return f"{module.in_channels // module.groups} to {module.out_channels}"
        assert isinstance(module, nn.Linear)
        return f"{module.in_features} to {module.out_features}, linear"

    return share


# of MobileNetV2's seventeen blocks and its last convolution: a first block belongs to the stage before it
MOBILE_STAGES = (1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 6, 6, 6, 6)


WHERE: dict[str, Callable[[nn.Module], Where]] = {  # by name for a YAML; each is given the network
    "last_blocks": last_blocks,
    "all_but_stem": lambda network: all_but_stem,
    "all_convolutions": lambda network: all_convolutions,
    "block_convolutions": lambda network: block_convolutions,
    "block_3x3": lambda network: block_3x3,
    "initial": lambda network: initial,
    "first_3x3": first_3x3,
    "pointwise": lambda network: pointwise,
    "sharing_blocks": sharing_blocks,
    "depthwise_3x3": lambda network: depthwise_3x3,
}
