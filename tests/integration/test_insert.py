"""Inserting a layer into any stock model YAML that has a detection head."""

import copy
from pathlib import Path

import pytest
import torch
import ultralytics
import yaml
from helpers import DETECTORS, ROOT, ROWS_SINCE, older, skip_before, skip_without_its_rows
from ultralytics.nn import tasks

from yolo_dyn import YoloDynError, registry
from yolo_dyn.cli import main
from yolo_dyn.integration.api import detection_heads
from yolo_dyn.integration.insertion import insert, insert_rows
from yolo_dyn.layers import SGDM

STOCK = {file.stem: file for file in sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml"))}
CONTENT = {name: yaml.safe_load(file.read_text()) for name, file in STOCK.items()}
WITH_HEAD = [name for name, d in CONTENT.items() if d["head"][-1][2] in detection_heads()]


TIMM = ("efficientvit-m0", "efficientvit-m0-stride8", "fasternet-t0", "convnextv2-atto")
OTHERS = ("wide", "fdconv", "kwconv", "ldconv", "dmf-s", "dmf-xs", "dmf-xxs")
BY_HAND = {f"yolov8-{name}.yaml" for name in (*TIMM, *OTHERS)}
BUNDLED = sorted(set(DETECTORS) - BY_HAND)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_yamls_are_what_the_command_in_their_head_writes(name, tmp_path):
    skip_without_its_rows(name)
    if name.startswith("yolov6"):
        skip_before("8.3.244", "yolov6.yaml of this text")
    text = (ROOT / "models_yaml" / name).read_text()
    command = text.splitlines()[1].removeprefix("#   yolo-dyn ").split()
    assert main([*command, f"out={tmp_path / name}"]) == 0
    assert (tmp_path / name).read_text() == text


def test_the_papers_arms_are_bundled():
    sgdm = {f"{stock}-sgdm.yaml" for stock in ("yolov5", "yolov6", "yolov8", "yolo11", "yolo12", "yolo26")}
    table_2 = {f"yolo{v}-{layer}.yaml" for v in ("v5", "v6", "v8") for layer in ("cbam", "coordatt", "rfaconv")}
    table_3 = {f"yolo{v}-sgdm-{d}.yaml" for v in ("v5", "v8") for d in ("condconv", "dynamicconv", "dcd", "odconv")}
    mixing = {name.lower() for name in registry.names("convolution")} - {"rfaconv", "ldconv"}
    studied = {f"yolov8-sgdm-{layer}.yaml" for layer in (*mixing, "unguided", "average")} | {"yolov5-sgdm-average.yaml"}
    table_4 = {f"yolov8-{backbone}-sgdm.yaml" for backbone in TIMM}
    assert set(BUNDLED) == sgdm | table_2 | table_3 | table_4 | studied


def test_all_families_with_a_head_are_covered():
    families = {"yolov3", "yolov5", "yolov6", "yolov8", "yolov9c", "yolov10n", "yolo11", "yolo12", "yolo26"}
    variants = {"yolov8-p2", "yolov5-p6", "yolo26-p2", "yolo11-seg", "yolo11-pose", "yolo11-obb", "yolov9e-seg"}
    missing = tuple(stock for stock, first in ROWS_SINCE.items() if older(first))
    assert {name for name in families | variants if not name.startswith(missing)} <= set(WITH_HEAD)


@pytest.mark.parametrize("scales", [1, pytest.param(None, marks=pytest.mark.accept)], ids=["one scale", "all scales"])
@pytest.mark.parametrize("name", WITH_HEAD)
def test_every_stock_yaml_with_a_head(name, scales):
    """At every scale the model builds, the body keeps its rows, and a layer sits before each input of the head."""
    before, after = CONTENT[name], yaml.safe_load(insert_rows(CONTENT[name], "SGDM", {"ratio": 0.2}, f"{name}.yaml"))
    *body, (sources, *head) = before["backbone"] + before["head"]
    rows = after["backbone"] + after["head"]
    assert rows[: len(body)] == body
    assert rows[-1] == [list(range(len(body), len(body) + len(sources))), *head]
    assert [row[0] for row in rows[len(body) : -1]] == [source % len(body) for source in sources]
    assert {k: v for k, v in after.items() if k != "head"} == {k: v for k, v in before.items() if k != "head"}
    for scale in list(before.get("scales") or [""])[:scales]:
        with torch.device("meta"):
            d = {**copy.deepcopy(after), "scale": scale, "yaml_file": f"{name}.yaml"}
            model, save = tasks.parse_model(d, 3, verbose=False)
        assert [type(m) for m in model[len(body) : -1]] == [SGDM] * len(sources)
        assert set(sources) <= {len(body), *save}


def test_inserting_into_an_inserted_model():
    once = yaml.safe_load(insert_rows(CONTENT["yolov8"], "SGDM"))
    twice = yaml.safe_load(insert_rows(once, "RDConv", {"num_experts": 2}))
    assert twice["head"][-4:-1] == [
        [22 + i, 1, "RDConv", [c, {"num_experts": 2}]] for i, c in enumerate((256, 512, 1024))
    ]


@pytest.mark.parametrize(
    ("model", "layer", "arguments", "message"),
    [
        (
            "yolov8.yaml",
            "Feature",
            {},
            r"the layer 'Feature' is a network, not a convolution or module \(accepted: A2D2C,",
        ),
        ("yolov8.yaml", "SGMD", {}, "unknown layer 'SGMD'; did you mean 'SGDM'"),
        ("yolov8.yaml", "SGDM", {"ratoi": 0.2}, "yolov8.yaml, row 22 .SGDM.: .*'ratoi'.*did you mean 'ratio'"),
        ("yolov8.yaml", "SGDM", {"ratio": 2}, "ratio must lie in"),
        (
            "yolov8-cls.yaml",
            "SGDM",
            {},
            "yolov8-cls.yaml has no head to insert before: its last row is Classify; accepted: Detect",
        ),
        ("nowhere.yaml", "SGDM", {}, "'nowhere.yaml' does not exist"),
        ("yolov8n.pt", "SGDM", {}, "model 'yolov8n.pt' does not exist"),
        ("yolov8n.txt", "SGDM", {}, "model must name a YAML file, got 'yolov8n.txt'"),
    ],
)
def test_bad_input(model, layer, arguments, message, tmp_path):
    with pytest.raises(YoloDynError, match=message):
        insert(model, layer, out=str(tmp_path / "out.yaml"), **arguments)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept_unless_asked(tmp_path):
    out = tmp_path / "out.yaml"
    out.write_text("mine")
    with pytest.raises(YoloDynError, match=r"out.yaml exists; exist_ok=True replaces it"):
        insert("yolov8.yaml", "SGDM", out=str(out))
    assert out.read_text() == "mine"
    insert("yolov8.yaml", "SGDM", out=str(out), exist_ok=True)
    assert "SGDM" in out.read_text()
    with pytest.raises(YoloDynError, match=r"the folder .* does not exist"):
        insert("yolov8.yaml", "SGDM", out=str(tmp_path / "missing" / "out.yaml"))
