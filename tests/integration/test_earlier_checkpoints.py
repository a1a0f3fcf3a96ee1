"""Checkpoints of earlier releases, whose rows name no option that was the default then, stay the models they are."""

import copy
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from torch import nn
from ultralytics import YOLO

from yolo_dyn import layers, registry

ROWS = """
nc: 7
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [-1, 1, {row}]
  - [[3], 1, Detect, [nc]]
"""
# today's row that builds what the row beside it built in an earlier release
EARLIER = {
    "SGDM": ("SGDM, [32, {guide: average}]", "SGDM, [32]"),
    "SGDM twice": ("SGDM, [32, {guide: average, ratio: 0.3}]", "SGDM, [32, {ratio: 0.3}]"),
    "A2D2C": ("A2D2C, [32, {evidence: input, router: shared}]", "A2D2C, [32]"),
    "A2D2C inside SGDM": (
        "SGDM, [32, {dynamic: A2D2C, guide: average, evidence: input, router: separate}]",
        "SGDM, [32, {dynamic: A2D2C, router: separate}]",
    ),
    "A2D2C inside a stock block": (
        "C2f, [32, {dynamic: A2D2CPlus, evidence: input, router: shared, num_points: 9}]",
        "C2f, [32, {dynamic: A2D2CPlus, num_points: 9}]",
    ),
}


def aged(model: nn.Module) -> nn.Module:
    """A model with the attributes that its layers had then."""
    for layer in model.modules():
        if isinstance(layer, layers.SGDM):
            layer.__dict__["guided"] = layer.__dict__.pop("kernel_channels")[0]
            del layer.residual
        if isinstance(layer, layers.RDConv):
            del layer.bypass
        if isinstance(layer, layers.A2D2C):
            del layer.evidence, layer.weighting, layer.routing
            layer.__dict__.pop("scale", None)
    return model


@pytest.fixture(scope="module", params=EARLIER)
def earlier(request, tmp_path_factory, tiny) -> Path:
    """The folder of a training that was interrupted in its second epoch, as an earlier release left it."""
    now, then = (ROWS.format(row=row) for row in EARLIER[request.param])
    folder = tmp_path_factory.mktemp("earlier")
    if request.param.endswith("twice"):
        now, then = (text.replace("[-1, 1, SGDM", "[-1, 2, SGDM") for text in (now, then))
    for name, text in (("now.yaml", now), ("then.yaml", then)):
        (folder / name).write_text(text)

    def stop(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    model = YOLO(folder / "now.yaml")
    model.add_callback("on_model_save", stop)
    arguments = {"data": str(tiny), "imgsz": 64, "epochs": 3, "batch": 8, "workers": 0, "plots": False}
    with pytest.raises(KeyboardInterrupt):
        model.train(**arguments, project=str(folder), name="run")
    for name in ("last.pt", "best.pt"):
        file = folder / "run" / "weights" / name
        checkpoint = torch.load(file, weights_only=False)
        for key in ("model", "ema"):
            if checkpoint.get(key) is not None:
                aged(checkpoint[key]).yaml = copy.deepcopy(YOLO(folder / "then.yaml").model.yaml)
        torch.save(checkpoint, file)
    return folder


def output(model: nn.Module) -> torch.Tensor:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return copy.deepcopy(model).float().eval()(x)[0]


def options(model: nn.Module) -> list[tuple[str, ...]]:
    """What the layers of a model are built with that the default of has changed."""
    names = {layers.SGDM: ("guide",), layers.A2D2C: ("evidence", "routing")}
    found = []
    for layer in model.modules():
        for kind, attributes in names.items():
            if isinstance(layer, kind):
                found.append(tuple(getattr(layer, name) for name in attributes))
    return found


def test_the_row_names_nothing_and_today_builds_another_model(earlier):
    assert options(YOLO(earlier / "then.yaml").model) != options(YOLO(earlier / "now.yaml").model)


def test_what_is_loaded_is_what_it_was(earlier):
    best, now = YOLO(earlier / "run" / "weights" / "best.pt").model, YOLO(earlier / "now.yaml").model
    now.load(best, verbose=False)
    assert torch.equal(output(now), output(best))
    assert options(best) == options(now)
    fused = copy.deepcopy(best).float().eval()
    assert torch.allclose(output(fused.fuse(verbose=False)), output(best), atol=1e-2)


def test_its_yaml_names_the_options_from_then_on(earlier):
    best = YOLO(earlier / "run" / "weights" / "best.pt").model
    again = type(best)(copy.deepcopy(best.yaml), nc=7, verbose=False)
    assert options(again) == options(best)
    again.load(best, verbose=False)
    assert torch.equal(output(again), output(best))


def test_val_export_train_and_resume(earlier, tiny, tmp_path):
    shutil.copytree(earlier / "run", tmp_path / "run")
    weights, expected = tmp_path / "run" / "weights", options(YOLO(earlier / "now.yaml").model)
    assert YOLO(weights / "best.pt").val(data=str(tiny), imgsz=64, workers=0, plots=False, project=str(tmp_path)).box
    assert Path(YOLO(weights / "best.pt").export(format="torchscript", imgsz=64)).is_file()

    seen = []
    model = YOLO(weights / "best.pt")  # the stock `yolo train model=best.pt`
    model.add_callback("on_train_start", lambda trainer: seen.append(trainer.model))
    arguments = {"data": str(tiny), "imgsz": 64, "epochs": 1, "batch": 8, "workers": 0, "plots": False}
    model.train(**arguments, project=str(tmp_path), name="on")
    assert options(seen[0]) == expected

    model = YOLO(weights / "last.pt")
    model.add_callback("on_train_start", lambda trainer: seen.append(trainer.model))
    model.train(resume=True)  # in the folder that the interrupted run names
    assert options(seen[1]) == expected
    assert options(YOLO(earlier / "run" / "weights" / "last.pt").model) == expected


BEFORE_THE_ROOMS = "8c07e9b331e4a9dc4b1f23c776aafe862bec1d79"  # the last commit before the package's files moved
ALL_LAYERS = """
nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, RDConv, [16]]
  - [-1, 1, CBAM, [16, {reduction: 4}]]
  - [-1, 1, CoordAtt, [16]]
  - [-1, 1, A2D2C, [16]]
  - [-1, 1, A2D2CPlus, [16]]
  - [-1, 1, CondConv, [16, 3, 2]]
  - [-1, 1, DCD, [16]]
  - [-1, 1, DynamicConv, [16]]
  - [-1, 1, DynamicResidualConv, [16]]
  - [-1, 1, FMDConv, [16, 3, 2]]
  - [-1, 1, ODConv, [16]]
  - [-1, 1, RFAConv, [16]]
  - [-1, 1, C2f, [16, true, {dynamic: ODConv}]]
head:
  - [-1, 1, SGDM, [16]]
  - [-1, 1, SGDM, [16, {dynamic: CondConv}]]
  - [[-1], 1, Detect, [nc]]
"""
SINCE = {"FDConv", "KWConv", "LDConv"}  # layers that came later
SAVE = """
import torch, ultralytics
model = ultralytics.YOLO("all.yaml")
images = torch.rand(2, 3, 64, 64)
model.model.train()(images)
model.save("before.pt")
again = ultralytics.YOLO("before.pt").model.float().eval()
torch.save(again(images)[0].detach(), "expected.pt")
torch.save(images, "images.pt")
"""


@pytest.mark.accept
def test_checkpoints_from_before_the_files_moved_are_what_they_were(tmp_path):
    packed = subprocess.run(["git", "archive", BEFORE_THE_ROOMS], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip("the history of the repository is not here")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(tmp_path / "then", filter="data")
    (tmp_path / "all.yaml").write_text(ALL_LAYERS)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "then")}
    subprocess.run([sys.executable, "-c", SAVE], cwd=tmp_path, env=environment, check=True, capture_output=True)
    images, expected = (torch.load(tmp_path / name) for name in ("images.pt", "expected.pt"))
    model = YOLO(tmp_path / "before.pt").model.float().eval()
    with torch.no_grad():
        assert torch.equal(model(images)[0], expected)
        assert torch.allclose(model.fuse(verbose=False)(images)[0], expected, atol=1e-2)
    known = {*registry.names("convolution"), *registry.names("module")} - SINCE
    assert {type(m).__name__ for m in model.modules()} >= known
