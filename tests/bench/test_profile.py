"""The operations of a fused pass: what is counted, where they are, and how few a fused SGDM is."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from ultralytics import YOLO

from yolo_dyn import cli
from yolo_dyn.bench.profile import Operations, compile_calls, profile
from yolo_dyn.layers.odconv import ODConv
from yolo_dyn.layers.sgdm import SGDM

CASES = {
    "a convolution": (lambda x: F.conv2d(x, torch.ones(3, 4, 1, 1)), {"convolution": 1, "ones": 1}),
    "views alone": (lambda x: x.flatten(2).transpose(1, 2)[:, :1].expand(5, -1, -1), {}),
    "a copy": (lambda x: x.transpose(2, 3).reshape(-1), {"clone": 1}),
    "in place": (lambda x: x.add_(1).narrow(1, 0, 2).relu_(), {"add_": 1, "relu_": 1}),
    "several outputs": (lambda x: x.sort(), {"sort": 1}),
    "memory": (torch.empty_like, {}),
    "a composed one": (lambda x: F.linear(x[0, 0], torch.ones(2, 5), torch.ones(2)), {"addmm": 1, "ones": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_counts_as_an_operation(name):
    call, expected = CASES[name]
    x = torch.rand(1, 4, 6, 5)
    with torch.no_grad(), Operations() as operations:
        call(x)
    assert operations.counts == expected


def _fused(**options):
    torch.manual_seed(0)
    layer = SGDM(32, 32, **options).eval().to(memory_format=torch.channels_last)
    layer.fuse()
    return layer, torch.rand(1, 32, 20, 20).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("options", [{}, {"guide": "none"}, {"guide": "conv"}, {"dynamic": ODConv}], ids=str)
def test_a_fused_sgdm_is_few_operations(options):
    layer, x = _fused(**options)
    with torch.no_grad(), Operations() as operations:
        layer(x)
    assert operations.counts.total() <= 22
    assert operations.counts["cat"] == 1


@pytest.mark.accept
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
def test_a_compiled_sgdm_is_few_kernels():
    layer, x = _fused()
    with torch.no_grad():
        compiled = compile_calls(layer, x)
    assert compiled.library >= 7
    assert compiled.generated + compiled.library <= 16


def test_the_rows_of_a_model_add_up(tmp_path, capsys):
    out = tmp_path / "operations.json"
    assert cli.main(["profile", "model=yolov8n.yaml,yolov8n-sgdm.yaml", "imgsz=64", f"out={out}"]) == 0
    stock, ours = json.loads(out.read_text())["models"]
    sgdm = [sum(row["operations"].values()) for row in ours["rows"] if row["ours"]]
    assert len(sgdm) == 3
    assert max(sgdm) <= 22
    assert ours["operations"] == stock["operations"] + sum(sgdm)
    told = capsys.readouterr().out
    assert f"{sum(sgdm) / stock['operations']:+.1%}" in told
    assert f"SGDM ({sgdm[0]})" in told


def test_all_that_runs_is_in_some_row():
    found = profile(["yolov8n-sgdm.yaml"], imgsz=64).models[0]
    model = YOLO("yolov8n-sgdm.yaml").model.fuse(verbose=False).eval().to(memory_format=torch.channels_last)
    x = torch.rand(1, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        model(x)
        with Operations() as operations:
            model(x)
    assert operations.counts.total() == found.total


def test_rows_are_named_by_what_they_are(tmp_path):
    yaml = tmp_path / "rows.yaml"
    yaml.write_text(
        "nc: 2\n"
        "backbone:\n"
        "  - [-1, 1, Conv, [8, 3, 2]]\n"
        "  - [-1, 1, ODConv, [8, 3, 2]]\n"
        "  - [-1, 2, CondConv, [8, 3]]\n"
        "  - [-1, 1, SGDM, [same, {gate: zero}]]\n"
        "  - [-1, 1, C2f, [8, True, {dynamic: DCD}]]\n"
        "head:\n"
        "  - [[4], 1, Detect, [nc]]\n"
    )
    found = profile([str(yaml)], imgsz=64).models[0]
    assert [row.layer for row in found.ours] == ["ODConv", "CondConv", "SGDM", "C2f"]
