"""The long matrix, on real photos and in empty environments: `make accept`."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from helpers import DETECTORS, ROOT, nano

pytestmark = pytest.mark.accept
COMMON = ("workers=2", "device=cpu", "seed=0")


@pytest.mark.parametrize(("data", "imgsz"), [("voc20", 160), ("coco-tiny", 160)])
def test_two_epochs_on_real_photos(data, imgsz, photos, tmp_path, command):
    words = (
        f"data={photos / data / 'data.yaml'}",
        f"imgsz={imgsz}",
        "epochs=2",
        "batch=16",
        f"project={tmp_path}",
        "name=train",
    )
    command("yolo", "train", "model=yolov8n-sgdm.yaml", *words, *COMMON, cwd=tmp_path)
    best = tmp_path / "train" / "weights" / "best.pt"
    command(
        "yolo",
        "val",
        f"model={best}",
        f"data={photos / data / 'data.yaml'}",
        f"imgsz={imgsz}",
        "device=cpu",
        cwd=tmp_path,
    )


def test_compiled_training(photos, tmp_path, command):
    words = (f"data={photos / 'coco-tiny' / 'data.yaml'}", "imgsz=64", "epochs=1", "batch=8", f"project={tmp_path}")
    command("yolo", "train", "model=yolov8n-sgdm.yaml", "compile=True", *words, *COMMON, cwd=tmp_path)


def test_one_tune_iteration(photos, tmp_path, command):
    script = f"""
from ultralytics import YOLO
YOLO("yolov8n-sgdm.yaml").tune(
    data={str(photos / "coco-tiny" / "data.yaml")!r}, imgsz=64, epochs=1, iterations=1, batch=16, device="cpu",
    project={str(tmp_path)!r}, plots=False, save=False, val=False,
)
"""
    command("python", "-c", script, cwd=tmp_path)
    assert list(tmp_path.rglob("best_hyperparameters.yaml"))


def test_benchmark(photos, tmp_path, command):
    command("python", "-c", "from ultralytics import YOLO; YOLO('yolov8n-sgdm.yaml').save('model.pt')", cwd=tmp_path)
    data = photos / "coco-tiny" / "data.yaml"
    for format in ("-", "torchscript", "onnx"):
        words = (f"data={data}", "imgsz=160", "device=cpu", f"format={format}")
        done = command("yolo", "benchmark", "model=model.pt", *words, cwd=tmp_path)
        table = [line for line in done.stdout.splitlines() if "legend" not in line]
        assert any("✅" in line for line in table), done.stdout[-2000:]
        assert not any(mark in line for line in table for mark in "❌❎"), done.stdout[-2000:]


@pytest.mark.parametrize("batch", ["1", "3"])
def test_training_at_odd_batches_and_rectangles(batch, photos, tmp_path, command):
    words = (f"data={photos / 'coco-tiny' / 'data.yaml'}", "imgsz=96", "rect=True", "epochs=1", f"batch={batch}")
    command("yolo", "train", "model=yolov8n-sgdm.yaml", *words, "fraction=0.2", *COMMON, cwd=tmp_path)


def _environment(folder: Path) -> Path:
    """An empty virtual environment that finds the dependencies, but not this package, where this one has them."""
    venv.create(folder, with_pip=True)
    inner = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (inner / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files are not read
    return folder / "bin"


def test_a_wheel_in_an_empty_environment(tmp_path):
    """A non-editable wheel brings the hook, the model and the data YAMLs, and takes them away again."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("yolo_dyn-*.whl")
    tools = _environment(tmp_path / "env")
    python = str(tools / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True)

    def run(*words: str) -> str:
        return subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    where = Path(run(python, "-c", "import yolo_dyn; print(yolo_dyn.__file__)").strip())
    assert where.is_relative_to(tmp_path / "env")
    assert (where.parent / "py.typed").is_file()
    script = (
        "from ultralytics import YOLO; from ultralytics.utils.checks import check_file;"
        "print(type(YOLO('models_yaml/yolov8n-sgdm.yaml').model.model[22]).__module__, check_file('shapes.yaml'))"
    )
    module, shapes = run(python, "-c", script).split()[-2:]
    assert module == "yolo_dyn.layers.sgdm"
    assert shapes.startswith(str(tmp_path / "env"))
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "yolo-dyn")
    left = [file for file in (tmp_path / "env").rglob("*yolo_dyn*") if "__pycache__" not in str(file)]
    assert not left


def test_the_paper_s_targets_are_printed_beside_ours(command, tmp_path):
    for name in ("yolov5n", "yolov5s", "yolov6n", "yolov6s", "yolov8n", "yolov8s"):
        text = command("yolo-dyn", "info", f"model={name}-sgdm.yaml", cwd=tmp_path).stdout
        assert "paper, Table 2" in text
        print(text[text.index("\n\n") :])


def test_the_demo(tmp_path, command):
    text = command("yolo-dyn", "demo", f"out={tmp_path / 'demo'}", cwd=tmp_path).stdout
    assert "AP50 0." in text
    assert (tmp_path / "demo" / "predictions.png").is_file()


@pytest.mark.parametrize("name", DETECTORS)
def test_one_epoch_of_every_bundled_model(name, tmp_path, command):
    words = ("data=shapes.yaml", "imgsz=96", "epochs=1", "batch=16", f"project={tmp_path}", "name=train", "plots=False")
    command("yolo", "train", f"model={nano(name)}", *words, *COMMON, cwd=tmp_path)
    assert (tmp_path / "train" / "weights" / "best.pt").is_file()
