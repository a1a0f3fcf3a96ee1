"""The table of layers."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from torch import nn

import yolo_dyn
from yolo_dyn import YoloDynError, layers, registry

pytestmark = pytest.mark.usefixtures("same_layers")


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


@pytest.fixture
def declare(monkeypatch):
    """Let installed packages declare layers, ``{name: place}``."""

    def declare(**places: str) -> None:
        points = [EntryPoint(name, place, registry.ENTRY_POINT_GROUP) for name, place in places.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        monkeypatch.setattr(registry, "find_declared", registry.find_declared.__wrapped__)

    return declare


def test_entry_points_are_imported_when_asked_for(declare):
    declare(Declared="torch.nn:Identity", Broken="no_such_package:Layer", NoLayer="math:pi")
    assert "Declared" in registry.names()
    assert registry.get("Declared") is nn.Identity
    assert registry.kind_of(nn.Identity) == "module"
    for _ in range(2):  # what failed once is not forgotten
        with pytest.raises(YoloDynError, match="'Broken', declared as 'no_such_package:Layer', cannot be imported"):
            registry.get("Broken")
        with pytest.raises(YoloDynError, match=r"register takes an nn.Module class, got 3\.14"):
            registry.get("NoLayer")
    assert registry.get("Missing") is None
    with pytest.raises(YoloDynError, match=r"unknown layer 'Declare'; did you mean 'Declared'\? \(known: A2D2C, "):
        registry.require("Declare")


def test_a_declared_layer_keeps_the_kind_that_its_module_gives_it(declare, tmp_path, monkeypatch):
    text = "import torch, yolo_dyn\n@yolo_dyn.register(kind='convolution')\nclass Declared(torch.nn.Conv2d): ...\n"
    (tmp_path / "layers_of_mine.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    declare(Declared="layers_of_mine:Declared")
    assert "Declared" in registry.names("convolution")
    assert registry.get("Declared").__module__ == "layers_of_mine"


@pytest.mark.parametrize("name", ["TimmBackbone", "SGDM"])
def test_a_package_cannot_declare_one_of_our_names(declare, name):
    declare(**{name: "other_package:Backbone"})
    with pytest.raises(
        YoloDynError, match=f"the layer name '{name}', declared as 'other_package:Backbone', is taken by yolo_dyn"
    ):
        registry.names()


class Fused(nn.Conv2d):
    def fuse(self) -> None: ...


@pytest.mark.parametrize(
    ("layer", "kind", "message"),
    [
        (nn.Conv2d, "conv", "kind must be one of convolution, module, network, got 'conv'"),
        (nn.Conv2d, "network", r"Conv2d lacks the static method out_channels\(in_channels, args\)"),
        (Fused, "convolution", "Fused.fuse must take guide=None and bn=None"),
    ],
)
def test_a_kind_must_have_what_it_is_asked_for(layer, kind, message):
    with pytest.raises(YoloDynError, match=message):
        yolo_dyn.register(layer, "Mine", kind)


def test_the_kind_is_told_or_seen():
    class Sum(nn.Module):
        @staticmethod
        def out_channels(in_channels, args):
            return in_channels[0]

    class Mine(nn.Conv2d): ...

    assert registry.kind_of(yolo_dyn.register(Sum)) == "network"
    assert registry.kind_of(yolo_dyn.register(Mine)) == "module"  # an nn.Conv2d has a number of that name
    assert registry.kind_of(yolo_dyn.register("Mine", kind="convolution")(Mine)) == "convolution"
    assert registry.kind_of(nn.Linear) is None
    registry.unregister("Mine")
    assert registry.get("Mine") is None
    for name in ("Mine", "SGDM"):
        with pytest.raises(
            YoloDynError, match=f"unregister takes the name of a layer that was registered, got {name!r}"
        ):
            registry.unregister(name)


def test_our_layers_stand_beside_those_of_ultralytics():
    import ultralytics.nn.modules as modules
    import ultralytics.nn.tasks as tasks

    yolo_dyn.integrate()
    assert modules.SGDM is tasks.SGDM is layers.SGDM
    assert modules.CBAM is not layers.CBAM  # theirs stays
    assert not hasattr(tasks, "CBAM")


def test_every_public_layer_is_registered():
    public = {name: getattr(layers, name) for name in layers.FILES}
    assert public.items() <= registry.all_layers().items()
    assert set(public) <= set(dir(layers))
    with pytest.raises(AttributeError, match="has no attribute 'SGDN'"):
        _ = layers.SGDN


def test_layers_need_torch_alone():
    forbidden = ("ultralytics", "cv2", "yaml")
    script = f"""
import sys
from yolo_dyn import layers
print(len([getattr(layers, name) for name in layers.FILES]), [m for m in sys.modules if m.split('.')[0] in {forbidden}])
"""
    assert fresh(script) == f"{len(layers.FILES)} []"


def test_a_layer_is_imported_when_it_is_asked_for():
    script = """
import sys
from torch import nn
from ultralytics.nn import tasks
from yolo_dyn import layers, registry
def imported():
    return sorted({file for file in layers.FILES.values() if f"yolo_dyn.layers.{file}" in sys.modules})
print(imported())
tasks.DetectionModel("yolov8n.yaml", verbose=False).fuse(verbose=False)
print(imported())
from yolo_dyn.layers.odconv import ODConv
net = nn.Sequential(nn.Conv2d(3, 8, 3), ODConv(8, 8, 3))
print(registry.kind_of(ODConv), [type(m).__name__ for m in registry.in_model(net)], registry.get("ODConv") is ODConv)
print(imported())
"""
    assert fresh(script).splitlines()[-4:] == ["[]", "[]", "convolution ['ODConv'] True", "['odconv']"]


def fresh(script: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
