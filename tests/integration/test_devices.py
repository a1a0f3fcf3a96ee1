"""Devices: what torch cannot use is named before anything is read, and each has the name that its user knows."""

import platform

import pytest
import torch

from yolo_dyn import YoloDynError, cli
from yolo_dyn.integration.api import chosen_device, machine_name, torch_device
from yolo_dyn.study.lanes import run_jobs


@pytest.fixture
def only_a_cpu(monkeypatch):
    """This machine, whatever it has."""
    zeros = torch.zeros

    def on_a_cpu(*size, device="cpu", **options):
        if device != "cpu":
            raise RuntimeError("no such device")
        return zeros(*size, device=device, **options)

    monkeypatch.setattr(torch, "zeros", on_a_cpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("device", ["0", "cuda:99", "cuda", "mps", "gpu", "1,2", "-1", "99999999999999999999"])
def test_a_device_that_is_not_there(device, only_a_cpu):
    with pytest.raises(
        YoloDynError, match=f"device={device}: torch cannot use it here; accepted on this machine: cpu$"
    ):
        chosen_device(device)


@pytest.mark.parametrize(
    "words",
    [
        ["robustness", "model=a.pt", "data=data.yaml"],
        ["compare", "model=a.pt", "source=a.png"],
        ["cam", "model=a.pt", "source=a.png"],
        ["bench", "model=yolov8n.yaml"],
    ],
)
def test_commands_say_so_before_they_read_anything(words, only_a_cpu, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "device=7"]) == 2
    assert "device=7: torch cannot use it here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_each_lane_of_a_study_is_asked_for(only_a_cpu):
    with pytest.raises(YoloDynError, match="device=7: torch cannot use it here"):
        run_jobs("", "cpu,7", 1)


def test_the_first_gpu_is_taken_if_there_is_one(only_a_cpu, monkeypatch):
    assert chosen_device("") == "cpu"
    monkeypatch.setattr(torch, "zeros", lambda *_, device: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: f"GPU of {name}")
    assert chosen_device("") == "0"
    assert (torch_device("1"), torch_device("cuda:1"), torch_device("cpu")) == ("cuda:1", "cuda:1", "cpu")
    assert machine_name("1") == "GPU of cuda:1"


def test_an_apple_gpu_stood_in_for(only_a_cpu, monkeypatch):
    """None was at hand: that torch takes the name is assumed, that ours reaches it is not."""
    asked = []
    monkeypatch.setattr(torch, "zeros", lambda *_, device: asked.append(device))
    assert chosen_device("mps") == torch_device("mps") == "mps"
    assert asked == ["mps"]
    assert machine_name("mps") == platform.machine()
