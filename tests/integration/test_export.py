"""Exported models agree with torch: every target, batch sizes and exporters; and a file is whole or not there."""

import copy
import functools
import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from helpers import DETECTORS, ROOT, nano, randomise_around, since, skip_before, unless_the_stock_fails
from torch import nn
from torch.nn import functional as F
from ultralytics import YOLO

from yolo_dyn.deploy.bake import make_static
from yolo_dyn.deploy.runtimes import open_session
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration.exporting import free_batch, prepare
from yolo_dyn.layers import A2D2C

SGDM, ODCONV = "yolov8n-sgdm.yaml", "yolov8n-sgdm-odconv.yaml"
BATCHES = {"one": {}, "eight": {"batch": 8, "simplify": False}, "free": {"dynamic": True}}
SHAPES = {"one": [(1, 640, 640)], "eight": [(8, 640, 640)], "free": [(1, 640, 640), (3, 320, 256), (8, 320, 256)]}
EXPORTED = list(map(nano, DETECTORS))


def cases(cases: Iterable[tuple[str, Any]], *touched: tuple[str, Any]) -> list:
    """Cases of a test; `make test` runs those that are touched, `make accept` all."""
    return [pytest.param(*case, marks=[] if case in touched else pytest.mark.accept) for case in cases]


def lively(name: str) -> YOLO:
    """A model away from its initial state: random statistics, scores spread over (0, 1) that change with the image."""
    return copy.deepcopy(_lively(name))


@functools.lru_cache(maxsize=2)  # tests of one model follow each other
def _lively(name: str) -> YOLO:
    torch.manual_seed(0)
    model = YOLO(name)
    randomise_around(model.model, images(4, 320, 320))
    with torch.no_grad():
        _spread_the_outputs(model.model, images(4, 320, 320))
    return model


def _spread_the_outputs(model: nn.Module, x: torch.Tensor) -> None:
    """Scale the last convolutions of the head to logits of standard deviation 1.5 for classes and 0.5 for boxes."""

    def last(branch: str) -> list[nn.Module]:
        scales = [getattr(model.model[-1], name, None) or () for name in (branch, f"one2one_{branch}")]
        return [convs[-1] for convs in itertools.chain(*scales)]

    boxes, classes = last("cv2"), last("cv3")

    def rescale(module: nn.Module, _: tuple[torch.Tensor], logits: torch.Tensor) -> None:
        module.weight *= (1.5 if module in classes else 0.5) / logits.std()
        if module in classes:
            nn.init.zeros_(module.bias)

    hooks = [module.register_forward_hook(rescale) for module in (*boxes, *classes)]
    model(x)
    for hook in hooks:
        hook.remove()


def by_torch(model: YOLO, images: torch.Tensor) -> np.ndarray:
    """Raw output ``[B, 4 + classes, anchors]`` of the fused model, in the precision of the images."""
    fused = copy.deepcopy(model.model).fuse(verbose=False).eval().to(images.dtype)
    head = fused.model[-1]
    head.export, head.dynamic, head.format = True, True, "onnx"
    with torch.no_grad():
        y = fused(images)
    return (y[0] if isinstance(y, (tuple, list)) else y).numpy()


def agree(found: np.ndarray, expected: np.ndarray, boxes: float = 1e-2, scores: float = 1e-4) -> None:
    assert found.shape == expected.shape
    assert expected[:, 4:].min() < 0.1
    assert expected[:, 4:].max() > 0.9  # else the agreement of the scores would say little
    assert expected[:, 4:].std(2).mean() > 0.05  # over the places of the image
    assert np.abs(found[:, :4] - expected[:, :4]).max() <= boxes  # pixels
    assert np.abs(found[:, 4:] - expected[:, 4:]).max() <= scores


def images(batch: int, height: int, width: int) -> torch.Tensor:
    """Patches of 160, 40 and 10 px that fade into each other, and noise: ``[B, 3, H, W]`` in [0, 1]."""
    generator = torch.Generator().manual_seed(batch)
    x = 0.3 * torch.rand(batch, 3, height, width, generator=generator)
    for patch in (160, 40, 10):
        coarse = torch.rand(batch, 3, -(-height // patch), -(-width // patch), generator=generator)
        x += F.interpolate(coarse, (height, width), mode="bilinear")
    return x / x.amax()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, since the stock export of a YAML writes there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "batch"),
    cases(itertools.product(EXPORTED, BATCHES), (SGDM, "one"), (SGDM, "free")),
)
def test_onnx_agrees_with_torch(name, batch, here):
    model = lively(name)
    session = onnxruntime.InferenceSession(model.export(format="onnx", imgsz=640, **BATCHES[batch]))
    for shape in SHAPES[batch]:
        x = images(*shape)
        expected = by_torch(model, x)
        agree(session.run(None, {"images": x.numpy()})[0], expected)


def newer_export(model: YOLO, free: bool) -> torch.onnx.ONNXProgram:
    """By torch's exporter that does not trace, at a batch of 2 or a free one."""
    network = copy.deepcopy(model.model).fuse(verbose=False).eval()
    network.model[-1].export, network.model[-1].format = True, "onnx"
    network.model[-1].dynamic = free
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if free else None
    x = images(2, 320, 320)
    with torch.no_grad():
        network(x)
        return torch.onnx.export(network, (x,), dynamo=True, dynamic_shapes=shapes, verbose=False)


@pytest.mark.parametrize(("name", "free"), cases(itertools.product(EXPORTED, [False, True])))
def test_the_newer_exporter_of_torch_agrees_too(name, free, here):
    model = lively(name)
    program = unless_the_stock_fails(
        lambda: newer_export(model, free), lambda: newer_export(YOLO("yolov8n.yaml"), free)
    )
    program.save("newer.onnx")
    session = onnxruntime.InferenceSession("newer.onnx")
    for size in (1, 2, 5) if free else (2,):
        x = images(size, 320, 320)
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        expected = by_torch(model, x)
        agree(found, expected)


TRACED = (SGDM, ODCONV, "yolov8n-sgdm-fdconv.yaml", "yolov8n-sgdm-kwconv.yaml", "yolov8n-ldconv.yaml")


@pytest.mark.parametrize(("name", "free"), cases(itertools.product(TRACED, [False, True]), (SGDM, False), (SGDM, True)))
def test_torchscript_agrees_with_torch(name, free, here):
    model = lively(name)
    words = {"format": "torchscript", "imgsz": 320, **({"dynamic": True} if free else {})}
    session = open_session(
        unless_the_stock_fails(lambda: model.export(**words), lambda: YOLO("yolov8n.yaml").export(**words)), 2
    )
    for size in (1, 3) if free else (1,):
        agree(session(images(size, 320, 320).numpy()), by_torch(model, images(size, 320, 320)))


RUNTIMES = {
    "openvino": ("8.3.80", "way to export to an OpenVINO of today"),
    "ncnn": ("8.3.226", "way to export to NCNN without a download"),
}
KINDS = ("cbam", "sgdm-dcd", "sgdm-a2d2c", "sgdm-a2d2cplus", "sgdm-fdconv", "sgdm-kwconv", "ldconv")
OTHER = (SGDM, ODCONV, *(f"yolov8n-{name}.yaml" for name in KINDS))


@pytest.mark.parametrize(("name", "target"), cases(itertools.product(OTHER, ["openvino", "ncnn"]), (SGDM, "openvino")))
def test_other_runtimes_agree_with_torch(name, target, here):
    skip_before(*RUNTIMES[target])
    model = lively(name)
    session = open_session(model.export(format=target, imgsz=320), 2)
    x = images(1, 320, 320)
    agree(session(x.numpy()), by_torch(model, x), 0.1, 1e-3)


CLASSIC = (SGDM, "yolov8n-sgdm-a2d2c.yaml")  # what OpenCV 4 reads, of these
OPENCV_5 = hasattr(cv2.dnn, "ENGINE_NEW")


def by_the_older_opencv(file: Path, x: torch.Tensor) -> np.ndarray:
    """By the only engine before OpenCV 5, which would end this process at a computed kernel."""
    network = cv2.dnn.readNetFromONNX(str(file), *([cv2.dnn.ENGINE_CLASSIC] if OPENCV_5 else []))
    network.setInput(x.numpy())
    return network.forward()


@pytest.mark.parametrize(
    ("name", "form"), cases(itertools.product(OTHER, ["kernel", "unfold"]), (SGDM, "kernel"), (SGDM, "unfold"))
)
def test_opencv_agrees_with_torch(name, form, here):
    if form == "kernel" and not OPENCV_5:
        pytest.skip("OpenCV 5 takes computed kernels")
    if name not in CLASSIC and not OPENCV_5:
        pytest.skip("OpenCV 5 reads all layers")
    model, x = lively(name), images(1, 320, 320)
    file = Path(model.export(format="onnx", imgsz=320, form=form)).rename("model-opencv.onnx")
    agree(open_session(file, 1)(x.numpy()), by_torch(model, x), 2e-3)
    if form == "unfold" and name in CLASSIC:
        agree(by_the_older_opencv(file, x), by_torch(model, x), 2e-3)


BAKED = (SGDM, ODCONV, "yolov8n-sgdm-dcd.yaml", "yolov8n-kwconv.yaml", "yolov8n-sgdm-fdconv.yaml")
TARGETS = ("onnx", "torchscript", "openvino", "ncnn")


@pytest.mark.parametrize(("name", "target"), cases(itertools.product(BAKED, TARGETS), (ODCONV, "ncnn")))
def test_a_baked_model_agrees_with_torch_as_a_stock_one_does(name, target, here):
    if target in RUNTIMES:
        skip_before(*RUNTIMES[target])
    model, x = lively(name), images(1, 320, 320)
    static, _ = make_static(model.model.eval().fuse(verbose=False), iter([images(2, 320, 320)]))
    assert len(static) >= 3
    file, expected = model.export(format=target, imgsz=320), by_torch(model, x)
    agree(open_session(file, 2)(x.numpy()), expected, 2e-3)
    if target == "onnx":
        file = Path(file).rename("model-opencv.onnx")
        if OPENCV_5:
            agree(open_session(file, 1)(x.numpy()), expected, 2e-3)
        if "fdconv" not in name:  # the bands of its input, which are no kernels, end the process there
            agree(by_the_older_opencv(file, x), expected, 2e-3)


@pytest.mark.parametrize("name", [SGDM, ODCONV, "yolov8n-sgdm-fdconv.yaml"])
def test_what_takes_no_dynamic_convolution_takes_a_baked_one(name):
    net = YOLO(name).model.eval().fuse(verbose=False)
    words = SimpleNamespace(format="paddle", dynamic=False)
    exporter = SimpleNamespace(model=net, args=words, export_paddle=None)
    with pytest.raises(YoloDynError, match="format=paddle"):
        prepare(exporter)
    make_static(net, iter([images(1, 64, 64)]))
    prepare(exporter)


@pytest.mark.accept
def test_opencv_takes_any_batch(here):
    if not OPENCV_5:
        pytest.skip("OpenCV 5 takes free sizes")
    model = lively(SGDM)
    session = open_session(Path(model.export(format="onnx", imgsz=320, dynamic=True)).rename("a-opencv.onnx"), 1)
    for x in (images(1, 320, 320), images(3, 320, 256)):
        agree(session(x.numpy()), by_torch(model, x), 2e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"format": "onnx", "form": "conv"},
            "form is for exports, and is one of kernel, unfold; got 'conv' for export",
        ),
        (
            {"format": "onnx", "form": "kernel", "dynamic": True},
            "form=kernel: onnx with dynamic=True takes no computed",
        ),
        (
            {"format": "saved_model", "form": "kernel"},
            "form=kernel: saved_model takes no computed kernels; accepted here: unfold",
        ),
        (
            {"format": "paddle"},
            "format=paddle: its converter, x2paddle, reads neither form of a dynamic convolution",
        ),
    ],
)
def test_a_form_that_cannot_be(words, message, here):
    with pytest.raises(YoloDynError, match=message):
        YOLO(SGDM).export(imgsz=64, **words)
    assert not list(here.glob("*.onnx"))


def test_dynamic_quantisation_by_onnx_runtime_takes_the_unfold_form(here):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = lively(SGDM)
    file = model.export(format="onnx", imgsz=320, form="unfold")
    quantize_dynamic(file, "a-eight-bits.onnx", weight_type=QuantType.QUInt8)
    x = images(1, 320, 320)
    agree(open_session("a-eight-bits.onnx", 1)(x.numpy()), by_torch(model, x), boxes=16, scores=0.1)


@since(*RUNTIMES["openvino"])
def test_openvino_takes_any_batch(here):
    model = lively(SGDM)
    session = open_session(model.export(format="openvino", imgsz=320, dynamic=True), 2)
    for x in (images(1, 320, 320), images(3, 320, 256)):
        agree(session(x.numpy()), by_torch(model, x), 0.1, 1e-3)


@since("8.4.80", "export in half precision on the CPU")
def test_half_precision_agrees_roughly(here):
    model = lively(SGDM)
    x = images(1, 320, 320)
    session = open_session(model.export(format="onnx", imgsz=320, quantize=16), 2)
    agree(session(x.numpy()), by_torch(model, x), boxes=4, scores=0.05)  # of 320 px; ten bits of mantissa


@since("8.3.67", "suppression inside an exported graph")
def test_suppression_inside_the_graph(here):
    model = lively(SGDM)
    x = images(1, 320, 320)
    found = open_session(model.export(format="onnx", imgsz=320, nms=True, conf=0.5, max_det=50), 2)(x.numpy())
    assert found.shape == (1, 50, 6)
    kept = found[0][found[0, :, 4] > 0]
    assert len(kept) == 50
    raw = by_torch(model, x)[0]
    centres = (kept[:, :2] + kept[:, 2:4]) / 2
    distance = np.abs(raw[:2, :, None] - centres.T[:, None]).max(0)  # [anchors, 50]
    assert distance.min(0).max() < 0.1  # each is one of the network's boxes
    assert np.isclose(kept[:, 4].max(), raw[4:].max(), atol=1e-4)


@since("8.4.80", "ONNX of eight bits")
@pytest.mark.accept
@pytest.mark.parametrize("name", [SGDM, ODCONV])
def test_eight_bits_run_and_stay_near(name, here, tiny):
    model = lively(name)
    session = open_session(model.export(format="onnx", imgsz=160, quantize=8, data=str(tiny)), 2)
    assert list(here.glob("*.onnx")) == [here / f"{Path(name).stem}_int8.onnx"]
    x = images(1, 160, 160)
    found, expected = session(x.numpy()), by_torch(model, x)
    assert np.corrcoef(found[:, 4:].ravel(), expected[:, 4:].ravel())[0, 1] > 0.8


def test_exporting_changes_nothing_in_memory(here):
    model = lively(SGDM)
    x = images(2, 64, 64)

    def state() -> tuple[list[torch.Tensor], list[str], list[torch.Tensor]]:
        network = copy.deepcopy(model.model).train().requires_grad_()
        y = network(x)
        y = y.values() if isinstance(y, dict) else y  # a dict of maps, earlier a list
        sum(v.square().mean() for v in y if isinstance(v, torch.Tensor)).backward()
        forms = [module.form for module in model.model.modules() if hasattr(module, "form")]
        return [p.detach() for p in network.state_dict().values()], forms, [p.grad for p in network.parameters()]

    before = state()
    model.export(format="onnx", imgsz=64, dynamic=True)
    after = state()
    assert before[1] == after[1] == ["kernel"] * 3
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(before[2], after[2], strict=True))


def test_a_half_written_export_leaves_the_good_file(here, monkeypatch):
    good = Path(lively(SGDM).export(format="onnx", imgsz=64))
    content = good.read_bytes()

    def stops(model, images, file, **_):
        Path(file).write_bytes(b"half")
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("torch.onnx.export", stops)
    with pytest.raises(RuntimeError, match="the disk is full"):
        lively(SGDM).export(format="onnx", imgsz=64)
    assert good.read_bytes() == content
    assert [file.name for file in here.iterdir()] == [good.name]


@since(*RUNTIMES["openvino"])
def test_an_export_replaces_the_one_before_it_and_the_log_names_it(here, log):
    model = lively(SGDM)
    for _ in range(2):
        folder = Path(model.export(format="openvino", imgsz=64))
    assert [file.name for file in here.iterdir()] == [folder.name] == ["yolov8n-sgdm_openvino_model"]
    assert {file.suffix for file in folder.iterdir()} == {".xml", ".bin", ".yaml"}
    assert any("export success" in line and str(folder) in line for line in log)
    assert not any("-export-" in line for line in log)


def test_a_layer_that_a_format_cannot_take_is_named(here):
    class Dice(A2D2C):
        def cannot_export(self, target):
            return f"{target} has no dice"

    model = YOLO("yolov8n-sgdm-a2d2c.yaml")
    for layer in model.model.modules():
        if type(layer) is A2D2C:
            layer.__class__ = Dice
    with pytest.raises(YoloDynError, match="Dice cannot be exported to ncnn: ncnn has no dice"):
        model.export(format="ncnn", imgsz=64)
    assert not list(here.iterdir())


def test_a_missing_runtime_names_the_extra(here, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else find(name))
    monkeypatch.setattr("ultralytics.utils.AUTOINSTALL", False)
    with pytest.raises(YoloDynError, match=r"format=openvino needs openvino: pip install 'yolo-dyn\[export\]'"):
        YOLO(SGDM).export(format="openvino", imgsz=64)
    monkeypatch.setitem(sys.modules, "ncnn", None)
    (here / "a_ncnn_model").mkdir()
    with pytest.raises(YoloDynError, match=r"file of this format needs ncnn: pip install 'yolo-dyn\[export\]'"):
        open_session("a_ncnn_model", 1)


def test_what_no_runtime_opens_is_named(here):
    Path("a.engine").touch()
    with pytest.raises(YoloDynError, match=r"a.engine: no runtime for it \(known: -opencv.onnx, .onnx, _openvino"):
        open_session("a.engine", 1)
    with pytest.raises(YoloDynError, match=r"b.onnx does not exist"):
        open_session("b.onnx", 1)


def test_stock_models_are_exported_by_the_stock_exporter_alone(here):
    seen = []
    model = YOLO("yolov8n.yaml")
    model.add_callback("on_export_end", lambda exporter: seen.append(vars(exporter)))
    model.export(format="onnx", imgsz=64)
    assert "export_onnx" not in seen[0]
    ours = YOLO(SGDM)
    ours.add_callback("on_export_end", lambda exporter: seen.append(vars(exporter)))
    ours.export(format="onnx", imgsz=64)
    assert "export_onnx" in seen[1]


def test_a_trace_of_ones_own_can_free_the_batch(here):
    network = copy.deepcopy(lively(SGDM).model).fuse(verbose=False).eval()
    free_batch(network)
    assert {module.form for module in network.modules() if hasattr(module, "form")} == {"unfold"}


def test_the_script_of_the_manual_runs_without_this_package_and_torch(here):
    manual = (ROOT / "docs/edge.md").read_text(encoding="utf-8")
    script = manual.split("```python\n")[1].split("```")[0]
    assert len(script.splitlines()) < 40
    model = lively(SGDM)
    file = model.export(format="onnx", imgsz=[256, 320])
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    cv2.imwrite("image.png", image)
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'yolo_dyn', 'ultralytics')))\n"
    Path("detect.py").write_text(blocked + script, encoding="utf-8")
    done = subprocess.run([sys.executable, "detect.py", file, "image.png"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stock = YOLO(file, task="detect").predict("image.png", imgsz=[256, 320], conf=0.25, max_det=9999, verbose=False)[0]
    found = [line.split(": ") for line in done.stdout.splitlines()]
    assert len(found) == len(stock.boxes) > 50
    for (what, where), box in zip(found[:50], stock.boxes[:50], strict=True):
        x, y, w, h = (float(word) for word in where.replace(" x ", ", ").split(", "))
        assert what == f"{stock.names[int(box.cls)]} {float(box.conf):.2f}"
        corners = np.clip([x, y, x + w, y + h], 0, [300, 200, 300, 200])  # as the stock predictor does
        # two numbers in whole pixels; the stock predictor enlarges by 320 / 300, this by what the pixels came to
        assert np.allclose(corners, box.xyxy[0], atol=1 + 200 * (1 - 213 / (200 * 320 / 300)))
