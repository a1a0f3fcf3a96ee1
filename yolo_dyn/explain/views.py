"""What a network sees of an image, and where it sees it: so a map of the network can be laid back over the image."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from ultralytics.utils import TQDM

from yolo_dyn.data.images import EvaluationSet, letterbox, read_image
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.corruptions import Image
from yolo_dyn.robustness.records import Condition


@dataclass(frozen=True)
class View:
    """An image resized, then padded or cut to the network's square of S by S pixels."""

    pixels: torch.Tensor  # [1, C, S, S], values in 0..1
    original: tuple[int, int]  # height and width of the image
    resized: tuple[int, int]  # height and width that the whole image has at the network's scale
    corner: tuple[int, int]  # row and column of its first pixel in the square; negative if it is cut off

    def lay_back(self, square: np.ndarray) -> np.ndarray:
        """Resize a map of the square, ``[S, S]``, to the image: float32 ``[H, W]``, NaN where the network saw nothing.

        Both resizes are OpenCV's, which keeps the borders of the image, and not the centres of its corner pixels, in
        place: nothing moves by the half pixel in which the conventions differ.
        """
        (height, width), (top, left), size = self.resized, self.corner, square.shape[0]
        seen = np.full(self.resized, np.nan, np.float32)
        rows, columns = slice(max(-top, 0), min(size - top, height)), slice(max(-left, 0), min(size - left, width))
        seen[rows, columns] = square[rows.start + top : rows.stop + top, columns.start + left : columns.stop + left]
        return cv2.resize(seen, self.original[::-1], interpolation=cv2.INTER_LINEAR)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes in pixels of the square as left, top, right, bottom, ``[n, 4]``, in those of the image."""
        scale = np.divide(self.original, self.resized)[[1, 0, 1, 0]]
        moved = (boxes - np.array(self.corner)[[1, 0, 1, 0]]) * scale
        return moved.clip(0, np.array(self.original)[[1, 0, 1, 0]])


@dataclass(frozen=True)
class NoisyImages:
    """Images of a set as a detector sees them, clean and with the noise of each strength."""

    images: EvaluationSet
    conditions: list[Condition]  # the clean one first
    seed: int
    imgsz: int
    batch: int  # squares that go through the network together
    device: str = "cpu"

    def batches(self, conditions: list[Condition], what: str) -> Iterator[torch.Tensor]:
        """``[images * conditions, C, imgsz, imgsz]`` from 0 to 1, the conditions of an image side by side."""
        corrupters = [Corrupter.of(condition, self.seed) for condition in conditions]
        files, step = self.images.files, max(1, self.batch // len(conditions))
        with TQDM(total=len(files), desc=what, unit="images") as bar:
            for start in range(0, len(files), step):
                squares = []
                for file in files[start : start + step]:
                    image = read_image(file, self.images.channels)
                    squares += [letterbox(corrupt(image, file.name), self.imgsz).pixels for corrupt in corrupters]
                yield torch.from_numpy(np.stack(squares)).to(self.device).float() / 255
                bar.update(len(squares) // len(conditions))


def letterboxed(image: Image, imgsz: int) -> View:
    """An image, uint8 ``[H, W, C]``, as detection models are evaluated on it."""
    square = letterbox(image, imgsz)
    pixels = torch.from_numpy(square.pixels)[None] / 255
    return View(pixels, (image.shape[0], image.shape[1]), square.resized, square.corner)


def centre_crop(image: Image, imgsz: int) -> View:
    """An image, uint8 ``[H, W, 3]``, as Ultralytics' classification models see it: the square in its middle."""
    import PIL.Image
    from ultralytics.data.augment import classify_transforms

    resize, crop, *to_tensor = classify_transforms(imgsz).transforms
    whole = resize(PIL.Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    pixels = crop(whole)
    for transform in to_tensor:
        pixels = transform(pixels)
    top, left = (-round((side - imgsz) / 2) for side in (whole.height, whole.width))  # as CenterCrop rounds it
    return View(pixels[None], (image.shape[0], image.shape[1]), (whole.height, whole.width), (top, left))
