"""Layers anywhere in a model: where they go, what reads them, and stock rows with a dynamic convolution."""

import copy
from pathlib import Path

import pytest
import torch
import ultralytics
import yaml
from helpers import older
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks

from yolo_dyn import YoloDynError, insert
from yolo_dyn.integration.insertion import insert_rows
from yolo_dyn.integration.trained import tensors
from yolo_dyn.layers import SGDM, ODConv
from yolo_dyn.layers.gate import Gated

STOCK = {file.stem: file for file in sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml"))}
OF_HEAD = 6 if older("8.3.17") else 12  # convolutions of YOLOv8's Detect larger than 1x1 that are not depthwise
QUICK = ("yolov5", "yolov8-seg", "yolov8-cls", "yolov9t", "yolov10n", "yolo11-pose", "yolo26-obb")
YOLOV8 = yaml.safe_load(STOCK["yolov8"].read_text())


def rows_of(text: str) -> list:
    content = yaml.safe_load(text)
    return content["backbone"] + content["head"]


def built(text: str, scale: str = "n") -> tuple[nn.Sequential, list[int]]:
    """The rows of a model, without storage."""
    with torch.device("meta"):
        return tasks.parse_model({**yaml.safe_load(text), "scale": scale}, 3, verbose=False)


@pytest.mark.parametrize(
    ("at", "after"),
    [
        ("backbone_end", [9]),
        ("4,6", [4, 6]),
        ("p2", [2]),
        ("p3", [15]),
        ("p5", [21]),
        ("C2f", [2, 4, 6, 8, 12, 15, 18, 21]),
        ("SPPF,9,backbone_end", [9]),
    ],
)
def test_places_of_yolov8(at, after):
    rows = rows_of(insert_rows(YOLOV8, "SGDM", at=at.split(",")))
    places = [index for index, row in enumerate(rows) if row[2] == "SGDM"]
    assert [place - 1 - k for k, place in enumerate(places)] == after
    assert all(rows[place] == [-1, 1, "SGDM", ["same"]] for place in places)
    assert len(rows) == 23 + len(after)


@pytest.mark.parametrize("rewire", [True, False])
def test_what_read_a_row_reads_the_layer_after_it_or_still_the_row(rewire):
    """Row 4 of YOLOv8 is read by row 5, as the one before it, and by the Concat of row 14 by its number."""
    rows = rows_of(insert_rows(YOLOV8, "SGDM", at=["4"], rewire=rewire))
    assert [rows[5][2], rows[6][:3]] == ["SGDM", [-1, 1, "Conv"]]
    assert rows[15][:3] == [[-1, 5 if rewire else 4], 1, "Concat"]
    assert rows[12][:3] == [[-1, 7], 1, "Concat"]  # row 6, moved by one
    assert rows[-1][0] == [16, 19, 22]


def test_rows_counted_back_are_followed():
    """What is two rows back may be three rows back afterwards."""
    head = [[-2, 1, "Conv", [256, 3, 1]], [[-1, 9], 1, "Concat", [1]], [[-1], 1, "Detect", ["nc"]]]
    rows = rows_of(insert_rows({**YOLOV8, "head": head}, "CBAM", at=["9"]))
    assert [rows[10][2], rows[11][0], rows[12][0]] == ["CBAM", 8, [-1, 10]]
    rows = rows_of(insert_rows({**YOLOV8, "head": head}, "CBAM", at=["8"]))
    assert [rows[9][2], rows[10][0], rows[11][0], rows[12][0]] == ["CBAM", -1, 9, [-1, 10]]
    assert rows_of(insert_rows({**YOLOV8, "head": head}, "CBAM", at=["8"], rewire=False))[11][0] == 8


def test_a_layer_that_nobody_would_read_is_refused():
    with pytest.raises(
        YoloDynError, match=r"reads row 21 by its number alone: rewire=False would leave the layer unread"
    ):
        insert_rows(YOLOV8, "SGDM", at=["21"], rewire=False)
    assert rows_of(insert_rows(YOLOV8, "SGDM", at=["21"]))[-1][0] == [15, 18, 22]


def test_places_and_the_head_together():
    rows = rows_of(insert_rows(YOLOV8, "SGDM", {"gate": "zero"}, at=["backbone_end", "head"]))
    assert [row[2] for row in rows].count("SGDM") == 4
    assert rows[10] == [-1, 1, "SGDM", ["same", {"gate": "zero"}]]
    assert rows[-1][0] == [23, 24, 25]
    assert [row[0] for row in rows[23:26]] == [16, 19, 22]


@pytest.mark.parametrize("scale", "nslmx")
def test_same_keeps_the_channels_at_every_scale(scale):
    """Of a Concat too, whose channels stand nowhere, and where the scale's limit cuts them."""
    text = insert_rows(YOLOV8, "SGDM", at=["11", "9"])
    layers, _ = built(text, scale)
    stock, _ = built(yaml.safe_dump(YOLOV8), scale)
    assert [type(layers[10]), type(layers[13])] == [SGDM, SGDM]
    assert sum(layers[13].split) == stock[12].cv1.conv.in_channels
    assert sum(layers[10].split) == stock[9].cv2.conv.out_channels


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.accept)
        for name in STOCK
        if name != "yolo11-cls-resnet18"  # downloads weights
    ],
)
def test_every_stock_yaml_takes_layers_everywhere(name):
    """All versions and tasks build at their smallest scale."""
    content = yaml.safe_load(STOCK[name].read_text())
    at = ["backbone_end"] if content["head"][-1][2] == "Classify" else ["backbone_end", "p3"]
    for way in ({"arguments": {"gate": "zero"}, "at": at}, {"replace": ["all_3x3"]}):
        text = insert_rows(content, "ODConv", name=f"{name}.yaml", **way)
        layers, _ = built(text, next(iter(content.get("scales") or {"": 0})))
        assert sum(isinstance(m, ODConv) for m in layers.modules()) >= (1 if "at" in way else 5)


@pytest.mark.parametrize(
    ("replace", "replaced"),
    [
        ("C2f", {2: 2, 4: 4, 6: 4, 8: 2, 12: 2, 15: 2, 18: 2, 21: 2}),
        ("first_3x3", {2: 1, 4: 2, 6: 2, 8: 1, 12: 1, 15: 1, 18: 1, 21: 1}),
        ("0,Conv", {0: 1, 1: 1, 3: 1, 5: 1, 7: 1, 16: 1, 19: 1}),
        ("Detect", {22: OF_HEAD}),
        ("22", {22: OF_HEAD}),
    ],
)
def test_replaced_convolutions(replace, replaced):
    text = insert_rows(YOLOV8, "ODConv", {"num_experts": 2}, replace=replace.split(","))
    layers, _ = built(text)
    found = {index: sum(isinstance(m, ODConv) for m in row.modules()) for index, row in enumerate(layers)}
    assert {index: count for index, count in found.items() if count} == replaced
    assert all(row[3][-1]["num_experts"] == 2 for index, row in enumerate(rows_of(text)) if index in replaced)


def test_all_3x3_leaves_the_head():
    layers, _ = built(insert_rows(YOLOV8, "ODConv", replace=["all_3x3"]))
    assert not any(isinstance(m, ODConv) for m in layers[-1].modules())
    left = [m for m in layers[:-1].modules() if type(m) is nn.Conv2d and m.kernel_size != (1, 1)]
    assert not left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"at": ["p9"]},
            r"yolov8.yaml has no p9: no row's map is 1/512 of the image; accepted here: p1, p2, p3, p4, p5",
        ),
        ({"at": ["22"]}, "has no row 22 that a layer can follow; accepted: 0 to 21"),
        (
            {"at": ["C3"]},
            "has no place 'C3'.*accepted: head, backbone_end, p2 to p7, numbers of rows, or names of modules",
        ),
        ({"at": ["hed"]}, "did you mean 'head'"),
        ({"at": ["4"], "replace": ["C2f"]}, "at is for layers that are inserted, not for replace=C2f"),
        (
            {"replace": ["C3"], "layer": "ODConv"},
            "has no row 'C3'.*accepted for replace: all_3x3, first_3x3, numbers of rows, or C2f, Conv, ",
        ),
        ({"replace": ["SPPF"], "layer": "ODConv"}, "has no convolution larger than 1x1 that sees all channels in SPPF"),
        ({"replace": ["C2f"], "layer": "SGDM"}, "the layer 'SGDM' is a module, not a convolution"),
        (
            {"replace": ["C2f"], "layer": "KWConv", "budget": 0.5},
            r"yolov8.yaml, row 2 \(C2f\): m.0.cv1.conv: budget 1/2 must divide",
        ),
        (
            {"at": ["3"], "layer": "ODConv", "stride": 2, "gate": "zero"},
            "gate needs a layer that keeps the shape, .* stride 2",
        ),
        ({"at": ["3"], "gate": "one"}, "gate must be one of none, zero, scalar, got 'one'"),
        ({"at": []}, "at must be a list of at least one"),
        ({"out": "x.pt"}, "out must name a YAML file, got 'x.pt'"),
    ],
)
def test_bad_places(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(YoloDynError, match=message):
        insert("yolov8.yaml", **{"layer": "SGDM", **arguments})
    assert not list(tmp_path.iterdir())


def test_rows_name_what_is_wrong_with_a_gate():
    def build(row: list) -> None:
        tasks.parse_model(
            {
                **copy.deepcopy(YOLOV8),
                "scale": "n",
                "backbone": [*copy.deepcopy(YOLOV8["backbone"][:3]), row],
                "head": [],
            },
            3,
            False,
        )

    with pytest.raises(
        YoloDynError, match=r"row 3 \(SGDM\): gate needs a layer that keeps the shape, got 32 -> 64 channels"
    ):
        build([-1, 1, "SGDM", [256, {"gate": "zero"}]])
    with pytest.raises(YoloDynError, match="gate is for a convolution or a module, this is a network"):
        build([-1, 1, "BneckLite", [32, 64, {"gate": "zero"}]])
    with pytest.raises(YoloDynError, match=r"row 3 \(C2f\): where must be all_3x3 or first_3x3, got 'last'"):
        build([-1, 1, "C2f", [128, {"dynamic": "ODConv", "where": "last"}]])


def test_the_gates_of_a_model_are_given_gradients(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    insert("yolov8.yaml", "SGDM", "yolov8-gated.yaml", gate="zero", at="6,head")
    net = YOLO("yolov8n-gated.yaml").model.train()
    gates = [m for m in net.modules() if isinstance(m, Gated)]
    assert len(gates) == 4
    sum(part.square().mean() for part in tensors(net(torch.rand(2, 3, 64, 64)))).backward()
    assert all(gate.gate.grad.abs().sum() > 0 for gate in gates)
    assert all(p.grad.abs().sum() == 0 for gate in gates for p in gate.layer.parameters())  # until the gate opens
