"""`yolo-dyn points`: where the kernels of A2D2C sample an image, and what they get for it (A2D2C paper, Fig. 4)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolo_dyn.data.images import read_image, unlabelled
from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.explain.explained import SIZES, Network
from yolo_dyn.explain.views import centre_crop, letterboxed
from yolo_dyn.integration.api import load_model
from yolo_dyn.layers import A2D2C
from yolo_dyn.output.arguments import Names, OrDefault, checked
from yolo_dyn.output.files import check_folder
from yolo_dyn.output.outcome import Written
from yolo_dyn.output.style import VERMILLION, save, verbatim

PANEL = 2.2  # inches, width and height
WHOLE = (0, 1, 1, 0)  # every panel runs from 0 to 1, left to right and top to bottom


@checked
def points(
    model: str, source: str, layer: Names | None = None, imgsz: OrDefault = 0, out: str = "points.png"
) -> Written:
    """Draw the positions that each kernel of A2D2C samples at evaluation, over the image's feature maps.

    Args:
        model: checkpoint or YAML of a detection or classification model.
        source: an image; the first one of a folder or pattern.
        layer: names of the layers to draw, as `named_modules` gives them; all if nothing is given.
        imgsz: images are letterboxed to a square of so many pixels, for a classifier cut to it; 640, for a
            classifier 224, if it is 0.
        out: the picture to write.

    Returns:
        The picture; its text says what was drawn.

    Raises:
        YoloDynError: if the model has no such layer, or something does not fit.
    """
    check_folder(out)
    network = Network(model, load_model(model).eval())
    if network.net.task not in SIZES:
        raise YoloDynError(f"model {model!r} is a {network.net.task} model; it must be one of {', '.join(SIZES)}")
    layers = _layers(network, layer)
    pixels, file = _pixels(network, source, network.side(imgsz))
    draw(pixels[0].permute(1, 2, 0).numpy(), samplings(network.net, layers, pixels), Path(out))
    return Written((Path(out),), f"{file}: {len(layers)} of {model}'s layers drawn to {out}")


@dataclass(frozen=True)
class Sampling:
    """Where one layer samples an image, and what it makes of it."""

    layer: str
    features: np.ndarray  # [H', W'], mean of the responses of all kernels and channels
    places: np.ndarray  # [K, M, 2], x and y in 0..1; an M of 0 if the whole map is averaged
    attention: np.ndarray  # [K]


def _layers(network: Network, names: list[str] | None) -> dict[str, A2D2C]:
    layers = {name: module for name, module in network.net.named_modules() if isinstance(module, A2D2C)}
    if not layers:
        raise YoloDynError(f"model {network.label!r} has no A2D2C layer, whose points could be drawn")
    for name in names or []:
        if name not in layers:
            raise YoloDynError(
                f"layer={name} is no A2D2C layer of model {network.label!r}{nearest(name, layers)}"
                f" (layers: {', '.join(layers)})"
            )
    return {name: layers[name] for name in names or layers}


def _pixels(network: Network, source: str, side: int) -> tuple[Tensor, str]:
    """The first image of a source as the network sees it, ``[1, 3, S, S]`` in 0..1, and its name."""
    images = unlabelled(source, network.channels)
    file = images.files[0]
    image = read_image(file, images.channels)
    view = letterboxed(image, side) if network.detects else centre_crop(image, side)
    return view.pixels, file.name


@torch.no_grad()
def samplings(net: nn.Module, layers: dict[str, A2D2C], pixels: Tensor) -> list[Sampling]:
    """Run a network on an image, ``[1, C, S, S]``, and read what its layers sample."""
    inputs: dict[str, tuple[Tensor, Tensor | None]] = {}

    def keep(name: str) -> Any:
        return lambda module, args, kwargs: inputs.update({name: (args[0], kwargs.get("guide"))})

    hooks = [layer.register_forward_pre_hook(keep(name), with_kwargs=True) for name, layer in layers.items()]
    net(pixels)
    for hook in hooks:
        hook.remove()
    return [_sampling(name, layer, *inputs[name]) for name, layer in layers.items()]


def _sampling(name: str, layer: A2D2C, x: Tensor, guide: Tensor | None) -> Sampling:
    responses = layer.experts.responses(x, guide)
    height, width = (x if layer.evidence == "input" else responses).shape[2:]
    positions = layer.positions(height, width)
    places = torch.zeros(layer.experts.num_experts, 0, 2)
    if positions is not None:
        places = torch.stack([(positions[1] + 0.5) / width, (positions[0] + 0.5) / height], 2)
    attention = torch.softmax(layer.logits(x, guide) / layer.temperature, 1)[0]
    return Sampling(name, responses[0].mean(0).numpy(), places.numpy(), attention.numpy())


@verbatim
def draw(image: np.ndarray, rows: list[Sampling], path: Path) -> None:
    """Draw a row for each layer: the image, the feature map, and a panel with the points of each kernel.

    Args:
        image: as the network sees it, ``[S, S, C]``, values in 0..1.
        rows: of each layer.
        path: picture to write.
    """
    import matplotlib.pyplot as plt

    columns = 2 + max(len(row.attention) for row in rows)
    size = (PANEL * columns, (PANEL + 0.3) * len(rows))
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for row, (first, second, *others) in zip(rows, axes, strict=True):
        first.imshow(image.clip(0, 1), cmap="gray", extent=WHOLE)
        first.set_title(row.layer, fontsize=8)
        second.imshow(row.features, cmap="gray", extent=WHOLE)
        second.set_title(f"mean response, {row.features.shape[0]}x{row.features.shape[1]}", fontsize=8)
        for number, (axis, places, share) in enumerate(zip(others, row.places, row.attention, strict=False), 1):
            axis.imshow(row.features, cmap="gray", extent=WHOLE, alpha=0.5)
            axis.scatter(*places.T, s=6, color=VERMILLION, linewidths=0)
            axis.set_title(f"kernel {number}: {share:.3f}", fontsize=8)
    save(figure, path, "out")
