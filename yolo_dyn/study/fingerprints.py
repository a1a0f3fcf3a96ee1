"""The counts by which each dynamic layer is recognised: the papers' networks, built by `convert` and counted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from yolo_dyn import conversion as c
from yolo_dyn.conversion import convert


@dataclass(frozen=True)
class Fingerprint:
    """A network with a layer, and its parameters in millions to the thousand."""

    name: str
    params: float
    build: Callable[[], nn.Module]


def _network(name: str, **options: float) -> nn.Module:
    import torchvision.models

    with torch.device("meta"):  # counting needs no storage
        return getattr(torchvision.models, name)(**options)


def _dcd(name: str, pool: int) -> nn.Module:
    """DCD's own networks have a dynamic classifier of inner and squeezed width 32."""
    model = convert(_network(name), "DCD", c.block_convolutions, pool=pool)
    return convert(model, "DCD", lambda name, m: name == "fc", inner=32, squeezed=32)


def _mobilenet(width: float) -> nn.Module:
    return convert(_network("mobilenet_v2", width_mult=width), "ODConv", c.all_but_stem)


def _fmdconv(num_experts: int) -> nn.Module:
    """The count holds a bias for each expert, which ResNet's own convolutions do not have."""
    return convert(_network("resnet18"), "FMDConv", c.block_3x3, num_experts=num_experts, bias=True)


FINGERPRINTS = (
    Fingerprint("ResNet-18, CondConv K=8", 81.356, lambda: convert(_network("resnet18"), "CondConv", c.last_blocks)),
    Fingerprint("ResNet-18, DynamicConv", 45.475, lambda: convert(_network("resnet18"), "DynamicConv", c.all_but_stem)),
    Fingerprint(
        "ResNet-50, DynamicConv", 100.895, lambda: convert(_network("resnet50"), "DynamicConv", c.all_but_stem)
    ),
    Fingerprint("ResNet-18, DCD", 14.703, lambda: _dcd("resnet18", pool=2)),
    Fingerprint("ResNet-50, DCD", 29.835, lambda: _dcd("resnet50", pool=1)),
    Fingerprint(
        "ResNet-18, ODConv K=1",
        11.944,
        lambda: convert(_network("resnet18"), "ODConv", c.block_convolutions, num_experts=1),
    ),
    Fingerprint("ResNet-18, ODConv K=4", 44.902, lambda: convert(_network("resnet18"), "ODConv", c.block_convolutions)),
    Fingerprint("ResNet-50, ODConv K=4", 90.671, lambda: convert(_network("resnet50"), "ODConv", c.block_convolutions)),
    *(
        Fingerprint(
            f"MobileNetV2 x{width}, ODConv K=4",
            params,
            partial(_mobilenet, width),
        )
        for width, params in ((0.5, 4.436), (0.75, 7.496), (1.0, 11.512))
    ),
    *(
        Fingerprint(
            f"ResNet-18, FMDConv K={k}",
            params,
            partial(_fmdconv, k),
        )
        for k, params in ((1, 12.233), (2, 23.223), (4, 45.203), (6, 67.184), (8, 89.164), (16, 177.086))
    ),
)


def fingerprints() -> None:
    """Print the parameters of the papers' networks beside those of what is built here."""
    print(f"{'network':<32}{'paper, M':>12}{'built, M':>12}")
    for mark in FINGERPRINTS:
        params = sum(p.numel() for p in mark.build().parameters()) / 1e6
        equal = round(params, 3) == mark.params
        print(f"{mark.name:<32}{mark.params:>12.3f}{params:>12.3f}  {'=' if equal else f'{params - mark.params:+.3f}'}")
