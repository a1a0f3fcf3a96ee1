"""Trained models go on: with a layer behind a gate, or with dynamic convolutions that start as their static ones."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from helpers import save
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks

import yolo_dyn
from yolo_dyn import YoloDynError, insert, registry
from yolo_dyn.cli import main
from yolo_dyn.integration.insertion import insert_rows
from yolo_dyn.integration.trained import difference, tensors
from yolo_dyn.layers import CBAM, DCD, SGDM, ODConv
from yolo_dyn.layers.gate import Gated
from yolo_dyn.layers.protocol import StartsFromStatic

GATED = [*registry.names("convolution"), *registry.names("module")]
EXACT = [name for name, kind in registry.all_layers("convolution").items() if issubclass(kind, StartsFromStatic)]
QUICK = ("SGDM", "ODConv", "KWConv")  # those of `make test`


def quick(names: list[str]) -> list:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.accept) for name in names]


def seasoned(model: nn.Module) -> nn.Module:
    """A model like a trained one: norms have seen something, features get through, weights fit half precision."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
            nn.init.kaiming_normal_(module.weight)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model.half().float()


@pytest.fixture
def trained(tmp_path, monkeypatch) -> Path:
    """A checkpoint of YOLOv8n, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    model = YOLO("yolov8n.yaml")
    seasoned(model.model)
    save(model, "best.pt")
    return tmp_path / "best.pt"


def outputs(file: Path | str) -> list[torch.Tensor]:
    torch.manual_seed(1)
    with torch.inference_mode():
        return list(tensors(YOLO(file).model.eval()(torch.rand(2, 3, 64, 128))))  # a YOLO of P6 needs multiples of 64


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("layer", quick(GATED))
@pytest.mark.parametrize(("at", "gate"), [("head", "zero"), ("2,backbone_end", "scalar")])
def test_a_gated_layer_leaves_a_trained_model_exactly_as_it_was(layer, at, gate, trained):
    made = insert("best.pt", layer, at=at, gate=gate)
    assert made == Path(f"best-{layer.lower()}.pt")
    assert same(outputs(made), outputs("best.pt"))
    gates = [m for m in YOLO(made).model.modules() if isinstance(m, Gated)]
    assert [gate.gate.numel() > 1 for gate in gates] == ([True] * 3 if gate == "zero" else [False] * 2)


def stock_detectors() -> list[str]:
    folder = Path(tasks.__file__).parent.parent / "cfg" / "models"
    found = sorted(file for file in folder.rglob("*.yaml"))
    heads = ("Detect", "v10Detect", "Segment", "Pose", "OBB", "Segment26", "Pose26", "OBB26")
    return [file.name for file in found if yaml.safe_load(file.read_text())["head"][-1][2] in heads]


@pytest.mark.accept
@pytest.mark.parametrize(("name", "layer"), [(name, GATED[k % len(GATED)]) for k, name in enumerate(stock_detectors())])
def test_every_stock_detector_is_left_as_it_was(name, layer, tmp_path, monkeypatch):
    """Each with one of the layers in turn; every layer goes into YOLOv8n above."""
    monkeypatch.chdir(tmp_path)
    model = YOLO(name)
    seasoned(model.model)
    save(model, "best.pt")
    assert same(outputs(insert("best.pt", layer)), outputs("best.pt"))


@pytest.mark.parametrize("layer", quick(EXACT))
@pytest.mark.parametrize(("name", "block"), [("yolov8n", "C2f"), ("yolov5n", "C3"), ("yolo11n", "C3k2")])
def test_dynamic_convolutions_start_as_the_static_ones(layer, name, block):
    """Inside blocks and in plain rows: `pretrained=` loads weights so."""
    static = seasoned(YOLO(f"{name}.yaml").model)
    text = insert_rows(static.yaml, layer, replace=[block, "3"])
    scale = {"scale": "n", "yaml_file": f"{name}.yaml"}
    model = tasks.DetectionModel({**yaml.safe_load(text), **scale}, verbose=False)
    before, _ = difference(static, model)
    model.load(static)
    apart, largest = difference(static, model)
    assert apart / largest < 1e-5
    assert not before / largest < 1e-5
    assert sum(type(m).__name__ == layer for m in model.modules()) > 10


def test_a_row_of_ours_starts_as_the_stock_row_in_its_place():
    """Row 3, a Conv of YOLOv8n, is an ODConv: weights and BatchNorm are found though the row's kind has changed."""
    static = seasoned(YOLO("yolov8n.yaml").model)
    content = copy.deepcopy(static.yaml)
    content["backbone"][3] = [-1, 1, "ODConv", [256, 3, 2, {"num_experts": 4}]]
    model = tasks.DetectionModel(content, verbose=False)
    model.load(static)
    apart, largest = difference(static, model)
    assert apart / largest < 1e-5


def test_kernels_of_another_shape_stay_what_they_were():
    """A checkpoint of another scale: nothing is half taken over, and no kernel is stretched to fit."""
    static = seasoned(YOLO("yolov8s.yaml").model)
    model = tasks.DetectionModel({**yaml.safe_load(insert_rows(static.yaml, "ODConv", replace=["C2f"])), "scale": "n"})
    before = copy.deepcopy({name: m.state_dict() for name, m in model.named_modules() if isinstance(m, ODConv)})
    model.load(static)
    for name, state in before.items():
        after = model.get_submodule(name).state_dict()
        assert all(torch.equal(after[key], value) for key, value in state.items())


@pytest.mark.parametrize("layer", ["ODConv", "DCD", "FDConv", "DynamicResidualConv", "KWConv"])
def test_a_pointwise_kernel_is_not_spread_over_a_larger_one(layer):
    """Broadcasting would."""
    made = registry.require(layer)(1, 8, 3, 1, 1, 1, 1, False)
    with pytest.raises(ValueError, match=r"kernels of \(8, 1, 3, 3\) cannot start from static ones of \(8, 1, 1, 1\)"):
        made.start_from(torch.rand(8, 1, 1, 1), None)


@pytest.mark.parametrize("layer", [DCD, ODConv])
def test_replacing_in_a_checkpoint_keeps_what_it_finds(layer, trained):
    made = insert("best.pt", layer.__name__, replace="all_3x3", out="dyn.yaml")
    assert made == Path("dyn.pt")
    assert sum(isinstance(m, layer) for m in YOLO(made).model.modules()) == 27
    for one, other in zip(outputs(made), outputs("best.pt"), strict=True):
        assert (one - other).abs().max() / other.abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "at"),
    [("yolov8n-seg", "head"), ("yolov8n-pose", "p3"), ("yolov8n-obb", "C2f"), ("yolov8n-cls", "backbone_end")],
)
def test_other_tasks(name, at, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = YOLO(f"{name}.yaml")
    seasoned(model.model)
    model.model.names = {k: f"thing {k}" for k in model.model.names}
    save(model, "best.pt")
    made = YOLO(insert("best.pt", "SGDM", at=at))
    assert (made.task, made.names) == (model.task, model.model.names)
    assert same(outputs("best-sgdm.pt"), outputs("best.pt"))


def test_without_a_gate_it_says_what_that_costs(trained, caplog):
    count = len(YOLO("best.pt").model.state_dict())
    insert("best.pt", "SGDM", gate="none")
    assert f"has {count} of the {count} tensors of the checkpoint; on bus.jpg its outputs, of up to" in caplog.text
    assert "differ by at most 0\n" not in caplog.text
    assert not any(isinstance(m, Gated) for m in YOLO("best-sgdm.pt").model.modules())
    caplog.clear()
    insert("best.pt", "SGDM", exist_ok=True)
    assert "differ by at most 0" in caplog.text


def test_the_stock_command_goes_on_from_it(trained):
    """One epoch on the embedded data set, with two classes: gates open, and the checkpoint comes back."""
    assert main(["insert", "model=best.pt", "layer=SGDM", "at=p3,head"]) == 0
    run = YOLO("best-sgdm.pt")
    run.train(data="shapes.yaml", imgsz=64, epochs=1, fraction=0.1, workers=0, plots=False, val=False, project="runs")
    after = YOLO(run.trainer.last)
    gates = [m.gate for m in after.model.modules() if isinstance(m, Gated)]
    assert len(gates) == 4
    assert all(gate.abs().max() > 0 for gate in gates)


def test_equip_gives_a_model_to_train(trained):
    model = yolo_dyn.equip("best.pt", "CBAM", at="C2f")
    assert sum(isinstance(m, CBAM) for m in model.model.modules()) == 8
    assert same(outputs("best-cbam.pt"), outputs("best.pt"))
    fresh = yolo_dyn.equip("yolo11s.yaml", "SGDM", ratio=0.2)
    assert fresh.model.yaml["scale"] == "s"
    assert sum(isinstance(m, SGDM) for m in fresh.model.modules()) == 3


def test_shut_gates_are_left_out_at_evaluation(trained):
    insert("best.pt", "SGDM")
    model = YOLO("best-sgdm.pt").model
    opened = next(m for m in model.modules() if isinstance(m, Gated))
    with torch.no_grad():
        opened.gate[0] = 0.5
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before = next(tensors(model.eval()(x)))
        after = next(tensors(model.fuse(verbose=False)(x)))
    assert torch.allclose(before, after, atol=1e-3)
    assert sum(isinstance(m, SGDM) for m in model.modules()) == 1


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_gates_in_less_precision(dtype):
    layer = Gated(SGDM(16, 16), 16)
    x = torch.rand(2, 16, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), x)
    assert torch.equal(layer.to(dtype).eval()(x.to(dtype)), x.to(dtype))


@pytest.mark.parametrize(
    ("file", "arguments", "message"),
    [
        ("nowhere.pt", {}, "model 'nowhere.pt' does not exist"),
        ("text.pt", {}, "model 'text.pt' is no checkpoint of Ultralytics"),
        ("other.pt", {}, "model 'other.pt' is no checkpoint of Ultralytics"),
        ("fused.pt", {}, "model 'fused.pt' is fused, for inference: take the checkpoint that it was made of"),
        ("best.pt", {"layer": "RFAConv", "replace": ["C2f"]}, "RFAConv cannot start from static weights"),
        (
            "best.pt",
            {"layer": "KWConv", "replace": ["C2f"], "budget": 0.5, "cell_ratio": 0.5},
            "budget must be at least 1",
        ),
        ("best.pt", {"at": ["p9"]}, "best.pt has no p9"),
        ("best.pt", {"out": "sub/x.yaml"}, "the folder of out=sub/x.yaml does not exist"),
    ],
)
def test_bad_checkpoints(file, arguments, message, trained):
    Path("text.pt").write_text("no checkpoint")
    torch.save({"weight": torch.zeros(3)}, "other.pt")
    fused = YOLO(trained)
    fused.model.fuse(verbose=False)
    save(fused, "fused.pt")
    found = sorted(Path().iterdir())
    with pytest.raises(YoloDynError, match=message):
        insert(file, **{"layer": "SGDM", **arguments})
    assert sorted(Path().iterdir()) == found


def test_files_that_exist_are_kept_unless_asked(trained):
    Path("best-sgdm.pt").write_text("mine")
    with pytest.raises(YoloDynError, match=r"best-sgdm.pt exists; exist_ok=True replaces it"):
        insert("best.pt", "SGDM")
    assert Path("best-sgdm.pt").read_text() == "mine"
    assert not Path("best-sgdm.yaml").exists()
