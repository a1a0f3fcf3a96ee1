"""The stock `yolo` command on our models, in fresh processes, from a folder whose name trips up Ultralytics' rules."""

import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import ROOT, save, since, torch_older
from ultralytics import YOLO

from yolo_dyn.layers import SGDM

SMALL = ("imgsz=64", "batch=8", "workers=0", "device=cpu", "plots=False", "seed=0")
FAST = (*SMALL, "deterministic=False")  # for which torch loads its compiler


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project folder whose path contains a scale-like `2s` and a space, with its own copy of a model YAML."""
    folder = tmp_path_factory.mktemp("elsewhere") / "my run2s"
    (folder / "models").mkdir(parents=True)
    shutil.copy(ROOT / "models_yaml" / "yolov8-sgdm.yaml", folder / "models" / "yolov8-mine.yaml")
    return folder


@pytest.fixture(scope="module")
def trained(project, tiny, command) -> Path:
    """Train three epochs, kill the process after the first, resume: the weights of the finished run."""
    run = project / "runs" / "train"
    words = [
        "train",
        "model=models/yolov8n-mine.yaml",
        f"data={tiny}",
        "epochs=3",
        f"project={run.parent}",
        "name=train",
        *FAST,
    ]
    log = (project / "train.log").open("w")
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("yolo")), *words], cwd=project, env=dict(os.environ), stdout=log, stderr=log
    )
    deadline = time.time() + 300
    while not (run / "weights" / "best.pt").exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    process.kill()  # best.pt is begun when last.pt, from which the run resumes, is complete
    process.wait()
    log.close()
    before = epochs(run)
    assert 1 <= before < 3, (project / "train.log").read_text()[-2000:]
    command("yolo", "train", "resume", f"model={run / 'weights' / 'last.pt'}", cwd=project)
    assert epochs(run) == 3
    return run / "weights" / "best.pt"


def epochs(run: Path) -> int:
    with (run / "results.csv").open() as file:
        return len(list(csv.DictReader(file)))


def test_train_interrupted_and_resumed(trained):
    model = YOLO(trained).model
    assert sum(isinstance(m, SGDM) for m in model.model) == 3
    assert model.yaml["head"][-2][2] == "SGDM"


@pytest.mark.parametrize("safe", [pytest.param("0", marks=pytest.mark.accept), "1"])
def test_val(trained, tiny, project, command, safe):
    done = command("yolo", "val", f"model={trained}", f"data={tiny}", *SMALL, cwd=project, ULTRALYTICS_SAFE_LOAD=safe)
    shown = done.stdout + done.stderr
    assert "mAP50-95" in shown
    assert "yolov8n-mine summary (fused)" in shown.replace("YOLO", "yolo")


@pytest.mark.parametrize("mode", ["predict", pytest.param("track", marks=pytest.mark.accept)])
def test_predict_and_track(mode, trained, tiny, project, command):
    images = tiny.parent / "images" / "val"
    words = [f"source={images}", "save_txt=True", "conf=0.001", "imgsz=64", "device=cpu"]
    words += [f"project={project / 'runs'}", f"name={mode}"]
    command("yolo", mode, f"model={trained}", *words, cwd=project.parent)
    assert len([file for file in (project / "runs" / mode).iterdir() if file.is_file()]) == 4


def test_export_to_onnx_agrees_with_torch(trained, project, command):
    import onnxruntime

    command("yolo", "export", f"model={trained}", "format=onnx", "imgsz=64", "device=cpu", cwd=project)
    session = onnxruntime.InferenceSession(trained.with_suffix(".onnx"), providers=["CPUExecutionProvider"])
    x = torch.rand(1, 3, 64, 64)
    found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    expected = YOLO(trained).model.eval()(x)[0]
    assert torch.allclose(found[:, :4], expected[:, :4], atol=1e-2)
    assert torch.allclose(found[:, 4:], expected[:, 4:], atol=1e-4)


@since("8.4.45", "transfer of the head if the classes are others")
def test_transfer_and_freeze(trained, tiny, project, command):
    words = ("model=yolov8n-sgdm.yaml", f"pretrained={trained}", "freeze=10", "epochs=1", f"project={project / 'runs'}")
    done = command("yolo", "train", *words, "name=frozen", f"data={tiny}", *FAST, cwd=project)
    total = len(YOLO(trained).model.state_dict())
    assert f"Transferred {total}/{total} items from pretrained weights" in done.stdout
    assert "Freezing layer 'model.9." in done.stdout


@since("8.4.67", "restricted loading")
@pytest.mark.skipif(torch_older("2.6"), reason="Ultralytics itself restricts no loading with torch before 2.6")
def test_restricted_loading_refuses_what_is_not_registered(trained, project, command):
    (project / "stranger.py").write_text("from torch import nn\nclass Stranger(nn.Module): ...\n")
    script = f"""
import torch, stranger
from ultralytics import YOLO
checkpoint = torch.load({str(trained)!r}, weights_only=False)
checkpoint["model"].extra = stranger.Stranger()
torch.save(checkpoint, "stranger.pt")
YOLO("stranger.pt")
"""
    command("python", "-c", script, cwd=project)
    load = "import sys; sys.path.insert(0, '.'); from ultralytics import YOLO; YOLO('stranger.pt')"
    refused = command("python", "-c", load, cwd=project, ok=False, ULTRALYTICS_SAFE_LOAD="1")
    assert refused.returncode != 0
    assert "stranger.Stranger" in refused.stderr + refused.stdout


@since("8.4.67", "restricted loading")
def test_a_registered_class_of_the_users_own_is_loaded_under_restriction(project, command):
    (project / "own.py").write_text(
        "import yolo_dyn\nfrom torch import nn\n@yolo_dyn.register\nclass OwnConv(nn.Conv2d): ...\n"
    )
    (project / "yolov8-own.yaml").write_text(
        (ROOT / "models_yaml" / "yolov8-sgdm.yaml").read_text().replace("SGDM, [256]", "OwnConv, [256, 1]")
    )
    script = """
import own
from ultralytics import YOLO
model = YOLO("yolov8n-own.yaml")
model.ckpt = {}
model.save("own.pt")
print(type(YOLO("own.pt").model.model[22]).__name__)
"""
    assert command("python", "-c", script, cwd=project, ULTRALYTICS_SAFE_LOAD="1").stdout.split()[-1] == "OwnConv"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=yolov8n-broken.yaml",), "yolov8n-broken.yaml, row 22 (SGDM): ratio must lie in (0, 1/3], got 0.9"),
        *(
            pytest.param(*case, marks=pytest.mark.accept)
            for case in (
                (("model=yolov8n-sgdn.yaml",), "did you mean 'yolov8-sgdm.yaml'"),
                (("model=yolov8n-sgdm.yaml", "data=nowhere.yaml"), "'nowhere.yaml' does not exist"),
            )
        ),
    ],
)
def test_bad_input_to_the_stock_command_is_one_line(words, message, project, command):
    text = (ROOT / "models_yaml" / "yolov8-sgdm.yaml").read_text()
    (project / "yolov8-broken.yaml").write_text(text.replace("SGDM, [256]", "SGDM, [256, {ratio: 0.9}]"))
    done = command("yolo", "train", *words, "epochs=1", cwd=project, ok=False, fresh=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("yolo-dyn: error:")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.accept
def test_the_stock_checks_still_work(project, command):
    assert "ultralytics" in command("yolo", "checks", cwd=project).stdout.lower()


def test_stock_models_still_work(tiny, project, command):
    save(YOLO("yolov8n.yaml"), project / "stock.pt")
    images = tiny.parent / "images" / "val"
    command("yolo", "predict", "model=stock.pt", f"source={images}", "imgsz=64", "device=cpu", cwd=project)
