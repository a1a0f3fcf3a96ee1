"""`yolo-dyn experts`: its measures against slow loops, its pixels and scores against those of `robustness`."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import reference_experts as reference
import torch
from helpers import CONVOLUTIONS, build, randomise, save
from torch import Tensor, nn
from ultralytics import YOLO

from yolo_dyn import YoloDynError, cli, layers, registry
from yolo_dyn.data import images, shapes
from yolo_dyn.data.images import evaluation_set
from yolo_dyn.explain.dynamics import Worth, measurable, measure
from yolo_dyn.explain.dynamics_shown import draw, tables
from yolo_dyn.explain.experts import experts, frozen_copy, without_experts, without_guides
from yolo_dyn.explain.views import NoisyImages
from yolo_dyn.integration.trained import opened, write_checkpoint
from yolo_dyn.layers.baking import mixing_layers
from yolo_dyn.robustness import cells
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.evaluate import Settings, detect
from yolo_dyn.robustness.loading import CorruptedImages
from yolo_dyn.robustness.plan import chosen_conditions
from yolo_dyn.robustness.records import Estimate
from yolo_dyn.robustness.scores import evaluate

MIXING = [name for name in CONVOLUTIONS if hasattr(registry.require(name), "mixed")] + ["RDConv"]
WITHOUT = {"DCD"}  # mixes kernels of no experts
SIGMAS = [0.0, 10.0, 30.0]


class Given(NoisyImages):
    """Images that are there already, ``[images, conditions, C, H, W]``, two at a time."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(None, chosen_conditions(SIGMAS[: values.shape[1]], None, None), 0, 0, 0)  # type: ignore
        self.__dict__["values"] = values

    def batches(self, conditions, what):
        for some in self.__dict__["values"][:, : len(conditions)].split(2):
            yield some.flatten(0, 1)


def noisy(images: int, channels: int = 8, size: tuple[int, int] = (7, 6)) -> Tensor:
    """Random images, and two strengths of noise on each."""
    clean = torch.rand(images, 1, channels, *size, dtype=torch.float64) + torch.rand(images, 1, channels, 1, 1)
    noise = torch.randn(images, 2, channels, *size, dtype=torch.float64) * torch.tensor([0.1, 0.4])[:, None, None, None]
    return torch.cat([clean, clean + noise], 1)


def fused(name: str, **options) -> nn.Module:
    layer = build(name, 8, **options)
    randomise(layer)
    if hasattr(layer, "routing") and isinstance(layer.routing, nn.Linear):
        layer.routing.weight.data *= 5
    layer.eval().fuse()
    return layer.double()


def close(found: object, expected: object) -> bool:
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))  # type: ignore
    return found == expected if expected is None else math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12)  # type: ignore


@pytest.mark.parametrize("name", MIXING)
@torch.no_grad()
def test_measures_are_those_of_slow_loops(name):
    """Over all layers that mix kernels, a new one without a line of its own."""
    net = nn.Sequential(fused(name))
    values = noisy(5)
    (found,), means = measure(net, measurable(mixing_layers(net)), {}, Given(values))
    layer, kernels, inputs, weights = net[0], [], [], []
    for condition in range(3):
        images = [values[i, condition][None] for i in range(5)]
        kernels.append([layer.mixed(x)[0][0] for x in images])
        read = [layer.read(x) if hasattr(layer, "read") else (x, layer.geometry) for x in images]
        inputs.append([x[0] for x, _ in read])
        if name not in WITHOUT:
            weights.append([layer.weigh(x)[0] for x in images])
    assert (found.name, found.kind) == ("0", name)
    assert torch.allclose(means["0"].means()[0], sum(kernels[0]) / 5, atol=1e-12)
    assert close(found.variation, reference.variation(kernels[0]))
    assert (found.usage is None) == (name in WITHOUT)
    if found.usage:
        expected = reference.usage([w.tolist() for w in weights[0]], layer.expert_kernels())
        assert {key for key, value in expected.items() if not close(getattr(found.usage, key), value)} == set()
    geometry = [(g, g) if isinstance(g, int) else g for g in read[0][1][:2]]
    for at, movement in enumerate(found.noise, 1):
        assert movement.sigma == SIGMAS[at]
        plain = (geometry[0][0], geometry[1], 1, read[0][1][3])
        expected = reference.moved((inputs[0], inputs[at]), (kernels[0], kernels[at]), plain)
        assert {key for key, value in expected.items() if not close(getattr(movement, key), value)} == set()
        assert close(movement.gain, expected["output"] / expected["input"])
        assert close(movement.static_gain, expected["static"] / expected["input"])
        assert movement.interval[0] <= movement.ratio <= movement.interval[1]
        if name not in WITHOUT:
            assert close(movement.attention, reference.relative(weights[0], weights[at]))


@pytest.mark.parametrize("name", ["CondConv", "DynamicConv", "A2D2C", "RDConv", "DynamicResidualConv", "KWConv"])
@torch.no_grad()
def test_the_weights_of_the_experts_make_the_kernel(name):
    """Of layers that attend to nothing else; FMDConv, ODConv and FDConv scale what comes of it."""
    layer, x = fused(name, **({"init": "random"} if name == "DynamicResidualConv" else {})), noisy(3)[:, 0]
    weights, kernels, mixed = layer.weigh(x), layer.expert_kernels(), layer.mixed(x)[0]
    if name == "KWConv":
        expected = layer.assembled(weights)
        assert torch.allclose(weights @ kernels, layer.warehouse(weights))
    else:
        expected = torch.einsum("bk,koixy->boixy", weights[:, 0], kernels)
    if name == "DynamicResidualConv":
        expected = expected + layer.experts.weight[: len(kernels[0])]
    assert torch.allclose(mixed, expected, atol=1e-12)


class Known(nn.Module):
    """Two 1x1 kernels of one channel, 1 and 3, weighed by the mean of the image and what is left of one."""

    geometry = (1, 0, 1, 1)
    sums_to_one = True

    def expert_kernels(self):
        return torch.tensor([1.0, 3.0], dtype=torch.float64).view(2, 1, 1, 1, 1)

    def weigh(self, x, guide=None):
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, 1 - mean], 1)[:, None]

    def mixed(self, x, guide=None):
        return torch.einsum("bk,koixy->boixy", self.weigh(x)[:, 0], self.expert_kernels()), None

    def forward(self, x):
        return self.mixed(x)[0][:, 0] * x


@torch.no_grad()
def test_figures_that_a_pencil_gives():
    """Images of the values 0.25 and 0.75; noise adds 0.25: kernels 2.5 and 1.5 become 2 and 1."""
    net = nn.Sequential(Known())
    clean = torch.tensor([0.25, 0.75], dtype=torch.float64).view(2, 1, 1, 1, 1)
    (found,), _ = measure(net, mixing_layers(net), {}, Given(torch.cat([clean, clean + 0.25], 1)))
    use, (moved,) = found.usage, found.noise
    assert (use.weights, use.spread, use.dead, use.cosine) == ([0.5, 0.5], [0.25, 0.25], [], 1)
    assert close(use.entropy, -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75)))
    assert (use.evenness, use.variation) == (1, 0.5)  # sqrt(2 * .25^2 / (2 * .5^2))
    assert found.variation == 0.25  # a half of two
    assert close(moved.input, 2 * 0.25**2 / (0.25**2 + 0.75**2))
    assert close(moved.kernel, (0.5**2 + 0.5**2) / (2.5**2 + 1.5**2))
    assert close(moved.attention, 4 * 0.25**2 / (2 * (0.25**2 + 0.75**2)))
    assert close(moved.output, ((2 * 0.5 - 2.5 * 0.25) ** 2 + (1 - 1.5 * 0.75) ** 2) / (0.625**2 + 1.125**2))
    assert close(moved.static, moved.input)
    assert moved.static_gain == 1


@torch.no_grad()
def test_a_dead_expert_and_a_kernel_of_zeros_are_found():
    layer = build("DynamicConv", 8, num_experts=4).double().eval()
    layer.attention.expand.weight.zero_()
    layer.attention.expand.bias.copy_(torch.tensor([0.0, -20.0, 0.5, 0.0]))
    layer.experts.weight.unflatten(0, (4, -1))[3] = 0
    net = nn.Sequential(layer)
    (found,), _ = measure(net, mixing_layers(net), {}, Given(noisy(3)))
    assert found.usage.dead == [1, 3]
    assert found.usage.cosines[3] == [None] * 4
    assert found.usage.variation < 1e-12
    assert found.variation < 1e-9
    assert abs(found.noise[0].ratio - 1) < 1e-9


@torch.no_grad()
def test_what_takes_two_experts_or_energy_is_left_open():
    net = nn.Sequential(fused("ODConv", num_experts=1))
    (found,), _ = measure(net, mixing_layers(net), {}, Given(torch.zeros(1, 2, 8, 5, 5, dtype=torch.float64)))
    use, (moved,) = found.usage, found.noise
    assert (use.entropy, use.evenness, use.cosine, use.largest_cosine) == (None,) * 4
    assert (moved.input, moved.gain, moved.ratio, moved.interval) == (None,) * 4
    assert json.dumps(found.as_dict(), allow_nan=False)


class Row(nn.Sequential):
    """A network of one row, which is fused as Ultralytics fuses a model."""

    def fuse(self, verbose=True):
        self[0].fuse()
        return self


@torch.no_grad()
def test_without_its_guide_a_layer_is_measured_on_the_same_inputs():
    """As an SGDM whose guide is switched off would be, here where it is the first layer."""
    net = Row(randomise(layers.SGDM(32, 32))).eval()
    free = without_guides(net)
    assert list(free) == ["0.dynamic"]
    assert net[0].guide == "reshape"
    alone = Row(layers.SGDM(32, 32, guide="none")).eval()
    alone[0].load_state_dict(net[0].state_dict())
    assert without_guides(alone) == {}
    values = noisy(4, 32).float()
    found = []
    for each in (net, alone):
        each.fuse()
        found += measure(each, mixing_layers(each), free if each is net else {}, Given(values))[0]
    assert found[0].unguided == found[1].noise
    assert found[0].noise != found[1].noise
    assert found[1].unguided == []


def test_layers_that_are_dynamic_in_another_way_are_named():
    names = ["RFAConv", "LDConv", "CBAM", "CoordAtt"]
    net = nn.Sequential(*(build(name, 16) for name in [*names, "SGDM", "DCD"]))
    assert without_experts(net, mixing_layers(net)) == {str(i): name for i, name in enumerate(names)}


@pytest.fixture(scope="module")
def detector(detectors, random_detector, tmp_path_factory) -> Path:
    """A YOLOv8n with ODConv in SGDM, whose attention differs between the images of `detectors`."""
    folder = tmp_path_factory.mktemp("experts")
    model = YOLO("yolov8n-sgdm-odconv.yaml")
    model.model = random_detector("yolov8n-sgdm-odconv.yaml", dict(enumerate(shapes.NAMES)))
    for module in model.model.modules():
        if isinstance(module, layers.ODConv):
            for head in (module.kernel, module.filter):
                head.weight.data *= 20
    save(model, folder / "best.pt")
    return folder / "best.pt"


@pytest.fixture(scope="module")
def result(detector, detectors):
    """The command on six of the ten images."""
    words = [f"model={detector}", f"data={detectors / 'data.yaml'}", "sigma=0,25", "images=6", "imgsz=64", "seed=3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(detector.parent)
        assert cli.main(["experts", *words, "resamples=50", "batch=4"]) == 0
    folder = detector.parent / f"runs/experts/best-{detectors.name}"
    return folder, json.loads((folder / "experts.json").read_text())


def test_the_command_writes_all_it_measures(result):
    folder, content = result
    assert cv2.imread(str(folder / "experts.png")).shape[0] > 800
    names = [f"model.{row}.dynamic.conv" for row in (22, 23, 24)]
    assert [layer["name"] for layer in content["layers"]] == names
    assert content["data"]["images"] == 6
    for layer in content["layers"]:
        assert 0 < layer["usage"]["entropy"] < 1
        assert layer["variation"] > 0
        (noise,), (unguided,) = layer["noise"], layer["unguided"]
        assert noise["gain"] != unguided["gain"]
        assert noise["sigma"] == 25
    assert set(content["AP"]) == {"clean", "sigma 25", "mPC"}
    assert content["AP"]["clean"] > 0
    assert {each["layer"] for each in content["frozen"]} == {*names, "all"}
    assert any(each["AP_less"]["value"] != 0 for each in content["frozen"])


def test_scores_are_those_of_robustness_on_the_same_images(result, detector, detectors):
    _, content = result
    found = evaluation_set(str(detectors / "data.yaml"), count=6, seed=3)
    assert len(found.files) == 6
    for condition in chosen_conditions([0, 25], None, None):
        corrupter = Corrupter.of(condition, 3)
        detected = detect(str(detector), found, corrupter, Settings(imgsz=64, batch=4)).found
        assert evaluate(found.coco, detected).scores["AP"] == content["AP"][str(condition)]


def test_pixels_are_those_that_robustness_shows(detectors):
    from ultralytics.cfg import get_cfg

    found = evaluation_set(str(detectors / "data.yaml"))
    conditions = chosen_conditions([0, 25], None, None)
    (seen,) = NoisyImages(found, conditions, 5, 96, 100).batches(conditions, "")
    for at, condition in enumerate(conditions):
        shown = CorruptedImages(found, Corrupter.of(condition, 5), False, imgsz=96, hyp=get_cfg(), rect=False)
        for number in range(len(found.files)):
            assert torch.equal(seen[2 * number + at], shown[number]["img"].float() / 255)


def test_freezing_nothing_changes_no_detection(detector, detectors, tmp_path):
    """The fused checkpoint is kept in single precision: what a frozen layer loses is its dynamics alone."""
    source = opened(str(detector))
    net = source.model.float().eval().fuse(verbose=False)
    write_checkpoint(source, frozen_copy(net, {}), tmp_path / "same.pt", half=False)
    found = evaluation_set(str(detectors / "data.yaml"))
    settings = Settings(imgsz=64)
    a, b = (detect(str(file), found, Corrupter(None), settings).found for file in (detector, tmp_path / "same.pt"))
    assert np.array_equal(a, b)


def test_what_is_measured_is_kept(result, detector, detectors, monkeypatch):
    """With one cell gone, a second run of the command makes that one again, and ends the same."""
    folder, content = result
    ran = []
    run = cells.Task.run

    def counted(task, progress=None):
        ran.append(task.cell.name)
        return run(task, progress)

    monkeypatch.setattr(cells.Task, "run", counted)
    monkeypatch.chdir(detector.parent)
    gone = next((folder / "cells").glob("*-frozen-all_gaussian*.json"))
    gone.unlink()
    arguments = {"sigma": [0, 25], "images": 6, "imgsz": 64, "seed": 3, "resamples": 50, "batch": 4}
    again = experts(str(detector), str(detectors / "data.yaml"), **arguments)
    assert ran == [gone.stem]
    assert json.loads(json.dumps(again.as_dict()))["frozen"] == content["frozen"]


def test_drawn_images_keep_their_objects_and_no_others_are_read(detectors, monkeypatch):
    data = str(detectors / "data.yaml")
    whole = evaluation_set(data)
    real, read = images.read_image, []
    monkeypatch.setattr(images, "read_image", lambda file, *channels: read.append(file) or real(file, *channels))
    some = evaluation_set(data, count=4, seed=1)
    assert sorted(read) == some.files
    assert len({*some.files} & {*whole.files}) == 4
    assert [image["id"] for image in some.coco["images"]] == [0, 1, 2, 3]

    def objects(images):
        return {(images.files[a["image_id"]], *a["bbox"]) for a in images.coco["annotations"]}

    assert objects(some) == {each for each in objects(whole) if each[0] in some.files}
    assert evaluation_set(data, count=10, seed=1).fingerprint == whole.fingerprint
    assert len({whole.fingerprint, some.fingerprint, evaluation_set(data, count=4, seed=2).fingerprint}) == 3


@torch.no_grad()
def test_every_kind_of_layer_is_shown(tmp_path):
    """One without experts, one with more than are drawn, one with a single expert, and one that nothing reaches."""
    net = nn.Sequential(fused("DCD"), fused("KWConv"), fused("ODConv", num_experts=1), fused("CondConv"))
    net[2].experts.weight.zero_()  # all that comes of it is its bias
    found, _ = measure(net, measurable(mixing_layers(net)), {}, Given(noisy(2)))
    worth = [Worth("0", condition, Estimate(0.1, -0.1, 0.2)) for condition in chosen_conditions([0, 25], None, None)]
    text = tables(found, worth, {"clean": 0.5})
    assert next(line for line in text if line.startswith("0 ")).split()[1:4] == ["DCD", "none", "-"]
    assert text[-1].split(maxsplit=1) == ["0", "+0.100 [-0.100, +0.200]  +0.100 [-0.100, +0.200]"]
    assert text[-2].split()[-2:] == ["0.500", "-"]
    draw("$x_1$", found, worth, tmp_path / "experts.png")
    assert cv2.imread(str(tmp_path / "experts.png")).shape[0] > 1000


def test_clean_images_alone_and_no_scores(detector, detectors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = experts(str(detector), str(detectors / "data.yaml"), [0], 2, frozen=False, imgsz=64)
    assert [layer.noise for layer in done.layers] == [[], [], []]
    assert done.worth == []
    assert not list((done.folder / "cells").glob("*"))
    assert "noise gain" not in str(done)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("yolov8n.yaml", {}, "model 'best.pt' has no layer that mixes kernels, .* its layers of ours: none"),
        ("", {"model": "yolov8n-sgdm.yaml"}, r"model must be a trained checkpoint \(.pt\), got 'yolov8n-sgdm.yaml'"),
        ("yolov8n-rfaconv.yaml", {}, "its layers of ours: RFAConv"),
        ("yolov8n-sgdm.yaml", {}, "model 'best.pt' and shapes.yaml have other classes: 80 in the model, 7 in the data"),
        ("", {"sigma": [25]}, r"sigma must be a list with 0, the clean images, in it, got \[25\]"),
        ("", {"images": 0}, "images must be at least 1, got 0"),
        ("", {"model": "nowhere.pt"}, "model 'nowhere.pt' does not exist"),
        ("", {"data": "empty.yaml"}, "No images found in .*images"),
    ],
)
def test_bad_input(model, arguments, message, tmp_path, monkeypatch, detector):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "empty.yaml").write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [a]\n")
    if model:
        save(YOLO(model), "best.pt")
    words = {"model": "best.pt" if model else str(detector), "data": "shapes.yaml", "imgsz": 64, "images": 2}
    with pytest.raises(YoloDynError, match=message):
        experts(**{**words, **arguments})
    assert not (tmp_path / "runs").exists()
