"""What is dynamic about the layers that mix kernels, measured: how experts are used, and what noise moves.

Images go through a fused network twice: clean, for the means of attentions and kernels, then clean beside noisy. All
measures are of the layer's own input ``x``, what its kernels convolve (`layers.protocol.Reads`), or ``x + n`` for the
noisy image. With the layer's weights of its experts a, its kernel W, and mean kernel M over the clean images:

- share of an expert in an image, ``p_k = |a_k| / sum_j |a_j|``: the attention itself where it is a softmax;
- entropy, ``-sum_k p_k log p_k / log K``, the mean over images (and mixtures): 0 for one expert alone, 1 for all alike.
  Evenness is the entropy of the mean of p over images. What it is above the entropy is what images differ by: for a
  softmax, the mutual information of image and expert over log K;
- an expert is dead if in no image (and mixture) its share reaches a tenth of an even one, ``p_k < 1 / (10 K)``, or if
  its kernel is zero;
- variation of the attention, ``sqrt(E|a - Ea|^2 / |Ea|^2)``, and of the kernel, ``sqrt(E|W - M|^2 / |M|^2)``: 0 for a
  layer that does the same for all images;
- similarity of the experts, the cosine of each two kernels;
- how far noise moves v, one of x, a, W and the response ``y = W(x) * x``, without the bias:
  ``sum |v(x + n) - v(x)|^2 / sum |v(x)|^2`` over images. The static convolution beside it is ``M * x`` for both inputs;
- noise gain, what y moves over what x moves: ``(|dy|^2 / |y|^2) / (|n|^2 / |x|^2)``. Below 1 the layer damps noise.
"""

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_dyn.explain.views import NoisyImages
from yolo_dyn.layers.baking import Mean, MeanKernel, show
from yolo_dyn.layers.functional import conv_per_sample
from yolo_dyn.layers.protocol import MixesKernels, Reads, WeighsExperts
from yolo_dyn.robustness.records import Condition, Estimate
from yolo_dyn.robustness.scores import draw_images

DEAD = 0.1  # of an even share
SHOWN = 16  # experts, up to which the cosine of each two is kept
MOVED = ("input", "attention", "kernel", "output", "static")


@dataclass(frozen=True)
class Usage:
    """How a layer uses its K experts."""

    weights: list[float]  # of each expert, the mean of |a| over images and mixtures
    spread: list[float]  # standard deviation of a between images, in the quadratic mean over mixtures
    sums_to_one: bool  # whether a is a softmax
    mixtures: int
    entropy: float | None  # None for a single expert, as all that takes two
    evenness: float | None
    variation: float | None  # None if all weights are 0
    dead: list[int]  # numbers of experts, from 0
    cosine: float | None  # mean over pairs of kernels; None if fewer than two are above zero
    largest_cosine: float | None
    cosines: list[list[float | None]]  # of each two; empty for more than SHOWN experts


@dataclass(frozen=True)
class Movement:
    """How far noise of one strength moves what a layer computes: energy of the change over that of the clean images.

    None where the clean images have no energy.
    """

    sigma: float  # grey levels
    input: float | None
    attention: float | None  # None for a layer without experts
    kernel: float | None
    output: float | None
    static: float | None  # of the output of the static convolution
    interval: tuple[float, float] | None  # of the ratio, 95 % by a bootstrap over images

    @property
    def gain(self) -> float | None:
        """The layer's noise gain."""
        return over(self.output, self.input)

    @property
    def static_gain(self) -> float | None:
        """That of the static convolution."""
        return over(self.static, self.input)

    @property
    def ratio(self) -> float | None:
        """The one to the other: above 1 being dynamic lets more noise through."""
        return over(self.output, self.static)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "gain": self.gain, "static_gain": self.static_gain, "ratio": self.ratio}


@dataclass(frozen=True)
class Dynamics:
    """One layer that mixes kernels."""

    name: str
    kind: str
    usage: Usage | None  # None for a layer without experts
    variation: float | None  # of the kernel
    noise: list[Movement]  # one a strength
    unguided: list[Movement]  # of the same layer on the same inputs, the guide of its SGDM switched off; empty without

    def as_dict(self) -> dict[str, Any]:
        moved = {key: [each.as_dict() for each in getattr(self, key)] for key in ("noise", "unguided")}
        usage = self.usage and asdict(self.usage)
        return {"name": self.name, "kind": self.kind, "usage": usage, "variation": self.variation, **moved}


@dataclass(frozen=True)
class Worth:
    """What AP changes by when kernels no longer depend on the image."""

    layer: str  # whose kernel is frozen at its mean
    condition: Condition  # of the images; mPC for the mean over the noisy ones
    less: Estimate  # AP of the frozen model less that of the model

    def as_dict(self) -> dict[str, Any]:
        return {"layer": self.layer, **asdict(self.condition), "AP_less": asdict(self.less)}


def over(value: float | None, other: float | None) -> float | None:
    """The quotient; None if it is not defined."""
    quotient = None if value is None or not other else value / other
    return quotient if quotient is None or math.isfinite(quotient) else None


def measurable(layers: dict[str, Any]) -> dict[str, Any]:
    """The layers whose response can be told from what they are given."""
    return {name: layer for name, layer in layers.items() if isinstance(layer, MixesKernels | Reads)}


@torch.inference_mode()
def measure(
    net: nn.Module, layers: dict[str, Any], unguided: dict[str, Any], shown: NoisyImages
) -> tuple[list[Dynamics], dict[str, MeanKernel]]:
    """Measure layers of a fused network.

    Args:
        net: the network.
        layers: those to measure, `measurable` ones, by name.
        unguided: of those that an SGDM guides, the same without the guide; not part of the network.
        shown: what goes through the network.

    Returns:
        What is dynamic about each layer that images reach, and its mean kernel.
    """
    probes = {name: Probe(layer) for name, layer in layers.items()}
    others = {name: Probe(layer) for name, layer in unguided.items()}
    runs = ((shown.conditions[:1], "means", Probe.see), (shown.conditions, "noise", Probe.see_noise))
    for conditions, what, step in runs:

        def see(name: str, layer: Any, args: Any, kwargs: Any, step: Any = step) -> None:
            for each in (probes, others):
                if name in each:
                    step(each[name], len(shown.conditions), *args, **kwargs)

        show(net, shown.batches(conditions, what), layers, see)
    strengths = [float(condition.sigma or 0) for condition in shown.conditions[1:]]
    reached = {name: probe for name, probe in probes.items() if probe.kernel.kernels.count}
    found = [
        Dynamics(
            name,
            type(probe.layer).__name__,
            probe.usage(),
            probe.variation(),
            probe.movements(strengths),
            others[name].movements(strengths) if name in others else [],
        )
        for name, probe in reached.items()
    ]
    return found, {name: probe.kernel for name, probe in reached.items()}


class Probe:
    """What is gathered of one layer: means over the clean images first, then energies, image by image."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.weighs = layer, isinstance(layer, WeighsExperts)
        self.kernel = MeanKernel()
        self.weights, self.absolute, self.shares = Mean(), Mean(), Mean()  # [m, K] each
        self.squares = Mean()  # of weights less their mean
        self.entropies = Mean()  # [m]
        self.most = torch.zeros(())  # [K], the largest share in any image and mixture
        self.apart: list[Tensor] = []  # |W - M|^2 of each clean image
        self.energies: dict[str, list[Tensor]] = defaultdict(list)  # of MOVED, [B, 1 + strengths], see `moved`

    def see(self, conditions: int, *args: Any, **kwargs: Any) -> None:
        """Add what the layer is given for a batch of clean images to its means."""
        self.kernel.add(*self.layer.mixed(*args, **kwargs))
        if not self.weighs:
            return
        weights = self.layer.weigh(*args, **kwargs)  # [B, m, K]
        shares = F.normalize(weights.abs(), p=1, dim=2)
        self.weights.add(weights)
        self.absolute.add(weights.abs())
        self.shares.add(shares)
        self.entropies.add(entropy(shares))
        self.most = torch.maximum(self.most, shares.amax((0, 1)).cpu().double())

    def see_noise(self, conditions: int, *args: Any, **kwargs: Any) -> None:
        """Add the energies of a batch, ``[images * conditions, C, H, W]``, of which the clean ones are the first."""
        mean, _ = self.kernel.means()
        kernel, _ = self.layer.mixed(*args, **kwargs)
        x, geometry = self.layer.read(args[0]) if isinstance(self.layer, Reads) else (args[0], self.layer.geometry)
        seen = {
            "input": x,
            "kernel": kernel,
            "output": conv_per_sample(x, kernel, None, *geometry),
            "static": F.conv2d(x, mean, None, *geometry),
        }
        if self.weighs:
            seen["attention"] = weights = self.layer.weigh(*args, **kwargs)
            self.squares.add((weights[::conditions] - self.weights.like(weights)).square())
        for name, values in seen.items():
            self.energies[name].append(moved(values, conditions))
        self.apart.append(energy(kernel[::conditions] - mean))

    def variation(self) -> float | None:
        """Of the kernel."""
        mean, _ = self.kernel.means()
        relative = over(torch.cat(self.apart).mean().item(), energy(mean[None]).item())
        return None if relative is None else math.sqrt(relative)

    def usage(self) -> Usage | None:
        """How the experts are used; None if the layer has none."""
        if not self.weighs:
            return None
        mean, shares, squares = self.weights.value, self.shares.value, self.squares.value
        count = mean.shape[1]
        relative = over(squares.sum().item(), mean.square().sum().item())
        cosines = cosine_of_each_two(self.layer.expert_kernels())
        pairs = cosines[torch.ones_like(cosines).triu(1).bool()]
        pairs = pairs[~pairs.isnan()]
        dead = (self.most < DEAD / count) | cosines.diagonal().isnan()
        return Usage(
            weights=self.absolute.value.mean(0).tolist(),
            spread=squares.mean(0).sqrt().tolist(),
            sums_to_one=self.layer.sums_to_one,
            mixtures=mean.shape[0],
            entropy=self.entropies.value.mean().item() if count > 1 else None,
            evenness=entropy(shares).mean().item() if count > 1 else None,
            variation=None if relative is None else math.sqrt(relative),
            dead=dead.nonzero().flatten().tolist(),
            cosine=pairs.mean().item() if len(pairs) else None,
            largest_cosine=pairs.max().item() if len(pairs) else None,
            cosines=[[None if math.isnan(c) else c for c in row] for row in cosines.tolist()] if count <= SHOWN else [],
        )

    def movements(self, strengths: list[float]) -> list[Movement]:
        """What noise of each strength moves."""
        rows = {
            name: torch.cat(energies).numpy() for name, energies in self.energies.items()
        }  # [images, 1 + strengths]
        totals = {name: each.sum(0) for name, each in rows.items()}
        found = []
        for at, sigma in enumerate(strengths, 1):
            shares = {name: over(float(total[at]), float(total[0])) for name, total in totals.items()}
            interval = ratio_interval(rows["output"][:, [0, at]], rows["static"][:, [0, at]])
            found.append(Movement(sigma, **{name: shares.get(name) for name in MOVED}, interval=interval))
        return found


def entropy(shares: Tensor) -> Tensor:
    """Of shares ``[..., K]``, between 0 and 1; 0 for a single one."""
    return torch.special.entr(shares).sum(-1) / max(math.log(shares.shape[-1]), 1e-9)


def energy(values: Tensor) -> Tensor:
    """The sum of squares of each sample, ``[B, ...]`` -> ``[B]``, in double precision on the CPU."""
    return values.square().flatten(1).sum(1).cpu().double()


def moved(values: Tensor, conditions: int) -> Tensor:
    """Energy of clean samples and of what other conditions change: ``[B * conditions, ...]`` -> ``[B, conditions]``."""
    clean, *noisy = values.unflatten(0, (-1, conditions)).unbind(1)
    return torch.stack([energy(clean), *(energy(each - clean) for each in noisy)], 1)


def cosine_of_each_two(kernels: Tensor) -> Tensor:
    """``[K, ...]`` -> ``[K, K]``, NaN where a kernel is zero."""
    flat = kernels.flatten(1)
    products = (flat @ flat.T).cpu().double()
    lengths = products.diagonal().sqrt()
    return (products / (lengths[:, None] * lengths)).clamp(-1, 1)


def ratio_interval(output: np.ndarray, static: np.ndarray) -> tuple[float, float] | None:
    """95 % of bootstrap samples of the images have their ratio of gains within.

    Args:
        output: energies of the clean response and of its change, ``[images, 2]``.
        static: those of the static convolution.

    Returns:
        The ends; None for a single image, or if the ratio is not defined in a sample.
    """
    if len(output) < 2:
        return None
    drawn = draw_images(len(output))  # [R, images]
    sums = np.concatenate([drawn @ output, drawn @ static], 1)
    if not (sums[:, [0, 2, 3]] > 0).all():
        return None
    low, high = np.quantile(sums[:, 1] / sums[:, 0] / (sums[:, 3] / sums[:, 2]), [0.025, 0.975])
    return float(low), float(high)
