"""The training script of docs/torchvision.md: it runs on real photos; its targets, and its scores, are right."""

import argparse
import runpy

import numpy as np
import pytest
import torch
from helpers import ROOT
from torch import nn
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes

from yolo_dyn.backbones.detectors import mask_rcnn


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    manual = (ROOT / "docs" / "torchvision.md").read_text(encoding="utf-8")
    text = next(block for block in manual.split("```python\n") if block.startswith("import argparse")).split("```")[0]
    assert len(text.splitlines()) < 85
    file = tmp_path_factory.mktemp("script") / "train.py"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.accept
@pytest.mark.parametrize("amp", [0, 1])
def test_the_documented_script_trains_and_evaluates(amp, script, photos, command):
    words = "--backbone dmf-xxs --device cpu --epochs 2 --batch 1 --size 64 --images 1 --workers 0 --every 1"
    folder = str(photos / "coco-tiny")
    done = command("python", str(script), folder, *words.split(), "--amp", str(amp), cwd=script.parent)
    assert "epoch 0, temperatures {'DynamicResidualConv': 30.0}" in done.stdout
    assert "epoch 1, temperatures {'DynamicResidualConv': 27.1}" in done.stdout
    steps = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(steps) == 2
    values = [float(part.split()[1]) for line in steps for part in line.partition(": ")[2].split(", ")]
    assert len(values) == 10
    assert np.isfinite(values).all()
    scored = done.stdout.count("Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all")  # boxes and masks
    assert scored in (0, 2)  # after two steps from random weights it may find nothing
    state = torch.load(script.parent / "last.pth")
    mask_rcnn("dmf-xxs", 91).load_state_dict(state)


class Recorder(nn.Module):
    """In place of a detector: it keeps the targets in training, and finds what it is told to."""

    def __init__(self, found=()):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen, self.found = [], iter(found)

    def forward(self, images, targets=None):
        if targets is None:
            return [next(self.found)]
        self.seen += zip(images, targets, strict=True)
        return {"loss": self.scale * 1}


def arguments(script, photos, **given) -> tuple[dict, argparse.Namespace]:
    folder = photos / "coco-tiny"
    files = f"{folder}/images/{{}}", f"{folder}/annotations/instances_{{}}.json"
    defaults = {"files": files, "backbone": "dmf-s", "weights": "", "device": "cpu", "epochs": 1, "batch": 2, "amp": 0}
    return runpy.run_path(str(script)), argparse.Namespace(**{**defaults, "workers": 0, "every": 1, **given})


def test_the_targets_of_the_documented_script(script, photos, tmp_path, monkeypatch):
    """Boxes fit their masks, flipped or not; no crowd and no image without boxes is among them."""
    monkeypatch.chdir(tmp_path)
    functions, args = arguments(script, photos, images=12)
    model = Recorder()
    functions["train"](model, args)
    assert len(model.seen) == 12
    for image, target in model.seen:
        assert image.dtype == torch.float32
        assert 0 <= image.min() <= image.max() <= 1
        assert len(target["boxes"]) == len(target["labels"]) == len(target["masks"]) > 0
        assert target["masks"].shape[1:] == image.shape[1:]
        boxes = masks_to_boxes(target["masks"]) + torch.tensor([0, 0, 1, 1])
        distances = (boxes - torch.as_tensor(target["boxes"])).abs().amax(1)
        assert distances.median() < 2  # annotators' boxes and polygons differ by little, a flipped mask by much


def test_the_scores_of_the_documented_script(script, photos, capsys):
    """What finds the truth itself scores 1, boxes and masks."""
    functions, args = arguments(script, photos, images=6)
    data = functions["CocoDetection"](*(path.format("val2017") for path in args.files))
    wrapped = functions["wrap_dataset_for_transforms_v2"](data, ("boxes", "labels", "masks"))
    truth = []
    for i in range(6):
        _, target = wrapped[i]
        crowd = torch.tensor([bool(one["iscrowd"]) for one in data[i][1]])
        found = {key: torch.as_tensor(value)[~crowd] for key, value in target.items()}
        assert isinstance(target["masks"], tv_tensors.Mask)
        truth.append({**found, "masks": found["masks"][:, None].float(), "scores": torch.ones(len(found["labels"]))})
    functions["evaluate"](Recorder(truth), args)
    shown = capsys.readouterr().out
    assert shown.count("(AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000") == 2
