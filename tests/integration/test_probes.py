"""Ultralytics as it may become: what passes the probes works, what fails one is named, stock models never suffer."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import ultralytics
from helpers import save
from ultralytics import YOLO

from yolo_dyn import YoloDynError, cli
from yolo_dyn.bench import installation as installed
from yolo_dyn.integration import probes

SCRIPT = """
import json, torch
from ultralytics import YOLO
from yolo_dyn.bench.check import check

def error_of(do):
    try:
        do()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

told = {"stock": list(YOLO("yolov8n.yaml").model.eval()(torch.zeros(1, 3, 64, 64))[0].shape)}
print("OURS")
told["built"] = error_of(lambda: YOLO("yolov8n-sgdm.yaml"))
told["loaded"] = error_of(lambda: YOLO("sgdm.pt").model.fuse())
installed = check()
print(json.dumps({**told, "check": str(installed), "ok": installed.ok}))
"""
VERSION = (r'__version__ = "[\d.]+"', '__version__ = "9.9.9"', "__init__.py")
TASKS, CONV = "nn/tasks.py", "make_divisible(min(c2, max_channels) * width, 8)"
CHANGES = {
    "nothing but the version": [],
    "parse_model renamed": [(r"\bparse_model\b", "parse_yaml_dict", "**/*.py")],
    "Conv rows resolve otherwise": [(re.escape(CONV), CONV.replace("8", "64"), TASKS)],
    "without fuse": [(r"def fuse\(self", "def fold(self", TASKS), (r"model\.fuse\(", "model.fold(", "**/*.py")],
    "parse_model takes more": [
        (r"def parse_model\(d, ch, verbose=True\)", "def parse_model(d, ch, verbose=True, *, device=None)", TASKS),
        (r"(= parse_model\(.*), verbose=verbose\)", r"\1, verbose=verbose, device=None)", "**/*.py"),
    ],
    "parse_model wants more": [
        (r"def parse_model\(d, ch, verbose=True\)", "def parse_model(d, ch, verbose=True, *, device)", TASKS),
        (r"(= parse_model\(.*), verbose=verbose\)", r"\1, verbose=verbose, device=None)", "**/*.py"),
    ],
}
FAILING = {
    "parse_model renamed": "ultralytics.nn.tasks:parse_model",
    "Conv rows resolve otherwise": "rows build",
    "without fuse": "ultralytics.nn.tasks:BaseModel.fuse",
    "parse_model wants more": "ultralytics.nn.tasks:parse_model",
}
TOUCHED = ("nothing but the version", "without fuse")  # by `make test`


def some(names):
    return [pytest.param(name, marks=[] if name in TOUCHED else pytest.mark.accept) for name in names]


@pytest.fixture(scope="module")
def in_a_changed(tmp_path_factory):
    """What happens in an Ultralytics in which something has changed: what is logged of ours, and what SCRIPT prints."""
    work = tmp_path_factory.mktemp("changed")
    save(YOLO("yolov8n-sgdm.yaml"), work / "sgdm.pt")

    @functools.cache
    def run(name: str) -> tuple[list[str], dict]:
        folder = work / name
        source = Path(ultralytics.__file__).parent
        shutil.copytree(source, folder / "ultralytics")
        for pattern, replacement, files in [VERSION, *CHANGES[name]]:
            edited = 0
            for file in (folder / "ultralytics").glob(files):
                text, count = re.subn(pattern, replacement, file.read_text())
                edited += count
                if count:
                    file.write_text(text)
            assert edited, f"{pattern} is nowhere"
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        *lines, printed = done.stdout.splitlines()
        assert not [line for line in lines[: lines.index("OURS")] if "yolo-dyn " in line]
        return [line for line in lines if "yolo-dyn " in line], json.loads(printed)

    return run


@pytest.mark.parametrize("name", some(CHANGES))
def test_stock_models_never_suffer(name, in_a_changed):
    assert in_a_changed(name)[1]["stock"] == [1, 84, 84]


@pytest.mark.parametrize("name", some(sorted(CHANGES.keys() - FAILING.keys())))
def test_a_newer_version_works_with_one_line(name, in_a_changed):
    logged, told = in_a_changed(name)
    assert (told["built"], told["loaded"], told["ok"]) == (None, None, True)
    assert len(logged) == 1
    assert f"and ultralytics 9.9.9: newer than any tested one ({probes.TESTED[1]}), and passes all probes" in logged[0]
    assert "FAILS" not in told["check"]
    assert "Ultralytics is newer than any that yolo-dyn is tested with" in told["check"]


@pytest.mark.parametrize("way", ["built", "loaded"])
@pytest.mark.parametrize("name", some(FAILING))
def test_a_probe_that_fails_is_named(name, way, in_a_changed):
    logged, told = in_a_changed(name)
    assert logged == []
    assert told[way].startswith("YoloDynError: yolo-dyn ")
    assert f"the probe '{FAILING[name]}'" in told[way]
    assert "ultralytics 9.9.9" in told[way]
    assert f'pip install "ultralytics<={probes.TESTED[1]}"' in told[way]
    assert not told["ok"]
    assert re.search(rf"^{re.escape(FAILING[name])} +FAILS: ", told["check"], re.MULTILINE)


def test_check_of_this_installation(capsys):
    assert cli.main(["check"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^rows build +passes$", shown, re.MULTILINE)
    assert re.search(rf"^ultralytics +{re.escape(ultralytics.__version__)}$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ({"opencv-python-headless": "5.0"}, ""),
        ({}, "OpenCV: none; one of opencv-python and opencv-python-headless is needed"),
        ({"opencv-python": "5.0", "opencv_python_headless": "5.0"}, "all own the same files cv2/, of one version"),
        ({"opencv-python": "5.0", "opencv-python-headless": "4.9"}, "the last that was installed: keep one version"),
    ],
)
def test_how_many_opencvs_there_are(names, line, monkeypatch):
    def dist(name, version):
        return types.SimpleNamespace(metadata={"Name": name}, version=version)

    others = {"ultralytics-opencv-headless": "8.4.190", "numpy": "2.0"}
    monkeypatch.setattr(installed, "distributions", lambda: [dist(*each) for each in (others | names).items()])
    shown = str(installed.installation())
    assert line in shown
    assert ("OpenCV: " in shown) == bool(line)


@pytest.fixture
def anew():
    """Probes that have not been run, before the test and after it."""
    probes.forget()
    yield
    probes.forget()


def test_probes_are_the_same_wherever_they_are_asked_for(anew):
    """They draw nothing from torch's generator; no device or precision that is set around them reaches them."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert not any(probes.results().values())
    assert torch.equal(torch.rand(3), expected)


def test_what_fails_is_told_at_every_gate(anew, monkeypatch):
    def fails():
        raise RuntimeError("another")

    model = YOLO("yolov8n-sgdm.yaml").model
    probes.forget()
    monkeypatch.setitem(probes.PROBES, "rows build", fails)
    for gate in (lambda: YOLO("yolov8n-sgdm.yaml"), model.fuse, lambda: model.load(model)):
        with pytest.raises(YoloDynError, match="the probe 'rows build' fails: RuntimeError: another"):
            gate()
    YOLO("yolov8n.yaml").model.fuse(verbose=False)
