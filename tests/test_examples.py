"""The scripts of examples/README.md run as they are given, here on 20 images with the smallest settings."""

from pathlib import Path

import pytest
from helpers import ROOT

EXAMPLES = ROOT / "examples"


def test_every_script_is_listed_and_short():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) == 4
    for script in scripts:
        assert f"python examples/{script.name} " in listed
        assert len(script.read_text(encoding="utf-8").splitlines()) <= 75


def test_ship_to_onnx(tmp_path, command):
    done = command("python", str(EXAMPLES / "ship_to_onnx.py"), "--imgsz", "64", "--rounds", "2", cwd=tmp_path)
    assert "boxes within" in done.stdout
    assert (tmp_path / "runs" / "examples" / "yolov8n-sgdm.onnx").is_file()


@pytest.mark.accept
def test_train_on_shapes(tmp_path, tiny, command):
    text = trained("train_on_shapes.py", tmp_path, tiny, command)
    assert "AP50" in text
    assert (tmp_path / "runs" / "examples" / "train" / "weights" / "best.pt").is_file()


@pytest.mark.accept
def test_own_layer(tmp_path, tiny, command):
    text = trained("own_layer.py", tmp_path, tiny, command)
    assert "the contract holds" in text
    assert text.count(": 3 TwinConv,") == 2  # alone and inside SGDM, before each of the head's three inputs
    assert (tmp_path / "runs" / "examples" / "own" / "weights" / "best.pt").is_file()


@pytest.mark.accept
def test_compare_under_noise(tmp_path, tiny, command):
    trained("compare_under_noise.py", tmp_path, tiny, command)
    assert (tmp_path / "runs" / "examples" / "robustness" / "report.html").is_file()
    assert (tmp_path / "runs" / "examples" / "compare" / "grid.png").is_file()


def trained(script: str, folder: Path, data: Path, command) -> str:
    """What a script prints that trains for one epoch."""
    words = ("--data", str(data), "--epochs", "1", "--imgsz", "32")
    return command("python", str(EXAMPLES / script), *words, cwd=folder).stdout
