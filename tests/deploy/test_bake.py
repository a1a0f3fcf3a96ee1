"""Baking: the mean of the mixed kernels in static convolutions, exact where all images ask for the same kernel."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import CONVOLUTIONS, build, randomise, randomise_around, save
from torch import nn
from ultralytics import YOLO

from yolo_dyn import YoloDynError, registry
from yolo_dyn.cli import main
from yolo_dyn.data import shapes
from yolo_dyn.deploy.bake import bake, make_static
from yolo_dyn.layers import DMFBlock, FDConv, Former, GlobalTokens, KWConv, RDConv
from yolo_dyn.layers.protocol import Bakes, MixesKernels

MIXING = [name for name in CONVOLUTIONS if hasattr(registry.require(name), "mixed")]
MODELS = ("yolov8n-sgdm", "yolov8n-sgdm-dcd", "yolov8n-sgdm-odconv", "yolov8n-fdconv", "yolov8n-kwconv")
MORE = tuple(f"yolov8n-sgdm-{name}" for name in ("a2d2c", "a2d2cplus", "condconv", "dynamicconv", "fmdconv", "kwconv"))


def test_all_convolutions_but_two_mix_kernels():
    assert set(CONVOLUTIONS) - set(MIXING) == {"LDConv", "RFAConv"}


def fused(name: str, **options) -> nn.Module:
    layer = build(name, 8, **options)
    randomise(layer)
    layer.eval().fuse()
    return layer


@pytest.mark.parametrize("options", [{}, {"kernel_size": 1}, {"out_channels": 12, "stride": 2}, {"groups": 2}], ids=str)
@pytest.mark.parametrize("name", MIXING)
@torch.no_grad()
def test_the_mixed_kernel_is_what_each_sample_is_convolved_with(name, options):
    if options.get("groups") and name in ("DCD", "FDConv"):
        pytest.skip("takes no groups")
    layer, x = fused(name, **options).double(), torch.randn(3, 8, 9, 7, dtype=torch.float64)
    kernels, biases = layer.mixed(x)
    read, geometry = x, layer.geometry if isinstance(layer, MixesKernels) else (layer.stride, layer.padding, 1, 1)
    if isinstance(layer, FDConv):
        read = layer.banded(x)
    for i, y in enumerate(layer(x)):
        bias = biases if biases is None or biases.ndim == 1 else biases[i]
        assert torch.allclose(F.conv2d(read[i], kernels[i], bias, *geometry), y, atol=1e-9)


@pytest.mark.parametrize("name", ["ODConv", "DCD", "KWConv", "FDConv"])
@torch.no_grad()
def test_the_kernel_that_is_kept_is_the_mean_over_images(name):
    """Of batches of unlike size, each image counting once."""
    layer, x = fused(name).double(), torch.randn(5, 8, 9, 7, dtype=torch.float64)
    expected = torch.stack([layer.mixed(image[None])[0][0] for image in x]).mean(0)
    net = nn.Sequential(layer)
    static, kept = make_static(net, iter([x[:2], x[2:]]))
    assert static == ["0"]
    assert torch.allclose(net[0].weight, expected, atol=1e-12)
    assert list(kept) == (["0"] if name == "FDConv" else [])
    assert (type(net[0]) is nn.Conv2d) == (name != "FDConv")


@torch.no_grad()
def test_rdconv_keeps_its_gate():
    layer, x = fused("RDConv").double(), torch.randn(3, 8, 9, 7, dtype=torch.float64)
    net = nn.Sequential(layer)
    expected = layer(x[:1])
    make_static(net, iter([x[:1]]))
    assert isinstance(net[0], RDConv)
    assert torch.allclose(net(x[:1]), expected, atol=1e-12)
    assert not any("attention" in name for name, _ in net.named_parameters())


@torch.no_grad()
def test_a_block_that_looks_at_a_token_takes_static_convolutions():
    net = nn.Sequential(randomise(DMFBlock([16, 32], 24, 48, stride=2)).eval())
    net[0].fuse()
    x = [torch.rand(1, 16, 12, 12), torch.rand(1, 6, 32)]
    expected = net(x)
    static, _ = make_static(net, iter([x]))
    assert len(static) == 3
    assert torch.allclose(net(x), expected, atol=1e-5)


def lively(name: str) -> nn.Module:
    """In double precision, in which outputs of untrained attention differ by far more than they are rounded by."""
    torch.manual_seed(0)
    model = YOLO(f"{name}.yaml").model
    for parameter in model.parameters():
        parameter[parameter == 0] = 0.1  # experts that start at zero, whose attention would count for nothing
    return randomise_around(model, torch.rand(4, 3, 96, 128)).double().fuse(verbose=False)


def baked_on(model: nn.Module, x: torch.Tensor) -> tuple[nn.Module, list[str]]:
    model = copy.deepcopy(model)
    static, _ = make_static(model, iter([x]))
    return model, static


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("name", [*MODELS, *(pytest.param(name, marks=pytest.mark.accept) for name in MORE)])
@torch.inference_mode()
def test_a_model_baked_on_one_image_gives_what_it_gave_for_it(name):
    """With SGDM's guide in the kernels, and warehouses that layers share; baked on another image it does not."""
    model, x = lively(name), torch.rand(1, 3, 96, 128).double()
    expected = model(x)[0]
    baked, static = baked_on(model, x)
    assert len(static) >= 3
    assert apart(baked(x)[0], expected) < 1e-12
    assert apart(baked_on(model, x**3)[0](x)[0], expected) > 1e-8
    assert apart(baked.fuse(verbose=False)(x)[0], expected) < 1e-12  # as whatever opens the checkpoint does
    left = [m for m in baked.modules() if isinstance(m, MixesKernels | KWConv)]
    assert not left
    assert all(m.baked for m in baked.modules() if isinstance(m, Bakes))


@pytest.mark.parametrize(("name", "left"), [("yolov8n-dmf-xxs", 0), ("dmf-xxs-cls", 13)])
@torch.inference_mode()
def test_tokens_that_only_kernels_looked_at_are_left_out(name, left):
    """NCNN's converter follows every path of what nothing reads: for 11 blocks that looked at tokens, without end."""
    model, x = lively(name), torch.rand(1, 3, 96, 128).double()
    expected = model(x)[0]
    baked, _ = baked_on(model, x)
    assert apart(baked(x)[0], expected) < 1e-12
    assert apart(baked_on(model, x**3)[0](x)[0], expected) > 1e-8
    assert sum(isinstance(m, Former | GlobalTokens) for m in baked.modules()) == left


@pytest.fixture(scope="module")
def baked(detectors, random_detector, tmp_path_factory):
    """A YOLOv8n with ODConv in SGDM, baked by the command over images of several sizes."""
    folder = tmp_path_factory.mktemp("bake")
    model = YOLO("yolov8n-sgdm-odconv.yaml")
    model.model = random_detector("yolov8n-sgdm-odconv.yaml", dict(enumerate(shapes.NAMES)))
    save(model, folder / "best.pt")
    words = [f"model={folder / 'best.pt'}", f"data={detectors / 'data.yaml'}", "images=6", "batch=4", "imgsz=64"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["bake", *words]) == 0
    return folder


def test_the_command_writes_a_static_checkpoint_and_compares(baked, capsys):
    model = YOLO(baked / "best-baked.pt").model
    assert not any(isinstance(m, MixesKernels) for m in model.modules())
    assert list((baked / "runs").rglob("report.html"))
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        first, second = model.float().eval()(x)[0], model.fuse(verbose=False)(x)[0]
    assert torch.equal(first, second)  # it is fused already
    results = json.loads(next((baked / "runs").rglob("results.json")).read_text())
    scores = {(cell["model"], cell["sigma"]): cell["AP"] for cell in results["cells"]}
    assert set(scores) == {(name, sigma) for name in ("best", "best-baked") for sigma in (0, 25)}
    assert scores["best", 0] > 0


def test_a_baked_model_is_exported_like_a_stock_one(baked):
    file = YOLO(baked / "best-baked.pt").export(format="onnx", imgsz=64, simplify=False, verbose=False)
    onnxruntime = pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    with torch.inference_mode():
        expected = YOLO(baked / "best-baked.pt").model.float().eval()(torch.from_numpy(x))[0].numpy()
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-3)
    computed = {node.op_type for node in pytest.importorskip("onnx").load(file).graph.node} & {"Softmax", "ReduceMean"}
    assert computed <= {"Softmax"}  # of the head


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (
            "yolov8n.yaml",
            {},
            "model 'best.pt' has no convolution that mixes kernels, to be baked; its layers of ours: none",
        ),
        ("yolov8n-rfaconv.yaml", {}, "its layers of ours: RFAConv"),
        ("yolov8n-sgdm.yaml", {"out": "x.yaml"}, r"out must name a .pt file, got 'x.yaml'"),
        ("yolov8n-sgdm.yaml", {"out": "sub/x.pt"}, r"the folder of out=sub/x.pt does not exist"),
        ("yolov8n-sgdm.yaml", {}, "model 'best.pt' and shapes.yaml have other classes: 80 in the model, 7 in the data"),
        ("yolov8n-sgdm.yaml", {"model": "yolov8n-sgdm.yaml"}, "'yolov8n-sgdm.yaml' is a YAML, without weights"),
        ("yolov8n-sgdm.yaml", {"images": 0}, "images must be at least 1, got 0"),
        ("yolov8n-sgdm.yaml", {"out": "best.pt"}, r"best.pt exists; exist_ok=True replaces it"),
    ],
)
def test_bad_input(model, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(YOLO(model), "best.pt")
    with pytest.raises(YoloDynError, match=message):
        bake(**{"model": "best.pt", "data": "shapes.yaml", "imgsz": 64, "images": 2, **arguments})
    assert [path.name for path in Path().iterdir()] == ["best.pt"]
