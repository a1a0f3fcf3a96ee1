"""The bench of the layers: what it reports, what it draws, and that its memory figure is one."""

import json
import re

import pytest
import torch

from yolo_dyn import YoloDynError
from yolo_dyn.bench import layers as layer_bench
from yolo_dyn.bench.fingerprints import fingerprints


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(layer_bench, "SHAPES", ((32, 12), (64, 6)))


def test_bench_layers_reports_every_cell(tmp_path, log):
    done = layer_bench.bench_layers(["ODConv", "CBAM"], rounds=2, out=str(tmp_path))
    report = json.loads((tmp_path / "layers.json").read_text())
    assert len(report["cells"]) == 3 * 2 * 4  # the static convolution and two layers, two shapes, four cases
    assert {cell["ratio"] for cell in report["cells"] if cell["layer"] == layer_bench.STATIC} == {1.0}
    assert all(cell["ms"] > 0 and cell["peak_mib"] > 0 for cell in report["cells"])
    assert (tmp_path / "layers.png").stat().st_size > 10_000
    assert log[1:] == list(map(str, done.cells))  # as they are measured
    table = str(done).splitlines()
    assert any(line.startswith("ODConv") and line.count(" / ") == 4 for line in table)


def test_peak_memory_counts_what_lives_at_once():
    def step():
        a = torch.ones(2**18)  # 1 MiB each
        b = a + 1
        del a
        c = b + 1
        return c + b

    assert layer_bench.peak_memory(step) == pytest.approx(3, abs=0.05)


def test_bench_forms_shows_all_forms():
    lines = str(layer_bench.bench_forms(rounds=1)).splitlines()
    assert lines[0].split("convolution")[1].split() == ["kernel", "response", "unfold", "mixing", "alone"]
    assert len(lines) == 1 + 2 * 4


def test_bad_input(tmp_path):
    with pytest.raises(YoloDynError, match="unknown layer 'OdConv'; did you mean 'ODConv'"):
        layer_bench.bench_layers(["OdConv"])
    with pytest.raises(YoloDynError, match=r"'Feature' is a network, not a convolution or module \(accepted: A2D2C, "):
        layer_bench.bench_layers(["SGDM", "Feature"])
    (tmp_path / "file").touch()
    with pytest.raises(YoloDynError, match=r"the folder .*file cannot be written to"):
        layer_bench.bench_layers(["ODConv"], out=str(tmp_path / "file"))


@pytest.mark.accept  # the counts themselves are tested where networks are converted
def test_fingerprints_are_printed_beside_the_papers():
    lines = str(fingerprints()).splitlines()[1:]
    assert len(lines) == 56
    assert all(line.endswith("=") for line in lines[:38])
    assert all(re.search(r"  =   multiply-adds: \d+ M, \d+\.\d M \(\+0\.\d %\)$", line) for line in lines[38:41])
    assert all(line.endswith(("=", ")")) for line in lines[41:])
