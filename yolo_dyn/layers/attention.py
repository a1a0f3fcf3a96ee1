"""What the layers ask of their input before they mix: small networks on the globally pooled input ``[B, C]``."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_dyn.layers.functional import fold_batchnorm


class KernelAttention(nn.Module):
    """Score the expert kernels by two fully connected layers.

    There is no normalisation on the pooled 1x1 map, so training works at batch 1.

    Args:
        in_channels: channels of the input.
        num_experts: number of expert kernels, K.
        hidden: hidden width.
        activation: class of the module between the two layers. With a hidden width of four, a ReLU could start with all
            units dead.
        bias: whether the first layer has one.

    Shape:
        pooled input ``[B, C]`` -> logits ``[B, K]``; the layer chooses sigmoid or softmax.
    """

    def __init__(
        self,
        in_channels: int,
        num_experts: int,
        hidden: int,
        activation: type[nn.Module] = nn.ReLU,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.squeeze = nn.Linear(in_channels, hidden, bias)
        self.expand = nn.Linear(hidden, num_experts)
        self.activation = activation()

    def forward(self, pooled: Tensor) -> Tensor:
        return self.expand(self.activation(self.squeeze(pooled)))


class PooledNorm(nn.BatchNorm1d):
    """BatchNorm of a pooled vector ``[B, C]`` that also trains at batch 1, where it uses the running statistics.

    Attributes:
        frozen: use the running statistics, and leave them, in every batch.
    """

    frozen = False

    def forward(self, x: Tensor) -> Tensor:
        if self.training and (self.frozen or x.shape[0] == 1):
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


class Trunk(nn.Module):
    """What several attentions share: a fully connected layer without bias, its norm and a ReLU.

    Args:
        in_channels: channels of the input.
        hidden: hidden width, see `trunk_width`.

    Shape:
        pooled input ``[B, C]`` -> ``[B, hidden]``.
    """

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.squeeze = nn.Linear(in_channels, hidden, bias=False)
        self.norm: PooledNorm | None = PooledNorm(hidden)

    def forward(self, pooled: Tensor) -> Tensor:
        y = self.squeeze(pooled)
        return F.relu(y if self.norm is None else self.norm(y))

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the norm into the fully connected layer, once."""
        if self.norm is not None:
            self.squeeze.weight, self.squeeze.bias = fold_batchnorm(self.squeeze.weight, self.norm)
            self.norm = None


def trunk_width(in_channels: int, reduction: int) -> int:
    """The hidden width of a trunk, which has a floor where the channels are few."""
    if reduction < 1:
        raise ValueError(f"reduction must be at least 1, got {reduction}")
    return max(in_channels // reduction, 16)


def gate(layer: nn.Module | None, x: Tensor) -> Tensor | None:
    """The sigmoid of what a layer makes of `x`; None without the layer."""
    return None if layer is None else torch.sigmoid(layer(x))


@torch.no_grad()
def start_even(*heads: nn.Linear | None) -> int:
    """Zero the logits of attentions, which then weigh all alike; return how many of them there are."""
    used = [head for head in heads if head is not None]
    for head in used:
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    return len(used)


def start_at_a_half(*heads: nn.Linear | None) -> float:
    """Zero the logits of sigmoid attentions; return the gain that makes up for those that there are."""
    return 2.0 ** start_even(*heads)


def check_anneal(anneal: dict[str, float] | None) -> dict[str, float] | None:
    """A temperature schedule ``{start, step}``: from `start` down by `step` an epoch until 1; None for 1 throughout.

    Raises:
        ValueError: for other keys, or a schedule that never ends at 1.
    """
    if anneal is None:
        return None
    if not isinstance(anneal, dict) or set(anneal) != {"start", "step"}:
        raise ValueError(f"anneal must have the keys start and step, got {anneal!r}")
    if not anneal["start"] >= 1 or not anneal["step"] > 0:
        raise ValueError(f"anneal must come down to 1: start at least 1 and step above 0, got {anneal!r}")
    return dict(anneal)


def check_decay(anneal: dict[str, float] | None) -> dict[str, float] | None:
    """A schedule ``{epochs}`` of a share that falls from 1 to 0 in this many epochs; None for 0 throughout.

    Raises:
        ValueError: for other keys, or no epochs.
    """
    if anneal is None:
        return None
    if not isinstance(anneal, dict) or set(anneal) != {"epochs"}:
        raise ValueError(f"anneal must have the key epochs, got {anneal!r}")
    if not anneal["epochs"] > 0:
        raise ValueError(f"anneal must have epochs above 0, got {anneal!r}")
    return dict(anneal)
