"""Temperature schedules: in training, through a resumed run, in the moving average and in the checkpoint."""

from pathlib import Path

import pytest
import torch
from helpers import older
from ultralytics import YOLO

from yolo_dyn.integration.annealing import annealed, temperature_at
from yolo_dyn.layers import A2D2C, DynamicConv, DynamicResidualConv, FMDConv

ROWS = """
nc: 6
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, FDConv, [16, 3, 2]]
  - [-1, 1, DynamicConv, [16, 3, 2, {{anneal: {anneal}}}]]
  - [-1, 1, FMDConv, [16, 3, 1, {{num_experts: 2}}]]
head:
  - [-1, 1, SGDM, [16, {{dynamic: A2D2C, anneal: {{start: 5, step: 1}}}}]]
  - [[3, 4], 1, Detect, [nc]]
"""


def model_file(folder: Path, anneal: str = "{start: 4, step: 1}") -> str:
    (folder / "annealed.yaml").write_text(ROWS.format(anneal=anneal))
    return str(folder / "annealed.yaml")


def temperatures(model: torch.nn.Module) -> list[float]:
    return [layer.temperature for _, layer in annealed(model)]


@pytest.mark.parametrize(
    ("layer", "start", "epochs"),
    [(DynamicConv, 31, 10), (FMDConv, 40, 13), (A2D2C, 30, 10), (DynamicResidualConv, 30, 10)],
)
def test_the_papers_schedules_are_the_defaults(layer, start, epochs):
    schedule = layer(8, 8, 3).anneal
    assert temperature_at(schedule, 0) == start
    assert temperature_at(schedule, epochs - 1) > 1
    assert temperature_at(schedule, epochs) == pytest.approx(1)
    assert temperature_at(schedule, epochs + 100) == 1


def test_a_temperature_flattens_the_attention():
    torch.manual_seed(0)
    layer, x = DynamicConv(8, 8, 1, bias=False, anneal=None), torch.randn(2, 8, 4, 4)
    experts = layer.experts.weight.view(4, 8, 8)
    mean = torch.einsum("oc,bchw->bohw", experts.mean(0), x)
    distance = []
    for layer.temperature in (1.0, 31.0, 1e6):
        distance.append((layer(x) - mean).abs().max())
    assert distance[0] > 10 * distance[1] > 100 * distance[2]


def test_schedule_through_a_resumed_run(tiny, tmp_path, log):
    """An interrupted and resumed run has the scheduled temperature in every epoch, also in what it saves."""
    seen = {}

    def watch(trainer):
        seen[trainer.epoch] = (temperatures(trainer.model), temperatures(trainer.ema.ema))

    def stop(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    arguments = {"data": str(tiny), "imgsz": 64, "epochs": 5, "batch": 8, "workers": 0, "plots": False}
    if not older("8.4.0"):
        arguments["optimizer"] = "MuSGD"  # which long trainings get by themselves, and once took no FDConv
    model = YOLO(model_file(tmp_path))
    model.add_callback("on_train_epoch_end", watch)
    model.add_callback("on_model_save", stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(**arguments, project=str(tmp_path), name="run")
    last = tmp_path / "run" / "weights" / "last.pt"
    assert temperatures(YOLO(last).model) == [3, 37, 4]

    model = YOLO(last)
    model.add_callback("on_train_epoch_end", watch)
    model.train(resume=True)
    expected = {e: [max(1, 4 - e), 40 - 3 * e, max(1, 5 - e)] for e in range(5)}
    assert {epoch: live for epoch, (live, _) in seen.items()} == expected
    assert {epoch: ema for epoch, (_, ema) in seen.items()} == expected
    assert "temperature: A2D2C 4, DynamicConv 3, FMDConv 37" in log
    assert temperatures(YOLO(last).model) == expected[4]


def test_weights_bring_their_temperature(tmp_path):
    source, target = YOLO(model_file(tmp_path)).model, YOLO(model_file(tmp_path)).model
    for _, layer in annealed(source):
        layer.temperature = 7.0
    target.load(source)
    assert temperatures(target) == [7.0] * 3


def test_no_schedule(tmp_path):
    model = YOLO(model_file(tmp_path, "null")).model
    assert len(annealed(model)) == 2


@pytest.mark.parametrize("anneal", [{"start": 0.5, "step": 1}, {"start": 5, "step": 0}, {"start": 5, "step": -1}])
def test_a_schedule_that_never_ends_at_1(anneal):
    with pytest.raises(ValueError, match="anneal must come down to 1: start at least 1 and step above 0, got "):
        DynamicConv(8, 8, 3, anneal=anneal)


@pytest.mark.parametrize("anneal", [{"start": 5}, {"from": 5, "step": 1}, 5])
def test_a_schedule_with_other_keys(anneal):
    with pytest.raises(ValueError, match="anneal must have the keys start and step, got "):
        DynamicConv(8, 8, 3, anneal=anneal)
