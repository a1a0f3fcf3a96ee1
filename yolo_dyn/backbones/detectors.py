"""Mask R-CNN and RetinaNet of torchvision on backbones with dynamic convolutions.

For the detection experiments of two papers: A2D2C in the ResNet-50 of a Mask R-CNN (Table 8), and Dynamic Mobile-Former
under both (DMF Tables 4 and 5). Losses, anchors, heads and boxes are torchvision's own. As the papers' toolbox has it,
RetinaNet's P6 comes from the backbone's last map; torchvision's first RetinaNet takes it from P5.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from yolo_dyn.backbones.fpn import CHANNELS, fpn_backbone
from yolo_dyn.backbones.pretrained import is_checkpoint
from yolo_dyn.errors import YoloDynError, nearest

ULTRALYTICS = {"image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}  # what its classifiers are trained with


def mask_rcnn(backbone: str, num_classes: int, **options: Any) -> MaskRCNN:
    """Build a Mask R-CNN with a feature pyramid on strides 4 to 32.

    Args:
        backbone: a ResNet of torchvision ("resnet50") or a Dynamic Mobile-Former ("dmf-s", "dmf-xs", "dmf-xxs").
        num_classes: with the background, which is class 0: at least 2.
        **options: those of `fpn.fpn_backbone` (`dynamic`, `where`, `from_static`, `weights_backbone`,
            `trainable_backbone_layers`, `frozen_norms`); those of ``torchvision.models.detection.MaskRCNN``
            (`min_size`, `max_size`, `rpn_...`, `box_...`, `mask_...`); all others are the dynamic layer's own.

    Shape:
        in training a list of images ``[3, H_i, W_i]`` in 0 to 1, and targets `boxes` ``[N_i, 4]`` in pixels, `labels`
        ``[N_i]``, `masks` ``[N_i, H_i, W_i]`` -> a dict of losses; at evaluation a list of images -> a list of dicts of
        `boxes`, `labels`, `scores` and `masks` ``[N_i, 1, H_i, W_i]``.

    Raises:
        YoloDynError: for an argument outside its range, or that is not known; the message names it.

    Examples:
        >>> import torch
        >>> detector = mask_rcnn("resnet18", 91, dynamic="A2D2C", where="first_3x3", min_size=64)
        >>> sorted(detector.eval()([torch.rand(3, 64, 64)])[0])
        ['boxes', 'labels', 'masks', 'scores']
    """
    return _build(MaskRCNN, backbone, num_classes, 4, lambda _: LastLevelMaxPool(), options)


def retinanet(backbone: str, num_classes: int, **options: Any) -> RetinaNet:
    """Build a RetinaNet with a feature pyramid on strides 8 to 32, and P6 and P7 above.

    Args:
        backbone, num_classes: as in `mask_rcnn`.
        **options: as in `mask_rcnn`, with those of ``torchvision.models.detection.RetinaNet`` (`min_size`, `max_size`,
            `score_thresh`, ...).

    Shape:
        as `mask_rcnn`, without masks.

    Raises:
        YoloDynError: for an argument outside its range, or that is not known; the message names it.

    Examples:
        >>> import torch
        >>> detector = retinanet("dmf-xxs", 91, min_size=64)  # and weights_backbone="path/to/best.pt"
        >>> sorted(detector.eval()([torch.rand(3, 64, 64)])[0])
        ['boxes', 'labels', 'scores']
    """
    return _build(RetinaNet, backbone, num_classes, 3, lambda c5: LastLevelP6P7(c5, CHANNELS), options)


def _build(
    kind: type[Any],
    backbone: str,
    num_classes: int,
    levels: int,
    extra: Callable[[int], ExtraFPNBlock],
    options: dict[str, Any],
) -> Any:
    if not isinstance(num_classes, int) or num_classes < 2:
        raise YoloDynError(f"num_classes must be at least 2, the background being one of them; got {num_classes!r}")
    own = {key: value for key, value in options.items() if key in _keywords(kind)}
    rest = {key: value for key, value in options.items() if key not in own}
    known = [*_keywords(kind), *_keywords(fpn_backbone)]
    unknown = [key for key in rest if key not in known]
    if unknown and not rest.get("dynamic"):
        hint = nearest(unknown[0], known)
        raise YoloDynError(f"{kind.__name__} has no option {unknown[0]!r}{hint} (known: {', '.join(known)})")
    images = ULTRALYTICS if is_checkpoint(rest.get("weights_backbone")) else {}
    return kind(fpn_backbone(backbone, levels, extra, **rest), num_classes, **{**images, **own}).train()


def _keywords(kind: Callable[..., Any]) -> tuple[str, ...]:
    """What a caller may give beside backbone and classes; torchvision itself ignores a keyword it does not know."""
    if kind is fpn_backbone:
        return tuple(p.name for p in inspect.signature(fpn_backbone).parameters.values() if p.kind is p.KEYWORD_ONLY)
    kinds = (MaskRCNN, FasterRCNN) if kind is MaskRCNN else (kind,)
    found = [p for one in kinds for p in inspect.signature(one).parameters.values() if p.kind is not p.VAR_KEYWORD]
    names = [p.name for p in found if p.name not in ("backbone", "num_classes")]
    return (*dict.fromkeys(names), "size_divisible", "fixed_size")
