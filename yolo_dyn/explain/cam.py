"""`yolo-dyn cam`: Grad-CAM++ of several models on the very same noisy pixels (A2D2C paper, Fig. 6)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.utils import LOGGER

from yolo_dyn.data.images import EvaluationSet, read_image, source_name, unlabelled
from yolo_dyn.errors import YoloDynError
from yolo_dyn.explain.explained import Network, Selection
from yolo_dyn.explain.heat import Heat, heat
from yolo_dyn.explain.views import centre_crop, letterboxed
from yolo_dyn.integration.api import chosen_device, torch_device
from yolo_dyn.output.arguments import Names, OrDefault, Positive, Share, Sigmas, checked
from yolo_dyn.output.files import results_folder, writable
from yolo_dyn.output.labels import model_labels
from yolo_dyn.output.outcome import Written
from yolo_dyn.output.style import panel_height, save, verbatim
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.corruptions import Image
from yolo_dyn.robustness.plan import chosen_conditions
from yolo_dyn.robustness.records import Condition

SIGMAS = [0.0, 25.0]
COLOURS = "inferno"  # evenly spaced for the eye, with any colour vision, and brighter where it is hotter
STRENGTH = 0.6  # of the colours over the image, which is drawn in grey
PANEL = 3.2  # width in inches


@checked
def cam(
    model: Names,
    source: str,
    sigma: Sigmas | None = None,
    images: Names | None = None,
    count: Positive = 3,
    layer: list[int] | None = None,
    target: str = "",
    conf: Share = 0.25,
    max_det: Positive = 300,
    seed: OrDefault = 0,
    imgsz: OrDefault = 0,
    device: str = "",
    name: str = "",
    project: str = "runs/cam",
) -> Written:
    """Draw where models look, by Grad-CAM++, side by side on the same clean and noisy images.

    Args:
        model: checkpoints of detection or classification models.
        source: folder, file or pattern of images.
        sigma: standard deviations of Gaussian noise in grey levels; 0 and 25 if nothing is given. The clean image
            is always drawn.
        images: file names to draw; the first ones of the source if nothing is given.
        count: how many to draw.
        layer: numbers of the rows whose maps are taken; those that the head reads if nothing is given.
        target: class name: the detections of this class alone, or a classifier's reasons for it in place of the
            class it predicts.
        conf: least score of a detection.
        max_det: most detections of an image.
        seed: of the noise.
        imgsz: images are letterboxed to a square of so many pixels, for a classifier cut to it; 640, for a
            classifier 224, if it is 0.
        device: torch device; the first GPU if there is one, else the CPU.
        name: of the folder for the picture, inside `project`; that of the source if it is empty.
        project: folder of all such folders.

    Returns:
        The picture; its text says which images were drawn.

    Raises:
        YoloDynError: if something does not fit, before anything long begins.
    """
    conditions = chosen_conditions(SIGMAS if sigma is None else sigma, None, None)
    on = torch_device(chosen_device(device))
    networks = [Network.load(label, file, on) for label, file in model_labels(model).items()]
    shown = unlabelled(source, _channels(networks), images, count)
    for file, reason in shown.skipped.items():
        LOGGER.info(f"skipped {file}: {reason}")
    for network in networks:
        network.check_rows(layer or [])
        network.class_id(target)
        network.side(imgsz)
    folder = writable(results_folder(project, name or source_name(source)), "")
    selection = Selection(conf, max_det, target)
    panels = [
        [_panel(network, shown, number, condition, seed, imgsz, selection, layer) for network in networks]
        for number in range(len(shown.files))
        for condition in conditions
    ]
    picture = folder / "cam.png"
    draw(panels, picture)
    return Written((picture,), f"{', '.join(file.name for file in shown.files)}: drawn to {picture}")


@dataclass(frozen=True)
class Panel:
    """One model on one image."""

    file: str
    condition: str
    label: str  # of the model
    caption: str  # the prediction in words
    image: Image  # with its noise, uint8 [H, W, C]
    heat: np.ndarray  # [H, W], 0..1, NaN where the network sees nothing
    boxes: np.ndarray  # [n, 4], left, top, right, bottom in pixels of the image


def _channels(networks: list[Network]) -> int:
    channels = {network.label: network.channels for network in networks}
    if len(set(channels.values())) > 1:
        raise YoloDynError(f"models must take images of as many channels, to see the same pixels; they take {channels}")
    if networks[0].channels != 3 and not all(network.detects for network in networks):
        raise YoloDynError(f"a classification model must take 3 channels, {networks[0].label!r} takes {channels}")
    return networks[0].channels


def _panel(
    network: Network,
    images: EvaluationSet,
    number: int,
    condition: Condition,
    seed: int,
    imgsz: int,
    selection: Selection,
    layer: list[int] | None,
) -> Panel:
    file, side = images.files[number], network.side(imgsz)
    image = Corrupter.of(condition, seed)(read_image(file, images.channels), file.name)
    view = letterboxed(image, side) if network.detects else centre_crop(image, side)
    result = heat(network, view.pixels, selection, layer)
    caption = _words(network, result, selection.target)
    LOGGER.info(f"{file.name}, {condition}, {network.label}: {caption}")
    heat_map, boxes = view.lay_back(result.square), view.boxes(result.boxes)
    return Panel(file.name, str(condition), network.label, caption, image, heat_map, boxes)


def _words(network: Network, result: Heat, target: str) -> str:
    if not network.detects:
        return f"{network.names[int(result.classes[0])]} {result.scores[0]:.2f}"
    number = len(result.scores)
    return f"{number or 'no'} detection{'s' if number != 1 else ''}{f' of {target}' if target else ''}"


@verbatim
def draw(panels: list[list[Panel]], path: Path) -> None:
    """Draw the image and its maps: a row for each image and strength, a column for each model.

    Args:
        panels: of each row, one for each model, all of the same image.
        path: picture to write.
    """
    import matplotlib.pyplot as plt

    heights = [panel_height(PANEL, [line[0].image.shape[:2]]) for line in panels]
    size = (PANEL * (len(panels[0]) + 1), sum(heights) + 0.5 * len(heights) + 0.6)
    shape = {"squeeze": False, "layout": "constrained", "height_ratios": heights}
    figure, axes = plt.subplots(len(panels), len(panels[0]) + 1, figsize=size, **shape)
    for line, (first, *others) in zip(panels, axes, strict=True):
        image = line[0].image
        first.imshow(image[..., ::-1] if image.shape[2] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255)
        first.set_title(f"{line[0].file}\n{line[0].condition}", fontsize=8)
        for panel, axis in zip(line, others, strict=True):
            colours = _overlay(axis, panel)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    bar = figure.colorbar(colours, ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.01)
    bar.set_label("Grad-CAM++, share of the hottest place of the panel", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    save(figure, path)


def _overlay(axis: Any, panel: Panel) -> Any:
    """The image in grey, the heat over it, and thin frames around what was found."""
    from matplotlib.patches import Rectangle

    grey = panel.image.mean(2)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255)
    colours = axis.imshow(panel.heat, cmap=COLOURS, vmin=0, vmax=1, alpha=STRENGTH)
    for left, top, right, bottom in panel.boxes:
        for colour, width in (("black", 1.4), ("white", 0.6)):  # seen on any colour
            size = right - left, bottom - top
            axis.add_patch(Rectangle((left, top), *size, fill=False, edgecolor=colour, linewidth=width))
    axis.set_title(f"{panel.label}, {panel.condition}\n{panel.caption}", fontsize=8)
    return colours
