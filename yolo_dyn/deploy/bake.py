"""Static convolutions in place of dynamic ones, for devices that take no computed weights.

Each dynamic convolution becomes an ``nn.Conv2d`` with the mean of the kernels that it used on images of a data set;
what it loses is measured on others.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolo_dyn import registry
from yolo_dyn.data.images import EvaluationSet, evaluation_set
from yolo_dyn.errors import YoloDynError
from yolo_dyn.explain.views import NoisyImages
from yolo_dyn.integration import image_channels
from yolo_dyn.integration.trained import opened, write_checkpoint
from yolo_dyn.layers import DMFBlock, DMFHead
from yolo_dyn.layers.baking import freeze, mean_kernels, mixing_layers
from yolo_dyn.output.arguments import FileName, ImageSize, OrDefault, Positive, Sigmas, checked
from yolo_dyn.output.files import check_folder, check_new
from yolo_dyn.output.outcome import Outcome
from yolo_dyn.robustness.models import check_model
from yolo_dyn.robustness.plan import chosen_conditions
from yolo_dyn.robustness.sweep import Sweep, robustness


@dataclass(frozen=True, repr=False)
class Baked(Outcome):
    """What was baked, what stays dynamic, and what it loses."""

    file: Path
    static: list[str]  # names of the layers that are static now
    kept: dict[str, str]  # of those with something that still varies, and what
    images: int
    sweep: Sweep

    def as_dict(self) -> dict[str, Any]:
        named = {"file": str(self.file), "static": self.static, "kept": self.kept, "images": self.images}
        return {**named, "sweep": self.sweep.as_dict()}

    def __str__(self) -> str:
        lines = [
            f"{self.file}: {len(self.static)} dynamic convolutions are static, at their mean over {self.images} images"
        ]
        lines += [f"  {name} {what}" for name, what in self.kept.items()]
        return "\n".join([*lines, "", str(self.sweep)])


@checked
def bake(
    model: FileName,
    data: str,
    out: str | None = None,
    images: Positive = 200,
    split: str = "train",
    sigma: Sigmas | None = None,
    imgsz: ImageSize = 640,
    batch: Positive = 16,
    seed: OrDefault = 0,
    workers: OrDefault = 0,
    device: str = "",
    exist_ok: bool = False,
    project: str = "runs/bake",
) -> Baked:
    """Make the dynamic convolutions of a detector static, at the mean of their kernels over a data set.

    Args:
        model: a trained ``.pt``.
        data: a data YAML.
        out: the checkpoint to write; ``<model>-baked.pt`` beside the model by default.
        images: how many images the mean is over, drawn from the split.
        split: that they are drawn from.
        sigma: strengths of Gaussian noise, in grey levels, at which both models are compared on the validation images;
            0 and 25 by default.
        imgsz: images are letterboxed to a square of so many pixels.
        batch: images that go through the network together.
        seed: of the draw.
        workers: processes that read and corrupt images.
        device: of the comparison, "cpu" or a GPU's number; the first GPU if there is one.
        exist_ok: replace a file that exists.
        project: folder for the comparison's results.

    Raises:
        YoloDynError: for a model without a dynamic convolution, a file that exists, or what `robustness` refuses.
    """
    file = Path(out or Path(model).with_name(f"{Path(model).stem}-baked.pt"))
    if file.suffix != ".pt":
        raise YoloDynError(f"out must name a .pt file, got {str(file)!r}")
    check_new(file, exist_ok)
    check_folder(file)
    found = evaluation_set(data, split, labelled=False, count=images, seed=seed)
    static, kept = write_baked(model, found, file, imgsz, batch, seed)
    strengths = [0.0, 25.0] if sigma is None else sigma
    compared = robustness(
        [model, str(file)],
        data,
        sigma=strengths,
        imgsz=imgsz,
        batch=batch,
        workers=workers,
        device=device,
        project=project,
    )
    return Baked(file, static, kept, len(found.files), compared)


def check_mixes(model: str) -> Any:
    """Open a checkpoint that can be baked.

    Raises:
        YoloDynError: if it has no convolution that mixes kernels.
    """
    source = opened(model)
    net: Any = source.model
    if not mixing_layers(net):
        kinds = {type(layer) for layer in registry.in_model(net)}
        ours = ", ".join(sorted(kind.__name__ for kind in kinds if registry.kind_of(kind))) or "none"
        raise YoloDynError(
            f"model {model!r} has no convolution that mixes kernels, to be baked; its layers of ours: {ours}"
        )
    return source


def write_baked(
    model: str, images: EvaluationSet, file: Path, imgsz: int, batch: int, seed: int = 0
) -> tuple[list[str], dict[str, str]]:
    """Write a checkpoint whose dynamic convolutions are static, at their mean over some images.

    Args:
        model: a trained ``.pt``.
        images: that the mean is over.
        file: to write.
        imgsz: images are letterboxed to a square of so many pixels.
        batch: images that go through the network together.
        seed: of what draws in the images' way.

    Returns:
        As of `make_static`.

    Raises:
        YoloDynError: for a model without a dynamic convolution, or of another number of channels.
    """
    source = check_mixes(model)
    check_model(model, images, imgsz)
    net = source.model.float().eval().fuse(verbose=False)
    clean = chosen_conditions([0.0], None, None)
    shown = NoisyImages(replace(images, channels=image_channels(net)), clean, seed, imgsz, batch)
    static, kept = make_static(net, shown.batches(clean, "mean kernels"))
    write_checkpoint(source, net, file)
    return static, kept


@torch.inference_mode()
def make_static(net: nn.Module, images: Iterator[Tensor]) -> tuple[list[str], dict[str, str]]:
    """Let each layer of a fused network that mixes kernels keep their mean over some images.

    Args:
        net: is changed.
        images: batches, ``[B, C, H, W]``.

    Returns:
        Names of those layers, and of those that keep something that varies, with what that is.
    """
    kept = {name: f"({kind}) stays dynamic" for name, kind in _others(net, mixing_layers(net)).items()}
    means = mean_kernels(net, images)
    for name, mean in means.items():
        kind = type(net.get_submodule(name)).__name__
        if not freeze(net, name, mean):
            kept[name] = f"({kind}) keeps what varies beside its kernel"
    rows = getattr(net, "model", net)
    if isinstance(rows, nn.Sequential) and hasattr(rows[-1], "f"):
        _skip_unread(rows)
    return list(means), kept


def _skip_unread(rows: Any) -> None:
    """Let the rows of an Ultralytics model do nothing that nothing reads any more: tokens that only kernels saw."""
    read = {len(rows) - 1}
    for index in range(len(rows) - 1, 0, -1):  # readers come after what they read
        row = rows[index]
        if index not in read:
            rows[index] = _idle(row)
            continue
        sources = row.f if isinstance(row.f, list) else [row.f]
        if isinstance(row, DMFBlock | DMFHead):
            row.token, sources = False, sources[:1]
        read.update(source % index for source in sources)  # -1 is the row before


def _idle(row: Any) -> nn.Module:
    """What stands in the place of a row that nothing reads, and passes the output of the row before on."""
    idle: Any = nn.Identity()
    idle.i, idle.f, idle.type, idle.np = row.i, -1, "torch.nn.modules.linear.Identity", 0
    return idle


def _others(net: nn.Module, layers: dict[str, Any]) -> dict[str, str]:
    """Names of the registered convolutions that mix no kernels, with their kinds."""
    convolutions = tuple(registry.all_layers("convolution").values())
    found = {name: type(module).__name__ for name, module in net.named_modules() if isinstance(module, convolutions)}
    return {name: kind for name, kind in found.items() if name not in layers}
