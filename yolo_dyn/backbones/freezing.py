"""What of a backbone does not train: BatchNorms, and its first parts."""

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from yolo_dyn.backbones.dmf_maps import DMFMaps
from yolo_dyn.errors import YoloDynError
from yolo_dyn.layers.attention import PooledNorm

PARTS = 5  # see `parts`


def freeze_norms(network: nn.Module) -> None:
    """Fix statistics, scale and shift of all BatchNorms, those inside dynamic layers with them.

    A BatchNorm2d becomes torchvision's FrozenBatchNorm2d. Detectors train with few images a device, too few for the
    statistics of a batch.
    """
    for name, norm in list(network.named_modules()):
        if isinstance(norm, PooledNorm):
            norm.frozen = True
            norm.requires_grad_(False)
        elif type(norm) is nn.BatchNorm2d:
            frozen = FrozenBatchNorm2d(norm.num_features, norm.eps).to(norm.weight)
            frozen.load_state_dict(norm.state_dict())
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, frozen)


def freeze(body: nn.Module, trainable: int | None, has_weights: bool, trained: set[nn.Module]) -> None:
    """Freeze all parts of a backbone but the last ones.

    Args:
        body: the backbone.
        trainable: how many parts train, from the last on; by default 3 if there are weights, else all.
        has_weights: whether there are any.
        trained: the modules that they belong to.

    Raises:
        YoloDynError: if modules would be frozen that are not trained.
    """
    if trainable is None:
        trainable = 3 if has_weights else PARTS
    if trainable not in range(PARTS + 1):
        raise YoloDynError(f"trainable_backbone_layers must be 0 to {PARTS}, got {trainable!r}")
    if trainable < PARTS and not has_weights:
        raise YoloDynError(
            f"trainable_backbone_layers={trainable} would freeze random weights: give weights_backbone, or leave it out"
        )
    for index, part in enumerate(parts(body)[: PARTS - trainable]):
        new = [m for module in part for m in module.modules() if m not in trained]
        if new:
            raise YoloDynError(
                f"trainable_backbone_layers={trainable} would freeze new layers of {type(new[0]).__name__}: "
                f"give at least {PARTS - index}, or another where"
            )
        for module in part:
            module.requires_grad_(False)


def parts(body: nn.Module) -> list[list[nn.Module]]:
    """What freezes together: the stem, and the stages of strides 4, 8, 16 and 32."""
    if isinstance(body, DMFMaps):
        return body.stages
    stem = [body.get_submodule(name) for name in ("conv1", "bn1")]
    return [stem, *([body.get_submodule(f"layer{i}")] for i in (1, 2, 3, 4))]
