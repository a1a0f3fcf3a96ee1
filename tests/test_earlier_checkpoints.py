"""Checkpoints of earlier releases, whose rows name no option that was the default then, stay the models they are."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics import YOLO

from yolo_dyn import layers

ROWS = """
nc: 7
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [-1, 1, {row}]
  - [[3], 1, Detect, [nc]]
"""
# today's row that builds what the row beside it built in an earlier release
EARLIER = {
    "SGDM": ("SGDM, [32, {guide: average}]", "SGDM, [32]"),
    "SGDM twice": ("SGDM, [32, {guide: average, ratio: 0.3}]", "SGDM, [32, {ratio: 0.3}]"),
}


def aged(model: nn.Module) -> nn.Module:
    """A model with the attributes that its layers had then."""
    for layer in model.modules():
        if isinstance(layer, layers.SGDM):
            layer.__dict__["guided"] = layer.__dict__.pop("kernel_channels")[0]
            del layer.residual, layer.dynamic.bypass
    return model


@pytest.fixture(scope="module", params=EARLIER)
def earlier(request, tmp_path_factory, tiny) -> tuple[Path, str]:
    """The folder of a training that was interrupted in its second epoch, as an earlier release left it."""
    now, then = (ROWS.format(row=row) for row in EARLIER[request.param])
    folder = tmp_path_factory.mktemp("earlier")
    if request.param.endswith("twice"):
        now, then = (text.replace("[-1, 1, SGDM", "[-1, 2, SGDM") for text in (now, then))
    for name, text in (("now.yaml", now), ("then.yaml", then)):
        (folder / name).write_text(text)

    def stop(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    model = YOLO(folder / "now.yaml")
    model.add_callback("on_model_save", stop)
    arguments = {"data": str(tiny), "imgsz": 64, "epochs": 3, "batch": 8, "workers": 0, "plots": False}
    with pytest.raises(KeyboardInterrupt):
        model.train(**arguments, project=str(folder), name="run")
    for name in ("last.pt", "best.pt"):
        file = folder / "run" / "weights" / name
        checkpoint = torch.load(file, weights_only=False)
        for key in ("model", "ema"):
            if checkpoint.get(key) is not None:
                aged(checkpoint[key]).yaml = copy.deepcopy(YOLO(folder / "then.yaml").model.yaml)
        torch.save(checkpoint, file)
    return folder, request.param


def output(model: nn.Module) -> torch.Tensor:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return copy.deepcopy(model).float().eval()(x)[0]


def guides(model: nn.Module) -> list[str]:
    return [layer.guide for layer in model.modules() if isinstance(layer, layers.SGDM)]


def test_the_row_names_nothing_and_today_builds_another_model(earlier):
    folder, _ = earlier
    assert set(guides(YOLO(folder / "then.yaml").model)) != set(guides(YOLO(folder / "now.yaml").model)) == {"average"}


def test_what_is_loaded_is_what_it_was(earlier):
    folder, _ = earlier
    best = YOLO(folder / "run" / "weights" / "best.pt").model
    now = YOLO(folder / "now.yaml").model
    now.load_state_dict(best.state_dict())
    assert torch.equal(output(now), output(best))
    assert set(guides(best)) == {"average"}
    fused = copy.deepcopy(best).float().eval()
    assert torch.allclose(output(fused.fuse(verbose=False)), output(best), atol=1e-2)


def test_its_yaml_names_the_options_from_then_on(earlier):
    folder, _ = earlier
    best = YOLO(folder / "run" / "weights" / "best.pt").model
    again = type(best)(copy.deepcopy(best.yaml), nc=7, verbose=False)
    assert guides(again) == guides(best)
    again.load(best, verbose=False)
    assert torch.equal(output(again), output(best))


def test_val_export_train_and_resume(earlier, tiny, tmp_path):
    folder, _ = earlier
    shutil.copytree(folder / "run", tmp_path / "run")
    weights = tmp_path / "run" / "weights"
    assert YOLO(weights / "best.pt").val(data=str(tiny), imgsz=64, workers=0, plots=False, project=str(tmp_path)).box
    assert Path(YOLO(weights / "best.pt").export(format="torchscript", imgsz=64)).is_file()

    seen = []
    model = YOLO(weights / "best.pt")  # the stock `yolo train model=best.pt`
    model.add_callback("on_train_start", lambda trainer: seen.append(trainer.model))
    arguments = {"data": str(tiny), "imgsz": 64, "epochs": 1, "batch": 8, "workers": 0, "plots": False}
    model.train(**arguments, project=str(tmp_path), name="on")
    assert set(guides(seen[0])) == {"average"}

    model = YOLO(weights / "last.pt")
    model.add_callback("on_train_start", lambda trainer: seen.append(trainer.model))
    args = torch.load(weights / "last.pt", weights_only=False)["train_args"]
    assert Path(args["save_dir"]) == folder / "run"
    model.train(resume=True)
    assert set(guides(seen[1])) == {"average"}
    assert set(guides(YOLO(folder / "run" / "weights" / "last.pt").model)) == {"average"}
