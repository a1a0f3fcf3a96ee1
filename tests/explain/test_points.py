"""`yolo-dyn points`: what is drawn is what the layers read, and what they get for it."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from yolo_dyn import YoloDynError, cli, layers
from yolo_dyn.explain.points import points, samplings

MODEL = "yolov8n-sgdm-a2d2c.yaml"


@pytest.fixture
def image(tmp_path):
    file = tmp_path / "image.png"
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    return str(file)


@pytest.mark.parametrize("options", [{}, {"evidence": "input"}, {"sampling": "none"}], ids=str)
def test_the_points_and_weights_are_those_of_the_layer(options):
    torch.manual_seed(0)
    layer = layers.A2D2C(3, 8, 3, 2, num_experts=2, num_points=7, **options)
    net, x = nn.Sequential(layer).eval(), torch.rand(1, 3, 20, 30)
    seen = samplings(net, {"0": layer}, x)[0]
    responses = layer.experts.responses(x)[0].unflatten(0, (2, 8))  # [K, C_out, H', W']
    assert np.allclose(seen.features, responses.mean((0, 1)).detach())
    maps = x.expand(2, -1, -1, -1) if options.get("evidence") == "input" else responses
    means = maps.mean((2, 3))
    if options.get("sampling") != "none":
        columns, rows = ((torch.from_numpy(seen.places) * torch.tensor(maps.shape[:1:-1])).long()).unbind(2)
        means = torch.stack([maps[k][:, rows[k], columns[k]].mean(1) for k in range(2)])
    expected = torch.softmax(torch.relu(layer.router(means)).mean(1), 0).detach()
    assert np.allclose(seen.attention, expected, atol=1e-6)
    layer.fuse(torch.ones(8, 3, 3, 3))
    assert np.allclose(samplings(net, {"0": layer}, x)[0].attention, expected, atol=1e-6)


@pytest.mark.parametrize("model", [MODEL, "resnet18-a2d2cplus-cls.yaml"])
def test_every_layer_is_drawn(model, image, tmp_path, capsys):
    out = tmp_path / "points.png"
    assert cli.main(["points", f"model={model}", f"source={image}", "imgsz=64", f"out={out}"]) == 0
    count = 3 if model == MODEL else 6
    assert f"image.png: {count} of {model}'s layers drawn to {out}" in capsys.readouterr().out
    height, width = cv2.imread(str(out)).shape[:2]
    assert height > 200 * count
    assert width > 200 * 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "yolov8n.yaml"}, "model 'yolov8n.yaml' has no A2D2C layer"),
        ({"layer": ["model.22.dynamic"]}, "layer=model.22.dynamic is no A2D2C layer of .*did you mean"),
        ({"out": "nowhere/points.png"}, "the folder of out=nowhere/points.png does not exist"),
        ({"imgsz": 50}, "imgsz must be a multiple of 32"),
        ({"source": "nowhere.png"}, "nowhere.png"),
    ],
    ids=str,
)
def test_bad_input_is_named(arguments, message, image):
    with pytest.raises(YoloDynError, match=message):
        points(**{"model": MODEL, "source": image, **arguments})
