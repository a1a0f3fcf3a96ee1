"""A2D2C and A2D2C+ of "Adaptive Attention-Driven Dynamic Convolution", Sec. 3.2 to 3.4.

https://doi.org/10.1016/j.patcog.2026.113915

What a kernel's attention is drawn from, ``evidence``, the paper tells twice:
- "response", the default: the input is convolved with all base kernels first, and each kernel is judged by its own
  response at M sampled positions (Sec. 3.3 up to Eq. 7, Algorithms 1 and 2). Averaging commutes with convolution, so
  that A2D2C averages M patches of the input and applies each kernel once; A2D2C+ has the responses already;
- "input": each kernel samples the input itself ("Local sampling" in Sec. 3.3). All kernels then expect the same, and a
  router that they share tells them apart by the draw alone.

How the mean becomes a logit, ``router``:
- "squeeze", the default, follows from the counts. 44.93, 88.87, 132.82 and 176.76 M for ResNet-18 with K = 4, 8, 12, 16
  (Tables 9, 11) leave a map C -> C//4 + 1 without bias (DynamicConv's) and fewer than 144 other parameters in sixteen
  layers, so no vector that reads it out. Algorithms 1 and 2 put nothing but a mean between the sample and the softmax:
  we take ReLU as DynamicConv does, and the mean of the hidden units. Its weights are drawn such that a response of unit
  size gives logits of unit size; the mean would make them small otherwise. The counts have C = C_in, which is
  ``evidence="input"``; with responses it is C_out: 45.00, 88.94, 132.88, 176.82 M;
- "shared", the linear map of Sec. 3.3; its bias is the same for all kernels, cancels in the softmax and is left out;
- "separate", one such map for each kernel. The text does not have it, but with a bias in all kernels and all layers but
  the stem it gives the counts of MobileNetV2 x0.5 and x1.0, 4.05 and 10.21 M.

Other readings and deviations:
- in training the positions are drawn anew for each batch, at evaluation they are fixed, from a seed: the same input
  always gives the same output;
- evidence is taken before the BatchNorm that follows, from the guided kernel if SGDM guides it, fused or not;
- Table 12: "params-matched w/o LS" is ``sampling="none"``, the mean of the whole response with the same parameters.
  "FS" is ``sampling="fixed"``. "Random-LS" and "Uniform-LS" are said to lack "informative sampling" with the same
  router: our guess is ``evidence="input"`` with that sampling, where uniform needs a separate router. What does not
  follow: "w/o LS" with 43.21 M (ours has 44.65 M without any router), "FLOPs-matched w/o LS" with 43.74 M, FS with
  43.90 M, and the 43.93 M of Table 1. `yolo-dyn fingerprints` prints the other counts beside ours.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from yolo_dyn.layers.attention import check_anneal
from yolo_dyn.layers.experts import Attention, ExpertConv, Experts
from yolo_dyn.layers.functional import Size, guided
from yolo_dyn.layers.sampling import GRID, conv_size, mean_patches, mean_responses, patch_responses, scatter_points

ANNEAL = {"start": 30.0, "step": 2.9}  # Sec. 4.1: linearly to 1 over 10 epochs
SAMPLINGS = ("random", "fixed", "uniform", "none")
EVIDENCES = ("response", "input")
ROUTERS = ("squeeze", "shared", "separate")
WEIGHTINGS = ("none", "response")
_CHOICES = {"sampling": SAMPLINGS, "evidence": EVIDENCES, "router": ROUTERS, "weighting": WEIGHTINGS}


class A2D2C(ExpertConv):
    """Mix the expert kernels by a softmax over what they see at a few sampled positions.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``.
        num_experts: number of base kernels, K (Table 11).
        num_points: sampled positions for each kernel, M (Table 9).
        sampling: "random"; or one of the controls of Table 12: "fixed" (as at evaluation), "uniform" (a regular grid),
            "none" (the mean of the whole map).
        evidence: "response", each kernel's own, or "input", the same for all.
        router: "squeeze", "shared" or "separate", see above. Where all kernels see the same input at the same
            positions it must be separate.
        weighting: "none", or "response": weight the positions by the magnitude of the response there (Sec. 3.3,
            "optionally"). That takes K convolutions, whose results are then mixed whatever the form.
        anneal: schedule of the temperature, ``{start, step}`` a training epoch down to 1; None for 1 throughout.
        form: of the mixture, see `functional.mixture_conv`; the class's own by default.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.

    Examples:
        >>> layer = A2D2C(16, 32, kernel_size=3, stride=2, padding=1, num_points=50)
        >>> layer(torch.rand(2, 16, 20, 20)).shape
        torch.Size([2, 32, 10, 10])
    """

    form = "kernel"
    points: Tensor
    scale: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        num_experts: int = 4,
        num_points: int = 100,
        sampling: str = "random",
        evidence: str = "response",
        router: str = "squeeze",
        weighting: str = "none",
        anneal: dict[str, float] | None = ANNEAL,
        form: str | None = None,
    ) -> None:
        _check(num_points, sampling=sampling, evidence=evidence, router=router, weighting=weighting)
        geometry = (kernel_size, stride, padding, dilation, groups)
        super().__init__(Experts(in_channels, out_channels, *geometry, bias, num_experts, form or self.form))
        self.router = _router(router, out_channels if evidence == "response" else in_channels, num_experts)
        self.sampling, self.evidence, self.routing, self.weighting = sampling, evidence, router, weighting
        self.anneal, self.temperature = check_anneal(anneal), 1.0
        self.scale = None  # [1, C_out], of a BatchNorm that followed: folded into the kernels it would change evidence
        points = scatter_points(num_experts, num_points, regular=sampling == "uniform")
        self.register_buffer("points", points, persistent=False)  # [2, K, M], rows and columns

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in/groups, k, k]`` or for all K kernels, multiplies the kernels (SGDM Eq. 10)."""
        responses = self.experts.responses(x, guide) if self._responds else None
        attention = self.attend(x, guide, responses).experts
        if responses is not None:
            return self.experts.mix_responses(responses, attention, self.scale)  # (Eq. 8)
        return self.experts(x, attention, guide, self.scale)  # (Eq. 6, 7)

    def attend(self, x: Tensor, guide: Tensor | None = None, responses: Tensor | None = None) -> Attention:
        """Weights of the experts, which sum to one (Eq. 5)."""
        return Attention(torch.softmax(self.logits(x, guide, responses) / self.temperature, 1), filters=self.scale)

    def mixed(self, x: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return self.experts.mixed(self.attend(x, guide), guide)

    def weigh(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        return self.attend(x, guide).experts[:, None]

    @property
    def _responds(self) -> bool:
        """Whether the responses of all kernels are needed as a whole."""
        return self.evidence == "response" and "response" in (self.experts.form, self.weighting)

    def logits(self, x: Tensor, guide: Tensor | None = None, responses: Tensor | None = None) -> Tensor:
        """Route what each kernel sees at its positions, ``[B, K]``; `responses` are `Experts.responses`, if at hand."""
        if responses is None and self._responds:
            responses = self.experts.responses(x, guide)
        descriptors = self._descriptors(x, guide, responses)
        if self.routing == "separate":
            return (descriptors * self.router.weight).sum(2)
        hidden = self.router(descriptors)  # [B, K, C//4 + 1]; [B, K, 1] with a shared linear map
        return (torch.relu(hidden) if self.routing == "squeeze" else hidden).mean(2)

    def _descriptors(self, x: Tensor, guide: Tensor | None, responses: Tensor | None) -> Tensor:
        """The mean over each kernel's positions, ``[B, K, C_out]`` of responses, ``[B, K or 1, C_in]`` of the input."""
        e = self.experts
        if self.evidence == "input":
            return mean_patches(x, self.positions(x.shape[2], x.shape[3])).squeeze(3)
        geometry = (e.kernel_size, e.stride, e.padding, e.dilation)
        positions = self.positions(*conv_size(x, *geometry))
        if responses is not None:
            weighted = self.weighting == "response"
            return mean_responses(responses, positions, e.num_experts, e.groups, weighted)
        patches = mean_patches(x, positions, *geometry)
        return patch_responses(patches, guided(e.weight, guide), e.bias, e.num_experts, e.groups)

    def positions(self, height: int, width: int) -> tuple[Tensor, Tensor] | None:
        """Rows and columns of a map that are sampled, ``[K, M]`` each; None for the whole map (Eq. 3)."""
        if self.sampling == "none":
            return None
        points = torch.randint_like(self.points, GRID) if self.training and self.sampling == "random" else self.points
        return points[0] * height // GRID, points[1] * width // GRID

    def unnamed_options(self) -> dict[str, Any]:
        """The options of this layer that are not today's defaults, by their names in a YAML.

        A checkpoint from before `evidence` and "squeeze" keeps the layer that it was trained with, but the row of its
        YAML does not name them: what is built anew from that row needs them written into it.
        """
        found = {"evidence": (self.evidence, EVIDENCES[0]), "router": (self.routing, ROUTERS[0])}
        return {name: value for name, (value, default) in found.items() if value != default}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open a layer that was pickled before `evidence` was an option: it sampled the input."""
        super().__setstate__(state)
        if "evidence" not in state:
            self.evidence, self.weighting, self.scale = EVIDENCES[1], WEIGHTINGS[0], None
            self.routing = "shared" if self.router.out_features == 1 else "separate"

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Start as this static convolution: the attention sums to one.

        Raises:
            ValueError: if alike kernels would get alike evidence, attention and gradients, and so stay alike.
        """
        if self.sampling in ("none", "uniform") and self.routing != "separate":
            raise ValueError(f"router must be separate to start from static weights with sampling {self.sampling!r}")
        self.experts.start_from(weight, bias, spread=0.0)  # no parts would cancel: kernels differ in what they see

    @torch.no_grad()
    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold a guide and a following BatchNorm, both constant at evaluation; the evidence stays what it was."""
        if self.evidence == "input" or bn is None:
            return super().fuse(guide, bn)
        super().fuse(guide)
        scale = self.experts.fuse_shift(bn)[None]
        self.scale = nn.Parameter(scale if self.scale is None else scale * self.scale, requires_grad=False)


class A2D2CPlus(A2D2C):
    """A2D2C that mixes the responses of the base kernels instead of the kernels (Eq. 8): the same numbers.

    It convolves once for each base kernel, and samples these responses. The paper calls it the cheaper one. Here it
    takes two to four times as long as A2D2C on maps of 20x20 to 80x80 (`yolo-dyn bench layers`). Arguments,
    shapes and errors are those of `A2D2C`.

    Examples:
        >>> layer = A2D2CPlus(16, 32, kernel_size=3, stride=2, padding=1)
        >>> layer(torch.rand(2, 16, 20, 20)).shape
        torch.Size([2, 32, 10, 10])
    """

    form = "response"


def _check(num_points: int, **chosen: str) -> None:
    if num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}")
    for name, value in chosen.items():
        if value not in _CHOICES[name]:
            raise ValueError(f"{name} must be one of {', '.join(_CHOICES[name])}, got {value!r}")
    if chosen["evidence"] == "response":
        return
    if chosen["weighting"] == "response":
        raise ValueError("weighting must be none with evidence 'input': there is no response to weight by")
    if chosen["sampling"] in ("uniform", "none") and chosen["router"] != "separate":
        raise ValueError(
            f"router must be separate with evidence 'input' and sampling {chosen['sampling']!r}: all kernels see the"
            f" same positions of the same map, and the router {chosen['router']!r} would give all the same weight"
        )


def _router(kind: str, channels: int, num_experts: int) -> nn.Linear:
    """All routers are one linear map without bias; `A2D2C.logits` reads them."""
    if kind == "squeeze":
        router = nn.Linear(channels, channels // 4 + 1, bias=False)
        nn.init.normal_(router.weight, std=math.sqrt(2 * math.pi / channels))  # ReLU of N(0, 1) has mean 1/sqrt(2 pi)
        return router
    return nn.Linear(channels, 1 if kind == "shared" else num_experts, bias=False)
