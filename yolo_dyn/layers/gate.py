"""A gate on a layer that keeps the shape of its input: it starts shut, and training opens it.

A layer put into a trained network at random destroys what the network has learnt. Behind a gate that starts at zero
it changes nothing at first, and the gate's gradient, ``sum(dL/dy * (layer(x) - x))``, opens it where that helps. The
idea is that of ReZero (https://arxiv.org/abs/2003.04887), with one factor a channel as LayerScale has them
(https://arxiv.org/abs/2103.17239). Here the layer does not stand on a residual branch, so the gate blends it with its
own input: open at 1, it is the layer alone.
"""

import torch
from torch import Tensor, nn

GATES = ("zero", "scalar")  # one a channel, or one for all of them


class Gated(nn.Module):
    """Blend a layer with its own input by a learnt gate that starts at zero.

    Args:
        layer: keeps the shape of its input.
        channels: C.
        gate: "zero" for a gate of each channel, "scalar" for one of all.

    Shape:
        ``[B, C, H, W]`` -> ``[B, C, H, W]``.

    Raises:
        ValueError: for another `gate`; in `forward`, if the layer changes the shape.

    Examples:
        >>> layer = Gated(nn.Conv2d(8, 8, 3, padding=1), 8)
        >>> x = torch.rand(2, 8, 20, 20)
        >>> torch.equal(layer(x), x)
        True
    """

    def __init__(self, layer: nn.Module, channels: int, gate: str = "zero") -> None:
        super().__init__()
        if gate not in GATES:
            raise ValueError(f"gate must be one of {', '.join(GATES)}, got {gate!r}")
        self.layer = layer
        self.gate = nn.Parameter(torch.zeros(channels if gate == "zero" else 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if y.shape != x.shape:
            raise ValueError(f"a gate needs a layer that keeps the shape, got {tuple(x.shape)} -> {tuple(y.shape)}")
        return x + self.gate.to(x.dtype)[:, None, None] * (y - x)

    @torch.no_grad()
    def fuse(self) -> None:
        """Leave out a layer whose gates are all shut; elsewhere its activation stands before the gate."""
        if not self.gate.any():
            self.layer = nn.Identity()

    def log_note(self) -> str:
        """What the table of a model's rows says beside the arguments."""
        return "gated by channel" if self.gate.numel() > 1 else "gated"
