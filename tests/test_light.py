"""Installations that lack something: what needs it says so in one line, and all else works."""

import importlib.metadata
import json
import subprocess
import sys

import pytest
from reference_scores import simulated

from yolo_dyn.output import environment

WITHOUT = """
import importlib.metadata, sys
absent = sys.argv.pop(1)
sys.modules[absent] = None
installed = importlib.metadata.version
def version(name):
    if name == absent:
        raise importlib.metadata.PackageNotFoundError(name)
    return installed(name)
importlib.metadata.version = version
from yolo_dyn.cli import main
sys.exit(main())
"""


def without(module, *words, cwd):
    """Run yolo-dyn where a module is not installed."""
    command = [sys.executable, "-c", WITHOUT, module, *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_corruptions_need_no_albumentations(tiny, tmp_path):
    words = ["corrupt", f"data={tiny}", "out=noisy", "corruption=fog", "severity=3"]
    done = without("albumentations", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "noisy" / "fog_severity3").rglob("*.png"))) == 4


@pytest.mark.accept
def test_scores_need_no_compiled_engine(tmp_path):
    truth, rows = simulated(6, classes=3, found=20)
    named = [{**image, "file_name": f"{image['id']}.png"} for image in truth["images"]]
    (tmp_path / "truth.json").write_text(json.dumps({**truth, "images": named}))
    keys = ("image_id", "category_id", "bbox", "score")
    found = [dict(zip(keys, (int(i), int(c), box, s), strict=True)) for i, *box, s, c in rows.tolist()]
    (tmp_path / "found.json").write_text(json.dumps(found))
    words = ["score", "truth=truth.json", "detections=found.json", "resamples=10"]
    results = []
    for absent in ("hotcoco", "no module at all"):
        done = without(absent, *words, f"name={absent}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("scoring by pycocotools" in done.stdout + done.stderr) == (absent == "hotcoco")
        (cell,) = json.loads((tmp_path / "runs/score" / absent / "results.json").read_text())["cells"]
        results.append({key: cell[key] for key in ("AP", "AP_small", "AR100", "per_class", "intervals")})
    assert results[0] == results[1]
    assert 0.1 < results[0]["AP"] < 0.9


def test_an_engine_that_is_not_installed_is_named(tmp_path):
    words = ["score", "truth=truth.json", "detections=found.json", "engine=hotcoco"]
    done = without("hotcoco", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "yolo-dyn: error: engine=hotcoco needs hotcoco: pip install hotcoco\n"


def test_a_recipe_of_noise_names_what_it_needs(tmp_path):
    done = without("albumentations", "noise-recipe", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "yolo-dyn: error: training with noise needs albumentations: pip install albumentations\n"
    assert not list(tmp_path.iterdir())


def test_our_layers_load_nothing_but_torch_beside_ultralytics(tmp_path):
    script = """
import sys, torch
from ultralytics import YOLO
YOLO("yolov8n.yaml")
torch.empty(1, device="meta").uniform_()  # models are built without storage to be probed: some torch needs sympy for it
before = set(sys.modules)
YOLO("yolov8n-sgdm.yaml")
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()[-1].split()) <= {"torch", "yolo_dyn"}


@pytest.mark.parametrize(
    ("package", "alike"),
    [("ultralytics", "ultralytics-opencv-headless"), ("opencv-python", "opencv-python-headless")],
)
def test_versions_of_packages_that_stand_in_for_others(package, alike, monkeypatch):
    def version(name):
        if name == alike:
            return "1.2.3"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment, "version", version)
    assert environment.versions([package, "torch"]) == {package: "1.2.3", "torch": None}
