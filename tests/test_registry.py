"""The table of layers."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from torch import nn

import yolo_dyn
from yolo_dyn import YoloDynError, layers, registry


@pytest.fixture(autouse=True)
def _same_table_afterwards(monkeypatch):
    monkeypatch.setattr(registry, "_LAYERS", dict(registry._LAYERS))


def test_register_as_call_and_decorator():
    class First(nn.Module): ...

    class Second(nn.Module): ...

    assert yolo_dyn.register(First) is First
    assert yolo_dyn.register(First, "Third") is First
    assert yolo_dyn.register("Fourth")(Second) is Second
    assert yolo_dyn.register()(Second) is Second
    assert [registry.get(name) for name in ("First", "Third", "Fourth", "Second")] == [First, First, Second, Second]


def test_a_taken_name_is_refused_but_a_class_defined_anew_is_not():
    def define():
        class Again(nn.Module): ...

        return Again

    yolo_dyn.register(define())
    newer = yolo_dyn.register(define())
    assert registry.get("Again") is newer
    with pytest.raises(YoloDynError, match=r"the layer name 'SGDM' is taken by yolo_dyn.layers.sgdm.SGDM"):
        yolo_dyn.register(newer, "SGDM")


@pytest.mark.parametrize("wrong", [nn.Linear(1, 1), int, lambda x: x])
def test_only_module_classes(wrong):
    with pytest.raises(YoloDynError, match=r"register takes an nn.Module class, got"):
        yolo_dyn.register(wrong)


def test_entry_points_are_imported_when_asked_for(monkeypatch):
    points = {
        "Declared": EntryPoint("Declared", "torch.nn:Identity", registry.ENTRY_POINT_GROUP),
        "Broken": EntryPoint("Broken", "no_such_package:Layer", registry.ENTRY_POINT_GROUP),
    }
    monkeypatch.setattr(registry, "_declared", lambda: points)
    assert "Declared" in registry.names()
    assert registry.get("Declared") is nn.Identity
    with pytest.raises(YoloDynError, match="'Broken', declared as 'no_such_package:Layer', cannot be imported"):
        registry.get("Broken")
    assert registry.get("Missing") is None


def test_a_package_cannot_declare_one_of_our_names(monkeypatch):
    points = [EntryPoint("TimmBackbone", "other_package:Backbone", registry.ENTRY_POINT_GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    with pytest.raises(
        YoloDynError,
        match=r"'TimmBackbone', declared as 'other_package:Backbone', is taken by yolo_dyn.backbones.timm",
    ):
        registry._declared.__wrapped__()


def test_every_public_layer_is_registered():
    public = {name: kind for name, kind in vars(layers).items() if isinstance(kind, type)}
    assert public.items() <= registry.all_layers().items()


def test_layers_need_torch_alone():
    forbidden = ("ultralytics", "cv2", "yaml")
    script = f"import sys, yolo_dyn.layers; print([m for m in sys.modules if m.split('.')[0] in {forbidden}])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
