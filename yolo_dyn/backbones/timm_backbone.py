"""Any backbone of timm as a row of a model YAML (SGDM paper, Table 4)."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from yolo_dyn.errors import YoloDynError, nearest, needed

STRIDES = (8, 16, 32)


class TimmBackbone(nn.Module):
    """The maps of a timm network at chosen strides; `Feature` rows take them apart.

    Args:
        in_channels: of the images.
        name: as in ``timm.create_model``, with a tag for its weights if it has several.
        strides: of the maps to the image, ascending.
        unstrided: module before the first map whose convolution gets stride 1, so that all strides are half as large.
        pretrained: start from timm's weights, which are downloaded if they are not there yet.

    Shape:
        ``[B, C_in, H, W]`` -> list of ``[B, C_i, H/stride_i, W/stride_i]``.

    Raises:
        ValueError: for an unknown name, or strides or a module that the network does not have.
        YoloDynError: if timm is not installed, or the weights cannot be had.

    Examples:
        As rows of a YAML, ``[-1, 1, TimmBackbone, [fasternet_t0, [8, 16, 32], {pretrained: true}]]`` and
        ``[-1, 1, TimmBackbone, [efficientvit_m0, [8, 16, 32], patch_embed_conv4]]``.

        >>> backbone = TimmBackbone(3, "fasternet_t0", [8, 16])
        >>> [tuple(feature.shape) for feature in backbone(torch.rand(1, 3, 64, 64))]
        [(1, 80, 8, 8), (1, 160, 4, 4)]
    """

    def __init__(
        self,
        in_channels: int,
        name: str,
        strides: tuple[int, ...] | list[int] = STRIDES,
        unstrided: str = "",
        *,
        pretrained: bool = False,
    ):
        super().__init__()
        chosen = tuple(index for index, _ in _maps(name, in_channels, tuple(strides), unstrided))
        try:
            self.network = _create(name, in_chans=in_channels, out_indices=chosen, pretrained=pretrained)
        except Exception as error:  # a download may fail in any way
            raise YoloDynError(f"the weights of {name} cannot be had: {error}; set pretrained to false") from error
        if unstrided:
            _unstride(self.network, unstrided)

    @staticmethod
    def out_channels(in_channels: int, args: list[Any]) -> list[int]:
        strides = tuple(args[1] if len(args) > 1 else STRIDES)
        return [channels for _, channels in _maps(args[0], in_channels, strides, *args[2:3])]

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.network(x)


@functools.cache
def _maps(name: str, in_channels: int, strides: tuple[int, ...], unstrided: str = "") -> list[tuple[int, int]]:
    """Index and channels of the network's maps at these strides; the deepest if several have one stride."""
    with torch.device("meta"):  # only asked, not used
        network = _create(name, in_chans=in_channels)
    factor = 2 if unstrided else 1
    if unstrided:
        _unstride(network, unstrided)
    info = network.feature_info
    found = dict(zip((r // factor for r in info.reduction()), enumerate(info.channels()), strict=True))
    missing = [stride for stride in strides if stride not in found]
    if missing or list(strides) != sorted(set(strides)):
        raise ValueError(f"strides of {name} must be some of {', '.join(map(str, found))}, ascending, got {strides}")
    return [found[stride] for stride in strides]


def _unstride(network: nn.Module, name: str) -> None:
    """Give the one convolution of stride 2 in a module before the first map stride 1."""
    children = dict(network.named_children())
    first = next((i for i, child in enumerate(children) if child in getattr(network, "return_layers", {})), 0)
    before = list(children)[:first]
    strided = {n: [m for m in children[n].modules() if getattr(m, "stride", None) == (2, 2)] for n in before}
    accepted = [n for n in before if len(strided[n]) == 1]
    if name not in accepted:
        raise ValueError(f"unstrided must be one of {', '.join(accepted) or 'none'}, got {name!r}")
    strided[name][0].stride = (1, 1)  # type: ignore[assignment]


def _create(name: str, **options: Any) -> Any:
    timm = needed("timm", "TimmBackbone", "'yolo-dyn[timm]'")
    known = timm.list_models()
    if name.split(".")[0] not in known:
        raise ValueError(f"timm has no model {name!r}{nearest(name, known)}")
    return timm.create_model(name, features_only=True, **options)
