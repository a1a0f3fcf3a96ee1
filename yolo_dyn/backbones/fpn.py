"""Backbones with dynamic convolutions under a feature pyramid, as torchvision's detectors take them."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from yolo_dyn import registry
from yolo_dyn.backbones import pretrained
from yolo_dyn.backbones.dmf_maps import DMFMaps
from yolo_dyn.backbones.freezing import PARTS, freeze, freeze_norms
from yolo_dyn.backbones.torchvision_backbone import TorchvisionBackbone
from yolo_dyn.conversion import WHERE, convert
from yolo_dyn.errors import YoloDynError, nearest

CHANNELS = 256  # of each map of the pyramid


class DMFWithFPN(nn.Module):
    """A Dynamic Mobile-Former and its pyramid: torchvision's BackboneWithFPN for rows that take several inputs.

    Args:
        body: the backbone.
        levels: how many of its maps the pyramid takes, from the smallest on.
        extra: the levels above them.

    Shape:
        ``[B, 3, H, W]`` -> ``{name: [B, 256, H_i, W_i]}``, from the largest to the smallest.
    """

    def __init__(self, body: DMFMaps, levels: int, extra: ExtraFPNBlock):
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(body.channels[-levels:], CHANNELS, extra)
        self.levels, self.out_channels = levels, CHANNELS

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.body(x)[-self.levels :]
        return self.fpn(OrderedDict((str(i), y) for i, y in enumerate(maps)))


def fpn_backbone(
    backbone: str,
    levels: int,
    extra: Callable[[int], ExtraFPNBlock],
    *,
    dynamic: str | type[nn.Module] | None = None,
    where: str | None = None,
    from_static: bool | None = None,
    weights_backbone: str | None = None,
    trainable_backbone_layers: int | None = None,
    frozen_norms: bool | None = None,
    **options: Any,
) -> nn.Module:
    """Build a backbone and its pyramid.

    Args:
        backbone: one of `pretrained.names`.
        levels: how many maps the pyramid takes, from stride 32 on.
        extra: builds the levels above them, given the channels of the map of stride 32.
        dynamic: dynamic layer in place of convolutions of a ResNet, its name or class; none by default.
        where: which convolutions are replaced, a name out of `conversion.WHERE`.
        from_static: start the dynamic layers from the weights of the convolutions; by default if there are weights.
        weights_backbone: a name of torchvision's, "IMAGENET1K_V1" for example; or a checkpoint (.pt) that
            ``yolo classify train`` wrote for this backbone, with the dynamic layers that it holds.
        trainable_backbone_layers: how many parts train, from the last on: 0 to 5, as in torchvision. By default 3
            if there are weights, all if there are none.
        frozen_norms: keep statistics, scale and shift of the BatchNorms that `weights_backbone` brings; by default
            if there are weights, as in torchvision.
        **options: the dynamic layer's own.

    Returns:
        A module with `out_channels` that maps ``[B, 3, H, W]`` to ``{name: [B, 256, H_i, W_i]}``.

    Raises:
        YoloDynError: for a name or an argument that is not known, weights that cannot be had or belong to another
            backbone, and parts that would be frozen untrained.
    """
    body = pretrained.body(backbone, weights_backbone)
    if frozen_norms if frozen_norms is not None else bool(weights_backbone):
        freeze_norms(body)
    trained = set(body.modules())
    if dynamic:
        _check(body, backbone, where)
        from_static = bool(weights_backbone) if from_static is None else from_static
        convert(body, dynamic, WHERE[str(where)](body), from_static, **options)
    elif where or from_static is not None or options:
        given = "where" if where else next(iter(options), "from_static")
        raise YoloDynError(f"{given!r} is for a dynamic layer: name it by dynamic=")
    freeze(body, trainable_backbone_layers, bool(weights_backbone), trained)
    if isinstance(body, DMFMaps):
        return DMFWithFPN(body, levels, extra(body.channels[-1]))
    channels = [TorchvisionBackbone.out_channels(3, [backbone]) // 2**i for i in (3, 2, 1, 0)]
    taken = {f"layer{PARTS - levels + i}": str(i) for i in range(levels)}
    return BackboneWithFPN(body, taken, channels[-levels:], CHANNELS, extra(channels[-1]))


def _check(body: nn.Module, backbone: str, where: str | None) -> None:
    """That a dynamic layer can be put in."""
    if isinstance(body, DMFMaps):
        raise YoloDynError(f"dynamic is for ResNets: the convolutions of {backbone} are dynamic already")
    if where not in WHERE:
        raise YoloDynError(f"where must be one of {', '.join(WHERE)}, got {where!r}{nearest(str(where), WHERE)}")
    found = sorted({type(layer).__name__ for layer in registry.in_model(body)})
    if found:
        raise YoloDynError(f"weights_backbone brings {', '.join(found)} with it: leave dynamic out")
