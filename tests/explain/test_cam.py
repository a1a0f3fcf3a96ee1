"""Grad-CAM++: the published formula, maps that lie where the heat is, and `yolo-dyn cam`."""

import copy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import save, skip_before, skip_without_its_rows
from torch import nn
from ultralytics import YOLO

from yolo_dyn import YoloDynError, cli
from yolo_dyn.data import shapes
from yolo_dyn.data.images import evaluation_set, read_image
from yolo_dyn.explain.cam import cam
from yolo_dyn.explain.explained import Network, Selection, score_of
from yolo_dyn.explain.heat import heat, traced_maps
from yolo_dyn.explain.views import View, centre_crop, letterboxed
from yolo_dyn.robustness import corrupt
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.corruptions import SIGMA
from yolo_dyn.robustness.evaluate import Settings, detect

SIDE = 128
CELL = 8  # pixels of a cell of the hand-made networks' map
SIZES = [(90, 250), (251, 91), (61, 97), (333, 517)]  # height, width: flat, tall, smaller and larger than the square
EPSILON = 1e-6  # what the library adds to alpha's denominator, for gradients of at most 1


class HandMade(nn.Module):
    """What the package asks of an Ultralytics model, with one row before the head."""

    def __init__(self, row: nn.Module, head: nn.Module, task: str) -> None:
        super().__init__()
        head.f = [0] if task == "detect" else -1
        self.model = nn.Sequential(row, head)
        self.task, self.names, self.stride = task, {0: "bright", 1: "dark"}, torch.tensor([CELL])

    def forward(self, x: torch.Tensor) -> tuple:
        x = self.model[0](x)
        return self.model[1]([x] if self.task == "detect" else x)


class BrightCells(nn.Module):
    """A detector's head that finds an object of class 0 in each bright cell, and nothing anywhere else."""

    def __init__(self, steepness: float = 40) -> None:
        super().__init__()
        self.steepness = steepness

    def forward(self, levels: list[torch.Tensor]) -> tuple:
        light = levels[0].mean(1).flatten(1)[:, None]  # [1, 1, cells]
        across = levels[0].shape[-1]
        number = torch.arange(light.shape[-1])
        centres = torch.stack([number % across, number // across])[None] * CELL + CELL / 2
        score = (self.steepness * (light - 0.75)).sigmoid()
        return torch.cat([centres, torch.full_like(centres, CELL), score, torch.zeros_like(score)], 1), {}


class SquaredLight(nn.Module):
    """A classifier's head: logits are weighted means of the squared channels, so dS/dA = 2 W A / positions."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)  # [classes, channels]

    def forward(self, x: torch.Tensor) -> tuple:
        logits = (x**2).mean((2, 3)) @ self.weight.T
        return logits.softmax(1), logits


def hand_made(task: str) -> Network:
    """A network whose scores are those of the bright cells."""
    head = BrightCells() if task == "detect" else SquaredLight(torch.tensor([[9.0, 9, 9], [0, 0, 0]]))
    row = nn.AvgPool2d(CELL)
    row.register_parameter("device", nn.Parameter(torch.zeros(1, 3)))  # the library asks the first one
    return Network("hand-made", HandMade(row, head, task))


def one_image(folder: Path, image: np.ndarray) -> str:
    cv2.imwrite(str(folder / "image.png"), image)
    return str(folder / "image.png")


def drawing() -> torch.Tensor:
    """A picture of the embedded data set, on which the random networks are not too sure of themselves."""
    return torch.from_numpy(shapes.draw_image("val", 0)[0]).permute(2, 0, 1)[None] / 255


def seen(task: str, folder: Path, image: np.ndarray, side: int = SIDE, corrupter: Corrupter | None = None) -> View:
    source = one_image(folder, image)
    if task == "classify":
        return centre_crop(read_image(source), side)
    return letterboxed((corrupter or Corrupter(None))(read_image(source), Path(source).name), side)


@pytest.fixture(scope="session")
def random_network(random_detector) -> Callable[[str], Network]:
    """A network that finds something without training, as it is loaded from a checkpoint."""

    def build(yaml: str) -> Network:
        net = random_detector(yaml, {0: "a", 1: "b", 2: "c"}).requires_grad_(False)
        net.task = "detect"
        return Network("random", net)

    return build


# the formula ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [64, 0.01])  # of the gradients, which the EPSILON would drown
def test_it_is_the_published_formula(scale):
    torch.manual_seed(0)
    row = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    row[0].bias.data += 0.4  # few zeros, but some
    weight = scale * torch.randn(2, 4).double()
    weight[0] = 2 * weight[1].abs().max()  # the class that is predicted is not the one that is wanted
    network = Network("tiny", HandMade(row, SquaredLight(weight), "classify").double())
    pixels = torch.rand(1, 3, 8, 8).double()
    result = heat(network, pixels, Selection(target="dark"))

    maps = row(pixels)[0].detach().numpy()
    channels, height, width = maps.shape
    expected, slack, plain = np.zeros((3, height, width))
    largest = max(abs(2 * float(weight[1, k]) * a) for k in range(channels) for a in maps[k].flat) / (height * width)
    for k in range(channels):
        total, w, error, mean = sum(maps[k].flat), 0.0, 0.0, 0.0
        for i in range(height):
            for j in range(width):
                g = 2 * float(weight[1, k]) * maps[k, i, j] / (height * width)
                mean += g / (height * width)
                if g > 0:
                    denominator = 2 * g**2 + total * g**3
                    w += g**2 / denominator * g
                    error += g**2 / denominator * g * min(1, EPSILON * largest**2 / denominator)
        expected += w * maps[k]
        slack += error * maps[k]
        plain += mean * maps[k]
    span = np.ptp(expected)
    # The library adds EPSILON to each denominator and 1e-7 to each span, twice, and rounds to float32 four times.
    tolerance = 2 * slack.max() / span + 2e-7 * (1 + 1 / span) + 4 * 2.0**-24
    assert tolerance < 1e-4
    assert np.abs(result.square - (expected - expected.min()) / span).max() <= tolerance
    plain = np.maximum(plain, 0)  # Grad-CAM is not Grad-CAM++ here, so the test tells them apart
    assert np.abs(result.square - (plain - plain.min()) / np.ptp(plain)).max() > 1000 * tolerance
    assert (heat(network, pixels).classes.tolist(), result.classes.tolist()) == ([0], [1])


def by_hand(network: Network, pixels: torch.Tensor, scores: np.ndarray) -> np.ndarray:
    """The map of a detector at the inputs of its head, in float64, from the scores of what is explained."""
    read: list[torch.Tensor] = []
    head = network.rows[-1]
    hook = head.register_forward_pre_hook(lambda _, inputs: read.extend(inputs[0]))
    with torch.no_grad():
        predicted = network.net(pixels)[0][0, 4:]
    hook.remove()
    found = [int((predicted - score).abs().argmin()) for score in scores]
    levels = [level.double().requires_grad_() for level in read]
    precise = copy.deepcopy(head).double()
    precise.shape = None  # its anchors are made anew, in float64
    logits = torch.logit(precise(list(levels))[0][0, 4:].flatten()[found])
    maps = []
    for level, gradient in zip(levels, torch.autograd.grad(logits.sum(), levels), strict=True):
        a, g = level.detach()[0].numpy(), gradient[0].numpy()
        total = a.clip(0).sum((1, 2), keepdims=True)
        alpha = g**2 / np.where(g, 2 * g**2 + total * g**3, 1)
        square = np.maximum(((alpha * np.maximum(g, 0)).sum((1, 2), keepdims=True) * a).sum(0), 0)
        maps.append(cv2.resize(scaled(square), tuple(pixels.shape[:1:-1])))
    return scaled(np.mean(maps, 0))


def scaled(square: np.ndarray) -> np.ndarray:
    return (square - square.min()) / max(np.ptp(square), 1e-30)


class Opposed(nn.Module):
    """The light of each cell, and a little of its darkness below zero: as much as makes sum * g come near -2."""

    def __init__(self, darkness: float) -> None:
        super().__init__()
        self.little = nn.Parameter(torch.tensor([[2.002 / 20 / darkness]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        light = nn.functional.avg_pool2d(x, CELL).mean(1, keepdim=True)
        return torch.cat([2 * light, self.little * (light - 1)], 1)


def test_a_channel_that_sums_to_less_than_nothing_does_not_turn_the_map_over():
    from pytorch_grad_cam import GradCAMPlusPlus

    pixels = torch.zeros(1, 3, SIDE, SIDE)
    pixels[..., 80:96, 16:40] = 1  # 6 of 256 cells
    network = Network("opposed", HandMade(Opposed(250), BrightCells(), "detect"))
    result = heat(network, pixels, Selection(conf=0.5))
    assert len(result.scores) == 6
    inside = pixels[0, 0].numpy() > 0
    assert result.square[inside].mean() > 0.7
    assert result.square[~inside].mean() < 0.05
    with traced_maps(network, []) as maps:  # by the formula as it stands it is turned over
        published = GradCAMPlusPlus(score_of(network, Selection(conf=0.5)), maps)(pixels, [lambda score: score])[0]
    assert published[inside].mean() < 0.3
    assert published[~inside].mean() > 0.9


@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolov8n-sgdm.yaml"])
def test_a_detectors_map_is_that_of_the_heads_inputs_and_of_the_sum_of_logits(yaml, random_network):
    network = random_network(yaml)
    pixels = drawing()
    result = heat(network, pixels, Selection(conf=0.01, max_det=2))
    assert len(result.scores) == 2
    assert np.abs(result.square - by_hand(network, pixels, result.scores)).max() < 1e-3
    one_less = by_hand(network, pixels, result.scores[1:])
    assert np.abs(result.square - one_less).max() > 0.01


def test_gradients_of_other_levels_do_not_come_in_through_the_neck(random_network):
    network = random_network("yolov8n.yaml")
    pixels = drawing()
    network.rows[-1].cv3[2][-1].bias.data += 4  # so that objects are found on P5 alone
    own = heat(network, pixels, Selection(conf=0.5)).square
    rows = heat(network, pixels, Selection(conf=0.5), layer=[15, 18, 21]).square  # the same maps
    assert np.abs(own - heat(network, pixels, Selection(conf=0.5), layer=[21]).square).max() < 1e-5
    assert np.abs(own - rows).max() > 0.02


# places --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("task", ["detect", "classify"])
def test_the_heat_lies_where_the_score_comes_from(task, size, tmp_path):
    height, width = size
    image = np.zeros((*size, 3), np.uint8)
    short = min(size)
    top, left = height // 2 + short // 8, width // 2 - short * 3 // 8  # below the middle, left of it
    bottom, right = top + short // 4, left + short // 4
    image[top:bottom, left:right] = 255
    view = seen(task, tmp_path, image)
    result = heat(hand_made(task), view.pixels, Selection(conf=0.5))
    laid = view.lay_back(result.square)
    assert laid.shape == size
    hot = np.where(np.nan_to_num(laid) > 0.5, np.nan_to_num(laid), 0)
    rows, columns = np.indices(size)
    centre = (hot * rows).sum() / hot.sum(), (hot * columns).sum() / hot.sum()
    half_a_cell = CELL / 2 * size[0] / view.resized[0]
    assert centre == pytest.approx(((top + bottom - 1) / 2, (left + right - 1) / 2), abs=half_a_cell)
    boxes = view.boxes(result.boxes)
    assert (len(boxes) > 0) == (task == "detect")
    assert (boxes >= np.array([left, top, left, top]) - 2 * half_a_cell).all()
    assert (boxes <= np.array([right, bottom, right, bottom]) + 2 * half_a_cell).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("task", ["detect", "classify"])
def test_what_the_network_sees_laid_back_is_the_image(task, size, tmp_path):
    rows, columns = np.indices(size)
    image = np.zeros((*size, 3), np.uint8)  # blue falls to the right, green grows downwards, red is even
    image[..., 0] = 250 - 200 * columns / size[1]
    image[..., 1] = 40 + 200 * rows / size[0]
    image[..., 2] = 99
    view = seen(task, tmp_path, image)
    assert view.pixels.shape == (1, 3, SIDE, SIDE)
    back = np.stack([view.lay_back(channel) for channel in view.pixels[0].numpy()[::-1]], -1) * 255
    border = 2 + round(2 * size[0] / view.resized[0])  # two pixels of the square, where resizing repeats the edge
    covered = ~np.isnan(back[..., 0])
    inner = cv2.erode(np.pad(covered, 1).astype(np.uint8), np.ones((2 * border + 1,) * 2))[1:-1, 1:-1].astype(bool)
    assert inner.mean() > 0.2
    assert np.abs(back[inner] - image[inner]).max() < 2  # grey levels, of 200 from one side to the other
    if task == "detect":
        assert covered.all()
    else:  # the square in the middle is seen, the ends of the longer side are not
        middle = covered[size[0] // 2] if size[1] > size[0] else covered[:, size[1] // 2]
        assert middle.sum() == pytest.approx(min(size), abs=2 + 2 * min(size) / SIDE)
        assert abs(int(middle.argmax()) - int(middle[::-1].argmax())) <= 2 + 2 * min(size) / SIDE


def test_a_ramp_is_laid_back_to_the_fraction_of_a_pixel():
    view = View(torch.zeros(1, 3, 64, 64), original=(150, 320), resized=(30, 64), corner=(17, 0))
    square = np.repeat(np.arange(64, dtype=np.float32)[:, None], 64, 1)  # each pixel's row in the square
    laid = view.lay_back(square)
    expected = (np.arange(150) + 0.5) * 30 / 150 - 0.5 + 17
    assert np.allclose(laid[3:-3, 0], expected[3:-3], atol=1e-4)
    assert np.allclose(view.boxes(np.array([[0.0, 17, 64, 47]])), [[0, 0, 320, 150]])


def test_noise_comes_before_the_letterbox(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (45, 80, 3), np.uint8)
    view = seen("detect", tmp_path, image, 64, Corrupter(SIGMA, 25.0, 3))
    noisy = cv2.resize(corrupt(image, sigma=25, seed=3, name="image.png"), (64, 36), interpolation=cv2.INTER_LINEAR)
    square = np.full((64, 64, 3), 114, np.uint8)
    square[14:50] = noisy
    assert np.array_equal((view.pixels[0] * 255).round().permute(1, 2, 0).numpy(), square[..., ::-1])


# networks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "yaml", ["yolo26n-sgdm.yaml", "yolo11n-sgdm.yaml", "yolov8n-sgdm-a2d2cplus.yaml", "yolov5n-rfaconv.yaml"]
)
def test_gradients_flow_through_our_layers_and_leave_nothing_behind(yaml, random_network):
    skip_without_its_rows(yaml)
    network, pixels = random_network(yaml), drawing()
    plain = network.net(pixels)[0]
    for layer in (None, [4], [6, 4]):  # from row 4 to the scores they pass through our layers
        result = heat(network, pixels, Selection(conf=0, max_det=3), layer)
        assert result.square.shape == (192, 192)
        assert (result.square.min(), result.square.max()) == pytest.approx((0, 1), abs=1e-5)
        assert len(result.scores) == 3
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in network.net.modules()]
    assert not any(one or other for one, other in hooks)
    assert all(p.grad is None for p in network.net.parameters())
    assert torch.equal(network.net(pixels)[0], plain)


def test_a_fused_model_has_the_same_map(random_network):
    whole = random_network("yolov8n-sgdm.yaml")
    pixels = drawing()
    fused = Network("fused", copy.deepcopy(whole.net).fuse(verbose=False))
    one, other = (heat(network, pixels, Selection(conf=0.01, max_det=5), [9]).square for network in (whole, fused))
    assert np.abs(one - other).max() < 0.01


def test_nothing_found_is_no_heat_and_a_certain_score_breaks_nothing(tmp_path):
    dark, white = (seen("detect", tmp_path, np.full((64, 96, 3), value, np.uint8)) for value in (0, 255))
    nothing = heat(hand_made("detect"), dark.pixels, Selection(conf=0.5))
    assert (len(nothing.boxes), nothing.square.max()) == (0, 0)
    network = hand_made("detect")
    network.rows[-1].steepness = 4000  # the scores are 1.0 to the last bit, and their logits infinite
    certain = heat(network, white.pixels, Selection(conf=0.5))
    assert certain.scores.min() == 1
    assert np.isfinite(certain.square).all()


@pytest.mark.parametrize(
    ("yaml", "by_itself"),
    [("yolo26n.yaml", False), ("yolo26n.yaml", True), ("yolov10n.yaml", True)],
    ids=["suppressed", "end-to-end", "YOLOv10"],
)
def test_a_target_picks_the_detections_of_a_class(yaml, by_itself, random_network):
    skip_without_its_rows(yaml)
    network, pixels = random_network(yaml), drawing()
    if not by_itself:
        skip_before("8.4.8", "head that suppresses by itself or not, as it is told")
        network.rows[-1].end2end = False
    for name, number in (("a", 0), ("b", 1)):
        found = heat(network, pixels, Selection(conf=0, target=name))
        assert set(found.classes.tolist()) == {number}
        assert found.square.max() == pytest.approx(1, abs=1e-3)
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


# the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The figures that are drawn."""
    import matplotlib.pyplot as plt

    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    return figures


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("classifier") / "sorts.pt"
    save(YOLO("yolov8n-cls.yaml"), file)
    return str(file)


def test_models_side_by_side(detectors, classifier, tmp_path, monkeypatch, drawn, capsys, log):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    images = {name: cv2.imread(str(detectors / "images" / "val" / name)) for name in ("2.png", "3.png")}
    images["3.png"] = images["3.png"].mean(2).astype(np.uint8)  # a grey one
    for name, image in images.items():
        cv2.imwrite(str(tmp_path / "photos" / name), image)
    (tmp_path / "photos" / "0.png").write_bytes(b"broken")
    words = [f"model={detectors / 'a.pt'},{classifier},{detectors / 'b.pt'}", "source=photos", "sigma=40", "seed=7"]
    assert cli.main(["cam", *words, "conf=0.05", "device=cpu", "imgsz=192"]) == 0
    output = capsys.readouterr().out
    assert "skipped photos/0.png" in "\n".join(log).replace(f"{tmp_path}/", "")
    assert output.rstrip().endswith("2.png, 3.png: drawn to runs/cam/photos/cam.png")
    assert min(cv2.imread("runs/cam/photos/cam.png").shape[:2]) > 500

    panels = np.array(drawn[0].axes[:-1]).reshape(4, 4)  # the last one is the colour bar
    expected = [(name, strength) for name in images for strength in (0, 40)]
    for line, (name, strength) in zip(panels, expected, strict=True):
        condition = f"sigma {strength}" if strength else "clean"
        assert line[0].get_title() == f"{name}\n{condition}"
        assert [a.get_title().split("\n")[0] for a in line[1:]] == [f"{m}, {condition}" for m in ("a", "sorts", "b")]
        noisy = corrupt(read_image(f"photos/{name}"), sigma=strength, seed=7, name=name)
        assert np.array_equal(line[0].images[0].get_array(), noisy[..., ::-1])
        for axis in line[1:]:
            grey, colours = (shown.get_array() for shown in axis.images)
            assert np.array_equal(grey, noisy.mean(2))
            assert colours.shape == noisy.shape[:2]
        assert np.isnan(np.ma.filled(line[2].images[1].get_array(), np.nan)).any() == (noisy.shape[0] != noisy.shape[1])
    found = [axis.get_title().split("\n")[1] for axis in panels[:, 1]]
    assert all(text.endswith(("detection", "detections")) for text in found)
    for text, axis in zip(found, panels[:, 1], strict=True):
        assert len(axis.patches) == 2 * int(text.split()[0].replace("no", "0"))


@pytest.mark.parametrize("sigma", [0, 30])
def test_what_is_explained_is_what_is_evaluated(sigma, detectors):
    images = evaluation_set(str(detectors / "data.yaml"))
    corrupter = Corrupter(SIGMA, sigma, 0)
    evaluated = detect(str(detectors / "a.pt"), images, corrupter, Settings(imgsz=192, conf=0.03)).found
    network = Network.load("a", str(detectors / "a.pt"))
    for number in range(5):
        file = images.files[number]
        view = letterboxed(corrupter(read_image(file), file.name), 192)
        mine = heat(network, view.pixels, Selection(conf=0.03, max_det=10))
        left, top, width, height, scores, classes = evaluated[evaluated[:, 0] == number, 1:][:10].T
        assert np.allclose(view.boxes(mine.boxes), np.stack([left, top, left + width, top + height], 1), atol=1)
        assert np.allclose(mine.scores, scores, atol=1e-3)
        assert mine.classes.tolist() == classes.tolist()
    assert len(evaluated) > 10


def test_nothing_found_says_so(detectors, tmp_path, monkeypatch, drawn):
    monkeypatch.chdir(tmp_path)
    line = cam([str(detectors / "a.pt")], f"{detectors}/images/val/*.png", [0], count=1, conf=1, imgsz=192, name="none")
    assert line == "0.png: drawn to runs/cam/none/cam.png"
    panel = drawn[0].axes[1]
    assert panel.get_title() == "a, clean\nno detections"
    assert panel.images[1].get_array().max() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ["c.pt"]}, "model 'c.pt' does not exist"),
        ({"model": ["broken.pt"]}, "model 'broken.pt' cannot be loaded: "),
        ({"model": ["a.onnx"]}, "model 'a.onnx' must be a checkpoint"),
        ({"model": ["segments.pt"]}, "model 'segments.pt' is a segment model ending in Segment; it must be"),
        ({"model": ["a.pt", "a.pt"]}, "a model is given twice"),
        ({"source": "missing/*.jpg"}, "source=missing/[*].jpg: no image found"),
        ({"source": "empty"}, "No images found in empty"),
        ({"source": "broken.pt"}, "source=broken.pt: no image can be read: broken.pt: it is no image"),
        ({"images": ["12.png"]}, "image '12.png' is not in source=.*; did you mean '"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"sigma": [-5.0]}, "sigma must be grey levels of at least 0, got"),
        ({"sigma": [float("nan")]}, "sigma must be grey levels of at least 0, got"),
        ({"layer": [40]}, "layer=40: model 'a' has rows 0 to 25"),
        ({"layer": [-1]}, "layer=-1: model 'a' has rows 0 to 25"),
        ({"layer": [25]}, "layer=25: row 25 of model 'a', Detect, gives no map"),
        ({"target": "circel"}, "model 'a' has no class 'circel'; did you mean 'circle'"),
        ({"layer": [9], "imgsz": 32}, "model 'a' at imgsz=32: the map has a single position"),
        ({"imgsz": 100}, "imgsz must be a multiple of 32 for model 'a', got 100"),
        ({"conf": 1.5}, "conf must be from 0 to 1, got 1.5"),
        ({"device": "banana"}, "device=banana: torch cannot use it here; accepted on this machine: cpu"),
        ({"project": "broken.pt"}, "the folder broken.pt/val cannot be written to"),
    ],
    ids=str,
)
def test_bad_input(changes, message, detectors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    shutil.copy(detectors / "a.pt", tmp_path)
    if changes.get("model") == ["segments.pt"]:
        save(YOLO("yolov8n-seg.yaml"), "segments.pt")
    arguments = {"model": ["a.pt"], "source": str(detectors / "images" / "val"), "imgsz": 192, "device": "cpu"}
    with pytest.raises(YoloDynError, match=message):
        cam(**{**arguments, **changes})


def test_a_row_that_leads_nowhere_is_named(tmp_path):
    network = hand_made("classify")
    network.net.model.insert(1, nn.Identity())
    network.net.forward = lambda x: (network.rows[1](x), network.rows[2](network.rows[0](x)))[1]
    with pytest.raises(YoloDynError, match="layer=1,0, model 'hand-made': the scores do not depend on every one"):
        heat(network, torch.rand(1, 3, SIDE, SIDE), None, [1, 0])


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(YoloDynError, match="pip install 'yolo-dyn\\[cam\\]'"):
        heat(hand_made("classify"), torch.rand(1, 3, SIDE, SIDE))
