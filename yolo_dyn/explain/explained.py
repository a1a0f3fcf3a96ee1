"""A checkpoint that can be explained, and the score of it that is explained."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from ultralytics.utils import nms

from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.integration import image_channels
from yolo_dyn.integration.api import detection_heads, load_model
from yolo_dyn.robustness.evaluate import Settings

SIZES = {"detect": 640, "classify": 224}  # of the square, by task, where none is asked for


@dataclass(frozen=True)
class Wanted:
    """What is explained: detections by their least score and greatest number, or all of one class."""

    conf: float = 0.25
    max_det: int = Settings.max_det
    target: str = ""  # class name; every class of a detector, the predicted one of a classifier, where it is empty


@dataclass(frozen=True)
class Network:
    """A checkpoint that can be explained."""

    label: str
    net: nn.Module

    @classmethod
    def load(cls, label: str, file: str, device: str = "cpu") -> "Network":
        """Open a checkpoint; its file is not changed.

        Raises:
            YoloDynError: where it is missing, is no checkpoint, or ends in a head other than Detect's or Classify's.
        """
        if not file.endswith(".pt"):
            raise YoloDynError(f"model {file!r} must be a checkpoint (.pt): an exported model has no gradients")
        try:
            net = load_model(file)
        except YoloDynError:
            raise
        except Exception as error:  # as many kinds as there are ways to break a file
            raise YoloDynError(f"model {file!r} cannot be loaded: {error}") from error
        head = type(net.model[-1]).__name__  # type: ignore[index]
        accepted = (*detection_heads(), "Classify", "Classifier")
        if net.task not in SIZES or head not in accepted:
            raise YoloDynError(f"model {file!r} is a {net.task} model ending in {head}; it must be Detect or Classify")
        return cls(label, net.eval().requires_grad_(False).to(device))

    @property
    def rows(self) -> nn.Sequential:
        """The rows of its YAML, the head last."""
        return self.net.model  # type: ignore[return-value]

    @property
    def detects(self) -> bool:
        """Whether it is a detector; else it is a classifier."""
        return self.net.task == "detect"

    @property
    def names(self) -> dict[int, str]:
        """Classes."""
        return self.net.names  # type: ignore[return-value]

    @property
    def channels(self) -> int:
        """Of the images it takes."""
        return image_channels(self.net)

    def side(self, imgsz: int) -> int:
        """Side of the square that it is given: `imgsz`, or where that is 0, Ultralytics' for its task.

        Raises:
            YoloDynError: where the network cannot take such a square.
        """
        side, stride = imgsz or SIZES[self.net.task], int(max(self.net.stride)) if self.detects else 1  # type: ignore
        if side < 1 or side % stride:
            raise YoloDynError(f"imgsz must be a multiple of {stride} for model {self.label!r}, got {imgsz}")
        return side

    def number(self, target: str) -> int | None:
        """The class of that name; None for an empty name.

        Raises:
            YoloDynError: where there is none.
        """
        numbers = {name: number for number, name in self.names.items()}
        if target and target not in numbers:
            raise YoloDynError(f"model {self.label!r} has no class {target!r}{nearest(target, numbers)}")
        return numbers.get(target)

    def check_rows(self, layer: list[int]) -> None:
        """Raise a YoloDynError where there is no row of such a number."""
        for number in layer:
            if not 0 <= number < len(self.rows):
                raise YoloDynError(f"layer={number}: model {self.label!r} has rows 0 to {len(self.rows) - 1}")


class Score(nn.Module):
    """A network that returns the one number to explain, ``[1]``, and keeps what it found."""

    def __init__(self, network: Network, wanted: Wanted) -> None:
        super().__init__()
        self.network, self.net, self.wanted = network, network.net, wanted
        self.chosen = network.number(wanted.target)
        self.found: tuple[np.ndarray, np.ndarray, np.ndarray]


class ClassScore(Score):
    """The logit of the predicted class, or of the one wanted."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares, logits = self.net(x)
        number = int(logits.argmax()) if self.chosen is None else self.chosen
        self.found = np.zeros((0, 4)), shares.detach()[0, [number]].cpu().numpy(), np.array([number])
        return logits[:, number]


class DetectionScore(Score):
    """The sum of the class logits of the detections that are kept."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        predicted = self.net(x)[0]
        if getattr(self.network.rows[-1], "end2end", False):
            rows, scores = self._chosen(predicted[0])
        else:
            rows, scores = self._suppressed(predicted)
        boxes, certain, classes = (part.cpu().numpy() for part in (rows[:, :4], rows[:, 4], rows[:, 5].long()))
        self.found = boxes, certain, classes
        if not len(scores):
            return 0 * predicted.sum()[None]  # no heat
        return torch.logit(scores, eps=1e-7).sum()[None]  # a score that was rounded to 1 has no finite logit

    def _chosen(self, predicted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Detections of a head that suppresses by itself, from ``[n, 6]`` with the best first, and their scores."""
        kept = predicted[:, 4] > self.wanted.conf
        if self.chosen is not None:
            kept &= predicted[:, 5] == self.chosen
        rows = predicted[kept][: self.wanted.max_det]
        return rows.detach(), rows[:, 4]

    def _suppressed(self, predicted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Detections after non-maximum suppression, from ``[1, 4 + classes, n]``, and their scores."""
        rows, kept = nms.non_max_suppression(
            predicted.detach(),
            self.wanted.conf,
            Settings.iou,
            classes=None if self.chosen is None else [self.chosen],
            multi_label=True,
            max_det=self.wanted.max_det,
            max_time_img=math.inf,
            return_idxs=True,
        )
        return rows[0], predicted[0, 4 + rows[0][:, 5].long(), kept[0].long().view(-1)]


def score_of(network: Network, wanted: Wanted) -> Score:
    """The score that is explained, for the network's task."""
    return DetectionScore(network, wanted) if network.detects else ClassScore(network, wanted)
