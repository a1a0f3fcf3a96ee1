"""The counts by which each dynamic layer is recognised: the papers' networks, built by `convert` and counted."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from yolo_dyn import conversion as c
from yolo_dyn.conversion import convert
from yolo_dyn.stock import load_model
from yolo_dyn.study.dmf_paper import ablations


@dataclass(frozen=True)
class Fingerprint:
    """A network with a layer, its parameters in millions to the thousand, and its multiply-adds in millions."""

    name: str
    params: float
    build: Callable[[], nn.Module]
    multiply_adds: float | None = None


def _values(each: int) -> Callable[..., int]:
    """Count so many multiply-adds, of two FLOPs, for each value of the first argument."""
    return lambda shape, *_, **__: 2 * each * math.prod(shape)


# What DMF's figures hold besides convolutions and matrix products: they agree within 0.6 % when it is counted as fvcore
# does, and are 5 % larger than the products alone.
BESIDES = {
    torch.ops.aten.native_batch_norm: _values(2),
    torch.ops.aten.native_layer_norm: _values(5),
    torch.ops.aten.native_group_norm: _values(5),
    torch.ops.aten.mean: _values(1),
}


def multiply_adds(model: nn.Module, imgsz: int) -> int:
    """Multiply-adds for one image at evaluation, the mixing of kernels, the norms and pooling with them.

    Args:
        model: takes images ``[B, 3, H, W]``.
        imgsz: height and width in pixels.
    """
    model = copy.deepcopy(model).to("meta").eval()  # counting needs no storage
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=BESIDES) as counter:
        model(torch.zeros(1, 3, imgsz, imgsz, device="meta"))
    return counter.get_total_flops() // 2


def _network(name: str, **options: float) -> nn.Module:
    import torchvision.models

    with torch.device("meta"):  # counting needs no storage
        return getattr(torchvision.models, name)(**options)


def _condconv(network: nn.Module) -> nn.Module:
    return convert(network, "CondConv", c.last_blocks(network))


def _dcd(name: str, pool: int) -> nn.Module:
    """DCD's own networks have a dynamic classifier of inner and squeezed width 32."""
    model = convert(_network(name), "DCD", c.block_convolutions, pool=pool)
    return convert(model, "DCD", lambda name, m: name == "fc", inner=32, squeezed=32)


def _mobilenet(width: float) -> nn.Module:
    return convert(_network("mobilenet_v2", width_mult=width), "ODConv", c.all_but_stem)


def _fmdconv(num_experts: int) -> nn.Module:
    """The count holds a bias for each expert, which ResNet's own convolutions do not have."""
    return convert(_network("resnet18"), "FMDConv", c.block_3x3, num_experts=num_experts, bias=True)


def _dmf(size: str) -> nn.Module:
    with torch.device("meta"):
        return load_model(f"dmf-{size.lower()}-cls.yaml")


FINGERPRINTS = (
    Fingerprint("ResNet-18, CondConv K=8", 81.356, lambda: _condconv(_network("resnet18"))),
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
    *(
        Fingerprint(f"DMF-{size}", params, partial(_dmf, size), adds)
        for size, params, adds in (("S", 25.145, 499), ("XS", 19.806, 285), ("XXS", 15.075, 198))
    ),
)


def fingerprints() -> None:
    """Print the parameters of the papers' networks beside those of what is built here."""
    print(f"{'network':<32}{'paper, M':>12}{'built, M':>12}")
    for mark in FINGERPRINTS:
        model = mark.build()
        params = sum(p.numel() for p in model.parameters()) / 1e6
        line = f"{mark.name:<32}{mark.params:>12.3f}{params:>12.3f}  "
        line += "=" if round(params, 3) == mark.params else f"{params - mark.params:+.3f}"
        if mark.multiply_adds:
            counted = multiply_adds(model, 224) / 1e6
            line += f"   multiply-adds: {mark.multiply_adds:g} M, {counted:.1f} M"
            line += f" ({100 * (counted / mark.multiply_adds - 1):+.1f} %)"
        print(line)
    print(ablations())
