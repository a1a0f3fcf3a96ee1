"""Grad-CAM++ of one Ultralytics network: which places of an image speak for what the network found in it.

The method is Chattopadhay et al. 2018 (arXiv 1710.11063), computed by the library `grad-cam`. For a score S and the
channels A of a map, with g = dS/dA at each position, a channel weighs (Eq. 19, for the score exp(S))

    w = sum over positions of alpha * relu(g),  alpha = g^2 / (2 g^2 + (sum over positions of A) * g^3)

and the heat is relu(sum over channels of w * A), resized to the network's input and scaled to 0..1. Of several maps
each is scaled by itself and the mean is scaled again, so a level with one detection counts as much as one with twenty.

What the paper does not say about detectors, and how it was decided:

- S is the sum of the class logits of the detections that are shown, those that non-maximum suppression keeps. Logits,
  since the formula holds for the score before the last non-linearity, and since a sigmoid's gradient would silence the
  detections the network is surest of. Boxes are left out: where an edge lies is no evidence that can be more or less.
- By default the maps are those that the head reads, P3, P4 and P5 of a detector, and the gradient is what comes from
  the head alone. A row that the neck also reads on, like P3 of YOLOv8, would get the gradients of the other levels too,
  a layer that stands right before the head would not, and the two could not be compared.
- Eq. 19 was made for maps after a ReLU, whose sums are never negative. SiLU's may be, and where sum * g comes near -2
  the denominator vanishes: one channel outweighs all others, with either sign. Trained detectors come there under
  noise, and the map then shows everything but what was found. So the sum in the denominator is that of relu(A), which
  for maps after a ReLU is the published formula.
- The library adds 1e-6 to the denominator. Deep maps have gradients of that order, so they are divided by the largest
  one and the map is multiplied by it, which leaves alpha as it is and the heat up to its scale.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from yolo_dyn.errors import YoloDynError, needed
from yolo_dyn.explain.explained import Network, Selection, score_of


@dataclass(frozen=True)
class Heat:
    """A map of the network's square and what it explains."""

    square: np.ndarray  # [S, S], 0..1
    boxes: np.ndarray  # [n, 4], left, top, right, bottom in pixels of the square; [0, 4] of a classifier
    scores: np.ndarray  # [n]
    classes: np.ndarray  # [n]


def heat(
    network: Network, pixels: torch.Tensor, selection: Selection | None = None, layer: list[int] | None = None
) -> Heat:
    """Explain what a network finds in an image.

    Args:
        network: it is not changed.
        pixels: ``[1, C, S, S]`` in 0..1.
        selection: which predictions to explain.
        layer: numbers of the rows whose maps are taken; those that the head reads if there are none.

    Returns:
        The map, zero everywhere where nothing is found.

    Raises:
        YoloDynError: if a row gives no map, one of a single position or none that the scores depend on, or the
            library is missing.
    """
    scores = score_of(network, selection or Selection())
    with traced_maps(network, layer or []) as maps:
        cam = _grad_cam_plus_plus(scores, maps, f"layer={','.join(map(str, layer or []))}, model {network.label!r}")
        try:
            square = cam(pixels, [lambda score: score])[0]
            if all(activation[0, 0].numel() == 1 for activation in cam.activations_and_grads.activations):
                raise YoloDynError(
                    f"model {network.label!r} at imgsz={pixels.shape[-1]}: the map has a single position, so no place"
                    " of the image is hotter than another (accepted: a larger imgsz=, or layer= of an earlier row)"
                )
        finally:
            cam.activations_and_grads.release()
    return Heat(square, *scores.prediction)


def _grad_cam_plus_plus(scores: nn.Module, maps: list[nn.Module], what: str) -> Any:
    """The library's method, for maps that may be negative and gradients that may be small."""
    method: Any = needed("pytorch_grad_cam", "Grad-CAM++", "'yolo-dyn[cam]'").GradCAMPlusPlus

    class Rectified(method):
        def get_cam_weights(
            self, pixels: Any, layers: Any, targets: Any, activations: np.ndarray, gradients: np.ndarray
        ) -> np.ndarray:
            if len(self.activations_and_grads.gradients) < len(maps):  # the library would mix up maps and gradients
                raise YoloDynError(f"{what}: the scores do not depend on every one of these rows")
            largest = np.abs(gradients).max() or 1
            rectified = np.maximum(activations, 0)
            return super().get_cam_weights(pixels, layers, targets, largest * rectified, gradients / largest)

    return Rectified(scores, maps)


@contextmanager
def traced_maps(network: Network, layer: list[int]) -> Iterator[list[nn.Module]]:
    """Modules that give the maps, with gradients, as long as this lasts: the rows, or what is put before the head."""
    head = network.rows[-1]
    if layer:
        maps: list[nn.Module] = [network.rows[number] for number in layer]
        hooks = [row.register_forward_hook(_tracer(network.label, i)) for i, row in zip(layer, maps, strict=True)]
    else:
        count = len(head.f) if network.detects and isinstance(head.f, list) else 1  # a classifier's tokens are no map
        maps = [nn.Identity() for _ in range(count)]
        hooks = [head.register_forward_pre_hook(_before_head(maps))]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def _tracer(label: str, number: int) -> Callable[..., torch.Tensor]:
    def trace(row: nn.Module, inputs: Any, output: Any) -> torch.Tensor:
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            raise YoloDynError(f"layer={number}: row {number} of model {label!r}, {type(row).__name__}, gives no map")
        return _with_gradient(output)

    return trace


def _before_head(maps: list[nn.Module]) -> Callable[..., tuple[Any, ...]]:
    def trace(head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        read, *rest = inputs
        levels = list(read) if isinstance(read, (list, tuple)) else [read]
        traced = [identity(_with_gradient(level)) for identity, level in zip(maps, levels, strict=False)]
        traced += levels[len(maps) :]
        return (traced if isinstance(read, (list, tuple)) else traced[0], *rest)

    return trace


def _with_gradient(x: torch.Tensor) -> torch.Tensor:
    """The same values as a new tensor of the graph, which begins here if it has not begun: backward stops here."""
    return (x if x.requires_grad else x.detach().requires_grad_()).clone()
