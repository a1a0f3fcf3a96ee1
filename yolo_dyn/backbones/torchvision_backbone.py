"""A classification network of torchvision as a row of a model YAML, its convolutions converted to a dynamic layer."""

import functools
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from yolo_dyn.conversion import WHERE, convert
from yolo_dyn.errors import YoloDynError, nearest

FAMILIES = ("resnet", "resnext", "wide_resnet", "mobilenet", "efficientnet")  # a body, pooling, a classifier


class TorchvisionBackbone(nn.Module):
    """A torchvision network up to its pooling, with a dynamic layer in place of chosen convolutions.

    Args:
        in_channels: of the images, 3.
        name: as in ``torchvision.models.get_model``.
        width: of a MobileNet.
        dynamic: class of the dynamic layer; in a YAML its name. ``nn.Conv2d`` leaves the network as it is.
        where: which convolutions are replaced, a name out of `conversion.WHERE`.
        weights: torchvision's, "DEFAULT" for example; none if it is empty.
        from_static: start the dynamic layers from these weights.
        bias: of the dynamic layers; if it is not given, that of the convolutions they replace.
        stem: "cifar" gives a ResNet a 3x3 stem of stride 1 without pooling, which starts at random.
        **options: the dynamic layer's own.

    Shape:
        ``[B, 3, H, W]`` -> ``[B, C, H/32, W/32]``, with the stem for CIFAR ``[B, C, H/8, W/8]``.

    Raises:
        ValueError: for a network, a choice of convolutions or an argument that is not known.
        YoloDynError: if the weights cannot be had, or the layer cannot replace a convolution.

    Examples:
        As a row of a YAML, ``[-1, 1, TorchvisionBackbone, [resnet18, {dynamic: ODConv, where: block_convolutions}]]``.

        >>> from yolo_dyn.layers import ODConv
        >>> backbone = TorchvisionBackbone(3, "resnet18", dynamic=ODConv, where="block_convolutions", stem="cifar")
        >>> backbone(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        name: str,
        width: float = 1.0,
        *,
        dynamic: type[nn.Module] = nn.Conv2d,
        where: str = "",
        weights: str = "",
        from_static: bool = False,
        bias: bool | None = None,
        stem: str = "",
        **options: Any,
    ):
        super().__init__()
        if in_channels != 3:
            raise ValueError(f"torchvision's networks take images of 3 channels, got {in_channels}")
        network = _create(name, width, weights)
        if stem:
            _set_stem(network, name, stem)
        if dynamic is not nn.Conv2d:
            if where not in WHERE:
                raise ValueError(f"where must be one of {', '.join(WHERE)}, got {where!r}{nearest(where, WHERE)}")
            options |= {} if bias is None else {"bias": bias}
            convert(network, dynamic, WHERE[where](network), from_static, **options)
        self.layers = _body(network)

    @staticmethod
    def out_channels(in_channels: int, args: list[Any]) -> int:
        return _channels(*args[:2])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def _create(name: str, width: float = 1.0, weights: str = "") -> nn.Module:
    from torchvision import models

    known = [model for model in models.list_models(module=models) if model.startswith(FAMILIES)]
    if name not in known:
        raise ValueError(
            f"name must be a network of torchvision ({', '.join(FAMILIES)}), got {name!r}{nearest(name, known)}"
        )
    options = {} if width == 1 else {"width_mult": width}
    try:
        return models.get_model(name, weights=weights or None, **options)
    except Exception as error:  # a download may fail in any way
        raise YoloDynError(f"{name} of width {width} with weights {weights!r} cannot be had: {error}") from error


def _set_stem(network: nn.Module, name: str, stem: str) -> None:
    if stem != "cifar":
        raise ValueError(f"stem must be 'cifar' or empty, got {stem!r}")
    old = getattr(network, "conv1", None)
    if not isinstance(old, nn.Conv2d):
        raise ValueError(f"stem 'cifar' is for ResNets, got {name}")
    conv = nn.Conv2d(3, old.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
    network.conv1, network.maxpool = conv, nn.Identity()


def _body(network: nn.Module) -> nn.Module:
    """All that comes before the pooling."""
    children = dict(network.named_children())
    if "features" in children:
        return children["features"]
    names = list(children)
    return nn.Sequential(OrderedDict((name, children[name]) for name in names[: names.index("avgpool")]))


@functools.cache
def _channels(name: str, width: float = 1.0) -> int:
    with torch.device("meta"):  # only asked, not used
        return _body(_create(name, width)).eval()(torch.zeros(1, 3, 64, 64)).shape[1]
