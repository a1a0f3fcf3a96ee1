"""The counts by which each dynamic layer is recognised: the papers' networks, built by `convert` and counted."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import yaml
from torch import nn
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import TQDM

from yolo_dyn import conversion as c
from yolo_dyn.bench.flops import MultiplyAdds
from yolo_dyn.conversion import convert
from yolo_dyn.integration.api import load_model
from yolo_dyn.layers import FDConv, KWConv
from yolo_dyn.output.files import bundled_folder
from yolo_dyn.output.outcome import Text


@dataclass(frozen=True)
class Fingerprint:
    """A network with a layer, its parameters in millions, and its multiply-adds in millions.

    `decimals` are those of the paper's parameters, six of a count to the unit; `note` says why a count does not follow,
    and is empty if it does. `beyond` counts what a published implementation holds beyond what is built here.
    """

    name: str
    params: float
    build: Callable[[], nn.Module]
    multiply_adds: float | None = None
    decimals: int = 3
    note: str = ""
    beyond: Callable[[nn.Module], int] = lambda model: 0

    def count(self, model: nn.Module) -> float:
        """The parameters of the built network, in millions, with what the published one holds beyond it."""
        return (sum(p.numel() for p in model.parameters()) + self.beyond(model)) / 1e6


def multiply_adds(model: nn.Module, imgsz: int) -> int:
    """Multiply-adds for one image at evaluation: convolutions and matrix products, the mixing of kernels among them.

    Norms and means are counted too, as DMF's figures seem to: they agree within 0.6 % then, and are 5 % larger
    than the products alone.

    Args:
        model: takes images ``[B, 3, H, W]``.
        imgsz: height and width in pixels.
    """
    model = copy.deepcopy(model).to("meta").eval()  # counting needs no storage
    with torch.no_grad(), MultiplyAdds(besides=True) as counter:
        model(torch.zeros(1, 3, imgsz, imgsz, device="meta"))
    return counter.total


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


def _odconv_mobilenet(width: float) -> nn.Module:
    return convert(_network("mobilenet_v2", width_mult=width), "ODConv", c.all_but_stem)


def _fmdconv(num_experts: int) -> nn.Module:
    """The count holds a bias for each expert, which ResNet's own convolutions do not have."""
    return convert(_network("resnet18"), "FMDConv", c.block_3x3, num_experts=num_experts, bias=True)


def _a2d2c(name: str, where: c.Where, width: float | None = None, **options: Any) -> nn.Module:
    network = _network(name, **({} if width is None else {"width_mult": width}))
    with torch.device("meta"):
        return convert(network, "A2D2C", where, **options)


def _fdconv(name: str, num_experts: int) -> nn.Module:
    return convert(_network(name), "FDConv", c.block_convolutions, num_experts=num_experts)


def _spectra(model: nn.Module) -> int:
    """A half spectrum ``kH C_out x (kW C_in / 2 + 1)``, complex, has ``2 kH C_out`` values more than its kernel."""
    return sum(2 * m.kernel_size[0] * m.out_channels for m in model.modules() if isinstance(m, FDConv))


def _kernelwarehouse(name: str, **options: Any) -> nn.Module:
    network = _network(name)
    return convert(network, "KWConv", c.sharing_blocks(network), **options)


def _kernelwarehouse_mobilenet(width: float, budget: int) -> nn.Module:
    network = _network("mobilenet_v2", width_mult=width)
    return convert(network, "KWConv", c.all_convolutions, share=c.stages(network, apart=budget > 1), budget=budget)


def _kernelwarehouse_mobilenet_half(width: float) -> nn.Module:
    """Depthwise convolutions and the stem are at 1x; of the pointwise ones those of the last stage, and the fc."""
    network = _network("mobilenet_v2", width_mult=width)
    share = c.stages(network, apart=True)

    def full(name: str, module: nn.Module) -> bool:
        return isinstance(module, nn.Conv2d) and (module.groups > 1 or name == "features.0.0")

    def half(name: str, module: nn.Module) -> bool:
        return isinstance(module, nn.Conv2d) and (share(name, module) or "").startswith("stage6")

    convert(network, "KWConv", full, share=share, reduction=32)
    convert(network, "KWConv", half, share=share, reduction=32, budget=0.5, cell_ratio=0.5)
    fc: dict[str, Any] = {"budget": 0.5, "cell_ratio": (1 / 40, 1.0)}
    return convert(network, "KWConv", lambda name, m: name == "classifier.1", reduction=32, **fc)


def _kernelwarehouse_convnext() -> nn.Module:
    """Stem and downsampling each have a warehouse, a stage's depthwise convolutions one, and its linear layers one."""

    def share(name: str, module: nn.Module) -> str | None:
        stage = name.split(".")[1]
        return f"{stage}, {type(module).__name__}" if ".block." in name else None

    return convert(_network("convnext_tiny"), "KWConv", lambda name, m: name.startswith("features"), share=share)


def _biases_of_trunks(model: nn.Module) -> int:
    """ConvNeXt's attentions have LayerNorm, of as many parameters, and a bias before it."""
    return sum(m.trunk.hidden for m in model.modules() if isinstance(m, KWConv))


def _ldconv(num_points: int) -> nn.Module:
    content = yaml.safe_load((bundled_folder("models_yaml") / "yolov8-ldconv.yaml").read_text(encoding="utf-8"))
    content |= {"scale": "n", "defaults": {"LDConv": {"num_points": num_points}}}
    return DetectionModel(content, verbose=False)


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
            partial(_odconv_mobilenet, width),
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
        Fingerprint(
            f"{name}, FDConv K={k}, as spectra", params, partial(_fdconv, network, k), decimals=6, beyond=_spectra
        )
        for name, network, k, params in (
            ("ResNet-18", "resnet18", 64, 12.258712),
            ("ResNet-18", "resnet18", 4, 12.239512),
            ("ResNet-50", "resnet50", 64, 29.204152),
            ("ResNet-50", "resnet50", 4, 29.114872),
        )
    ),
    *(
        Fingerprint(f"{name}, KernelWarehouse {times}", params, build, decimals=6)
        for name, times, params, build in (
            ("ResNet-18", "1/4x", 4.031768, partial(_kernelwarehouse, "resnet18", budget=0.25, cell_ratio=0.5)),
            ("ResNet-18", "1/2x", 7.431044, partial(_kernelwarehouse, "resnet18", budget=0.5, cell_ratio=0.5)),
            ("ResNet-18", "1x", 11.932148, partial(_kernelwarehouse, "resnet18")),
            ("ResNet-18", "2x", 23.242127, partial(_kernelwarehouse, "resnet18", budget=2)),
            ("ResNet-18", "4x", 45.862085, partial(_kernelwarehouse, "resnet18", budget=4)),
            (
                "ResNet-50",
                "1/2x",
                17.638264,
                partial(_kernelwarehouse, "resnet50", budget=0.5, cell_ratio=0.5, basis_ratio=1 / 16),
            ),
            ("ResNet-50", "1x", 28.052310, partial(_kernelwarehouse, "resnet50")),
            ("ResNet-50", "4x", 102.015144, partial(_kernelwarehouse, "resnet50", budget=4)),
            ("MobileNetV2 x0.5", "1/2x", 1.466888, partial(_kernelwarehouse_mobilenet_half, 0.5)),
            ("MobileNetV2 x0.5", "1x", 2.854522, partial(_kernelwarehouse_mobilenet, 0.5, 1)),
            ("MobileNetV2 x0.5", "4x", 4.648587, partial(_kernelwarehouse_mobilenet, 0.5, 4)),
            ("MobileNetV2 x1.0", "1/2x", 2.654396, partial(_kernelwarehouse_mobilenet_half, 1.0)),
            ("MobileNetV2 x1.0", "1x", 5.168146, partial(_kernelwarehouse_mobilenet, 1.0, 1)),
            ("MobileNetV2 x1.0", "4x", 11.379382, partial(_kernelwarehouse_mobilenet, 1.0, 4)),
        )
    ),
    Fingerprint(
        "ConvNeXt-T, KernelWarehouse 1x",
        39.370674,
        _kernelwarehouse_convnext,
        decimals=6,
        beyond=_biases_of_trunks,
    ),
    *(
        Fingerprint(f"YOLOv8n, LDConv N={n}", params, partial(_ldconv, n), decimals=6)
        for n, params in ((5, 2.940140), (6, 3.011928))
    ),
    *(
        Fingerprint(f"DMF-{size}", params, partial(_dmf, size), adds)
        for size, params, adds in (("S", 25.145, 499), ("XS", 19.806, 285), ("XXS", 15.075, 198))
    ),
    *(
        Fingerprint(
            f"ResNet-18, A2D2C K={k}, {evidence}",
            params,
            partial(_a2d2c, "resnet18", c.block_3x3, num_experts=k, evidence=evidence),
            decimals=2,
            note=note,
        )
        for evidence, note in (("input", ""), ("response", "the squeeze is of C_out: the paper's is of C_in"))
        for k, params in ((4, 44.93), (8, 88.87), (12, 132.82), (16, 176.76))
    ),
    *(
        Fingerprint(
            f"{name}, A2D2C K={k}",
            params,
            partial(_a2d2c, network, where, num_experts=k),
            decimals=2,
            note=f"{without} without any router; none that was tried gives {rest}",
        )
        for name, network, where, k, params, without, rest in (
            ("ResNet-50", "resnet50", c.block_convolutions, 4, 89.70, 87.587, "the rest"),
            ("ResNet-18 Initial", "resnet18", c.initial, 8, 44.78, 44.720, "both rests"),
            ("ResNet-50 Initial", "resnet50", c.initial, 8, 55.95, 55.863, "both rests"),
        )
    ),
    *(  # one of about 800 rules that were tried, so that two figures may agree by chance
        Fingerprint(
            f"MobileNetV2 x{width}, A2D2C K=4, {table}",
            params,
            partial(_a2d2c, "mobilenet_v2", c.all_but_stem, width, router="separate", bias=True),
            decimals=2,
            note=note,
        )
        for table, width, params, note in (
            ("Table 6", 0.5, 4.05, ""),
            ("Table 3", 1.0, 10.21, ""),
            ("Table 3", 0.5, 3.32, "Table 6 says 4.05 of the same network"),
            ("Table 3", 0.75, 5.08, "no rule gives it beside the others"),
        )
    ),
)


def fingerprints() -> Text:
    """Set the parameters of the papers' networks beside those of what is built here."""
    lines = [_line(fingerprint) for fingerprint in TQDM(FINGERPRINTS, desc="networks")]
    return Text("\n".join([f"{'network':<38}{'paper, M':>12}{'built, M':>12}", *lines]))


def _line(fingerprint: Fingerprint) -> str:
    model = fingerprint.build()
    params = fingerprint.count(model)
    digits = max(3, fingerprint.decimals)
    line = f"{fingerprint.name:<38}{fingerprint.params:>12.{fingerprint.decimals}f}{params:>12.{digits}f}  "
    line += "=" if round(params, fingerprint.decimals) == fingerprint.params else f"{params - fingerprint.params:+.3f}"
    line += f" ({fingerprint.note})" if fingerprint.note else ""
    if fingerprint.multiply_adds:
        counted = multiply_adds(model, 224) / 1e6
        line += f"   multiply-adds: {fingerprint.multiply_adds:g} M, {counted:.1f} M"
        line += f" ({100 * (counted / fingerprint.multiply_adds - 1):+.1f} %)"
    return line
