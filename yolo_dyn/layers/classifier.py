"""The classifier of torchvision's networks and of "Dynamic Mobile-Former" (Table 1), as the last row of a YAML.

https://arxiv.org/abs/2304.07254

Ultralytics' own `Classify` has one more convolution, to 1280 channels, which would change a network that is compared by
its count.
"""

from typing import Any

import torch
from torch import Tensor, nn

from yolo_dyn.layers.blocks import AsLinear


class Classifier(nn.Module):
    """Global pooling, one or two fully connected layers; a dynamic one in place of the last if it is asked for.

    Args:
        in_channels: of the map, C; or of the map and of tokens, ``[C, d]``, the first of which is joined to the pooled
            map.
        classes: their number, nc.
        hidden: width of a fully connected layer with hard-swish before the last (DMF's FC1); 0 for none.
        dropout: before the last layer; the training argument `dropout` sets it.
        dynamic: class of a dynamic convolution in place of the last layer, 1x1 on the pooled map (CondConv, DCD); in a
            YAML its name.
        **options: the dynamic layer's own.

    Shape:
        ``[B, C, H, W]``, or with tokens ``[B, M, d]``, -> logits ``[B, nc]`` in training; at evaluation
        ``(probabilities, logits)``, like Ultralytics' own; probabilities alone in an export, and where Ultralytics' own
        gives no more.

    Examples:
        >>> classifier = Classifier(16, 10).train()
        >>> classifier(torch.rand(2, 16, 7, 7)).shape
        torch.Size([2, 10])
    """

    export = False  # set by Ultralytics' exporter
    gives_logits = True  # unset for an Ultralytics that takes probabilities alone

    def __init__(
        self,
        in_channels: int | list[int],
        classes: int,
        hidden: int = 0,
        *,
        dropout: float = 0.0,
        dynamic: type[nn.Module] = nn.Linear,
        **options: Any,
    ) -> None:
        super().__init__()
        width = in_channels if isinstance(in_channels, int) else sum(in_channels)
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.Hardswish()) if hidden else nn.Identity()
        self.drop = nn.Dropout(dropout)
        if issubclass(dynamic, nn.Linear):
            self.linear: nn.Module = dynamic(hidden or width, classes)
        else:
            self.linear = AsLinear(dynamic(hidden or width, classes, 1, **options))

    @staticmethod
    def out_channels(in_channels: int | list[int], args: list[int]) -> int:
        return args[0]

    def forward(self, x: Tensor | list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        y, *tokens = [x] if isinstance(x, Tensor) else x
        pooled = y.mean((2, 3))  # [B, C]
        if tokens:
            pooled = torch.cat([pooled, tokens[0][:, 0]], 1)
        logits = self.linear(self.drop(self.hidden(pooled)))
        if self.training:
            return logits
        probabilities = logits.softmax(1)
        return (probabilities, logits) if self.gives_logits and not self.export else probabilities
