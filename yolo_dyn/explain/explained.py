"""A checkpoint that can be explained, and the score of it that is explained."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.integration import compat, image_channels
from yolo_dyn.integration.api import detection_heads, load_model
from yolo_dyn.robustness.evaluate import Settings

SIZES = {"detect": 640, "classify": 224}  # of the square, by task, if none is asked for


@dataclass(frozen=True)
class Selection:
    """Which predictions are explained: detections by their least score and greatest number, or those of one class."""

    conf: float = 0.25
    max_det: int = Settings.max_det
    target: str = ""  # class name; every class of a detector, the predicted one of a classifier, if it is empty


@dataclass(frozen=True)
class Network:
    """A checkpoint that can be explained."""

    label: str
    net: nn.Module

    @classmethod
    def load(cls, label: str, file: str, device: str = "cpu") -> "Network":
        """Open a checkpoint; its file is not changed.

        Raises:
            YoloDynError: if it is missing, is no checkpoint, or ends in a head other than Detect's or Classify's.
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
        """Side of the square that it is given: `imgsz`, or if that is 0, Ultralytics' for its task.

        Raises:
            YoloDynError: if the network cannot take such a square.
        """
        side, stride = imgsz or SIZES[self.net.task], int(max(self.net.stride)) if self.detects else 1  # type: ignore
        if side < 1 or side % stride:
            raise YoloDynError(f"imgsz must be a multiple of {stride} for model {self.label!r}, got {imgsz}")
        return side

    def class_id(self, target: str) -> int | None:
        """The number of the class of that name; None for an empty name.

        Raises:
            YoloDynError: if there is none.
        """
        numbers = {name: number for number, name in self.names.items()}
        if target and target not in numbers:
            raise YoloDynError(f"model {self.label!r} has no class {target!r}{nearest(target, numbers)}")
        return numbers.get(target)

    def check_rows(self, layer: list[int]) -> None:
        """Raise a YoloDynError if there is no row of such a number."""
        for number in layer:
            if not 0 <= number < len(self.rows):
                raise YoloDynError(f"layer={number}: model {self.label!r} has rows 0 to {len(self.rows) - 1}")


class Score(nn.Module):
    """A network that returns the one number to explain, ``[1]``, and keeps its prediction."""

    def __init__(self, network: Network, selection: Selection) -> None:
        super().__init__()
        self.network, self.net, self.selection = network, network.net, selection
        self.class_id = network.class_id(selection.target)
        self.prediction: tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes, scores, classes; see `heat.Heat`


class ClassScore(Score):
    """The logit of the predicted class, or of the selected one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not compat.classifier_gives_logits():
            self.network.rows[-1].training = True  # its own flag alone: it gives them, and nothing inside it draws
        y = self.net(x)
        logits = y if isinstance(y, torch.Tensor) else y[1]
        class_id = int(logits.argmax()) if self.class_id is None else self.class_id
        score = logits.detach().softmax(1)[0, [class_id]].cpu().numpy()
        self.prediction = np.zeros((0, 4)), score, np.array([class_id])
        return logits[:, class_id]


class DetectionScore(Score):
    """The sum of the class logits of the detections that are kept."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        head = self.network.rows[-1]
        with compat.gradients_through(head):
            predicted = self.net(x)[0]
        if getattr(head, "end2end", False):
            rows, scores = self._end_to_end(predicted[0])
        else:
            rows, scores = self._after_nms(predicted)
        boxes, confidences, classes = (part.cpu().numpy() for part in (rows[:, :4], rows[:, 4], rows[:, 5].long()))
        self.prediction = boxes, confidences, classes
        if not len(scores):
            return 0 * predicted.sum()[None]  # no heat
        return torch.logit(scores, eps=1e-7).sum()[None]  # a score that was rounded to 1 has no finite logit

    def _end_to_end(self, predicted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Detections of a head that suppresses by itself, from ``[n, 6]`` with the best first, and their scores."""
        kept = predicted[:, 4] > self.selection.conf
        if self.class_id is not None:
            kept &= predicted[:, 5] == self.class_id
        rows = predicted[kept][: self.selection.max_det]
        return rows.detach(), rows[:, 4]

    def _after_nms(self, predicted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Detections after non-maximum suppression, from ``[1, 4 + classes, n]``, and their scores."""
        count, classes = predicted.shape[2], predicted.shape[1] - 4
        numbers = torch.arange(count, device=predicted.device, dtype=predicted.dtype)[None, None]
        (rows,) = compat.non_max_suppression(
            torch.cat([predicted.detach(), numbers], 1),  # what follows the classes stays with its box
            self.selection.conf,
            Settings.iou,
            classes=None if self.class_id is None else [self.class_id],
            multi_label=True,
            max_det=self.selection.max_det,
            nc=classes,
            max_time_img=math.inf,
        )
        return rows[:, :6], predicted[0, 4 + rows[:, 5].long(), rows[:, 6].long()]


def score_of(network: Network, selection: Selection) -> Score:
    """The score that is explained, for the network's task."""
    return DetectionScore(network, selection) if network.detects else ClassScore(network, selection)
