"""`yolo classify train` with the bundled classifiers: train, resume, fuse, validate, predict, export."""

import copy
import json

import numpy as np
import onnxruntime
import pytest
import torch
from helpers import CLASSIFIERS, ROOT, logits_of, older, randomise_around, save
from torch import nn
from ultralytics import YOLO

from yolo_dyn import YoloDynError, registry
from yolo_dyn.explain.cam import cam
from yolo_dyn.layers.blocks import ConvNormAct
from yolo_dyn.study.run import study

STATIC = ("mobilenetv2-cls.yaml", "resnet18-cls.yaml", "resnet50-cls.yaml")


@pytest.mark.accept
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_trains_resumes_fuses_validates_and_exports(name, colours, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = YOLO(ROOT / "models_yaml" / name)
    assert model.task == "classify"
    words = {"data": str(colours), "imgsz": 64, "batch": 8, "workers": 0, "plots": False, "project": str(tmp_path)}

    def interrupt(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    model.add_callback("on_train_epoch_start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.train(epochs=2, name="run", **words)
    YOLO(tmp_path / "run" / "weights" / "last.pt").train(resume=True)
    weights = tmp_path / "run" / "weights" / "best.pt"
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 3
    best = YOLO(weights)
    kinds = (*registry.all_layers("convolution").values(), *(() if name in STATIC else (ConvNormAct,)))
    assert any(isinstance(m, kinds) for m in best.model.modules()) == (name not in STATIC)
    network = randomise_around(best.model.double(), torch.rand(8, 3, 64, 64).double(), least=0.1)
    images = torch.rand(2, 3, 64, 64).double() * torch.tensor([0.3, 1]).view(2, 1, 1, 1)
    expected = logits_of(network, images)
    # a random MobileNetV2 hardly tells images apart, so fusing must be far more exact than they differ
    assert (expected[0] - expected[1]).abs().max() > 1e-10
    fused = copy.deepcopy(network).fuse(verbose=False)
    ours = [m for m in registry.in_model(fused) if not type(m).__name__.startswith("Torchvision")]
    inside = [m for layer in ours for m in layer.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert not inside
    assert torch.allclose(logits_of(fused, images), expected, rtol=0, atol=1e-12)
    best.model.float()
    assert len(best.names) == 2
    best.val(data=str(colours), imgsz=64, workers=0, plots=False)
    weights = tmp_path / "randomised.pt"  # two steps of training leave statistics far from those of images
    best.save(weights)
    file = YOLO(weights).export(format="onnx", imgsz=64, dynamic=True, simplify=False)
    session = onnxruntime.InferenceSession(file)
    for batch in (1, 3):
        images = torch.rand(batch, 3, 64, 64)
        by_torch = logits_of(YOLO(weights).model.float().eval().fuse(verbose=False), images).softmax(1).detach().numpy()
        assert np.abs(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0] - by_torch).max() < 1e-4


@pytest.mark.parametrize("name", ["dmf-xxs-cls.yaml", "resnet18-odconv-cls.yaml"])
def test_heat_of_a_classifier(name, colours, tmp_path):
    file = tmp_path / "model.pt"
    save(YOLO(ROOT / "models_yaml" / name), file)
    picture = tmp_path / "out" / "heat" / "cam.png"
    line = cam([str(file)], str(colours / "val" / "red"), count=1, imgsz=64, name="heat", project=str(tmp_path / "out"))
    assert "0.png" in line
    assert picture.is_file()
    with pytest.raises(YoloDynError, match="model 'model' at imgsz=32: the map has a single position"):
        cam([str(file)], str(colours / "val" / "red"), imgsz=32, project=str(tmp_path / "out"))


def test_a_study_of_classifiers(colours, tmp_path, monkeypatch):
    """The scores of the best epoch, then the seconds of an epoch, which IES and RCS follow from."""
    fast = {"imgsz": 32, "epochs": 1, "batch": 8, "workers": 0, "plots": False}
    words = {"data": str(colours), "arms": ["resnet18"], "project": str(tmp_path), **fast}
    study("cifar10", **words)
    file = tmp_path / "results" / "resnet18-seed0.json"
    before = file.read_bytes()
    study("cifar10", **words)
    assert file.read_bytes() == before
    assert "resnet18-condconv (seeds 0)" in (tmp_path / "page.md").read_text()
    monkeypatch.setattr("yolo_dyn.study.timing.EPOCH_ROUNDS", 1)
    if older("8.3.9"):
        with pytest.raises(YoloDynError, match=r"seconds=True needs Ultralytics 8\.3\.9"):
            study("cifar10", seconds=True, **words)
        return
    study("cifar10", seconds=True, **words)
    seconds = json.loads((tmp_path / "results" / "timing.json").read_text())["epoch"]["seconds"]["resnet18"]
    row = next(
        line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith("| resnet18 | static")
    )
    top1 = json.loads(before)["scores"]["top1"]
    assert f"| {seconds:.1f} | {seconds / top1:.1f} | {top1 * 16 / seconds:.1f} |" in row


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere/pictures", "data=.*nowhere/pictures is no folder of pictures by class"),
        ("empty", "data=.*empty has no folder 'train'"),
        ("train_only", "data=.*train_only has no folder 'val' or 'test'"),
    ],
)
def test_data_of_a_study_that_are_no_pictures_by_class(data, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "train_only" / "train").mkdir(parents=True)
    with pytest.raises(YoloDynError, match=message):
        study("cifar10", data=str(tmp_path / data), project=str(tmp_path / "runs"))
