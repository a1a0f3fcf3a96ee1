"""The start-up hook: what a fresh interpreter knows, what it costs, how it is turned off, what stays untouched."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import ultralytics
import yaml
from helpers import ROOT

from yolo_dyn.integration.workers import HEAD

BUILD = "from ultralytics import YOLO; print(type(YOLO('yolov8n-sgdm.yaml').model.model[22]).__name__)"
STOCK_MODELS = """
import copy, hashlib, json, logging, sys
from pathlib import Path
import torch, ultralytics, yaml
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER
LOGGER.setLevel(logging.ERROR)
built = {}
for file in sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml"))[::int(sys.argv[1])]:
    d = yaml.safe_load(file.read_text())
    for row in d["backbone"]:
        if row[2] == "TorchVision":
            row[3][2] = None  # its pretrained weights would have to be downloaded
    for scale in list(d.get("scales") or [""])[:1]:  # all scales have the same rows
        d["scale"], d["yaml_file"] = scale, str(file)
        with torch.device("meta"):
            model, save = tasks.parse_model(copy.deepcopy(d), 3, verbose=False)
        keys = [(key, list(value.shape)) for key, value in model.state_dict().items()]
        built[file.stem + scale] = hashlib.sha256(json.dumps([keys, save]).encode()).hexdigest()
print(json.dumps(built))
"""


def python(*words: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_process_that_never_imports_yolo_dyn_builds_our_models(tmp_path):
    """What multi-GPU training starts for each GPU is such a process."""
    assert python("-c", BUILD, cwd=tmp_path).split()[-1] == "SGDM"


@pytest.mark.parametrize("hook", [pytest.param("1", marks=pytest.mark.accept), "0"])
def test_a_worker_process_unpickles_and_trains_our_model(hook, tmp_path, tiny):
    """The file that multi-GPU training starts its workers from, run by hand.

    With the hook it need not import yolo_dyn; where the hook is off, the lines are there that do.
    """
    script = f"""
import os, subprocess, sys
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.dist import generate_ddp_file
args = dict(model="yolov8n-sgdm.yaml", data={str(tiny)!r}, imgsz=64, epochs=1, batch=8, workers=0, device="cpu")
args |= {{"plots": False, "lr_steps": {{1: 0.5}}, "project": {str(tmp_path)!r}, "name": "worker"}}
trainer = DetectionTrainer(overrides=args)
file = generate_ddp_file(trainer)
text = open(file).read().removeprefix({HEAD!r})
if os.environ.get("YOLO_DYN_AUTOREGISTER") != "0":
    assert "yolo_dyn" not in text
    open(file, "w").write(text)
sys.exit(subprocess.run([sys.executable, file]).returncode)
"""
    before = "import yolo_dyn; yolo_dyn.integrate()\n" if hook == "0" else ""
    python("-c", before + script, cwd=tmp_path, YOLO_DYN_AUTOREGISTER=hook)
    assert (tmp_path / "worker" / "weights" / "last.pt").is_file()
    assert yaml.safe_load((tmp_path / "worker" / "args.yaml").read_text())["lr_steps"] == {1: 0.5}


def test_switched_off(tmp_path):
    script = "import yolo_dyn, ultralytics.nn.tasks as t; print(hasattr(t.parse_model, '_yolo_dyn'))"
    assert python("-c", script, cwd=tmp_path).split()[-1] == "True"
    assert python("-c", script, cwd=tmp_path, YOLO_DYN_AUTOREGISTER="0").split()[-1] == "False"
    explicit = f"import yolo_dyn; yolo_dyn.integrate(); {BUILD}"
    assert python("-c", explicit, cwd=tmp_path, YOLO_DYN_AUTOREGISTER="0").split()[-1] == "SGDM"


@pytest.mark.parametrize(
    "order",
    [
        "import yolo_dyn, ultralytics",
        pytest.param("import ultralytics.nn.tasks, yolo_dyn", marks=pytest.mark.accept),
    ],
)
def test_importing_does_what_the_hook_does(tmp_path, order):
    """`-I -S` reads no .pth file, as a `--target` installation, PYTHONPATH or a frozen program does not."""
    installed = Path(ultralytics.__file__).parents[1]  # which may lie apart from all else
    paths = [str(ROOT), str(installed), *(p for p in sys.path if p.endswith("site-packages"))]
    script = f"import sys; sys.path[:0] = {paths!r}; assert 'yolo_dyn' not in sys.modules; {order}; {BUILD}"
    assert python("-I", "-S", "-c", script, cwd=tmp_path).split()[-1] == "SGDM"


def test_ultralytics_is_integrated_if_our_own_integration_imports_it(tmp_path):
    """With 8.3.0 it does: the hook comes when `yolo_dyn.integration` is half imported. Elsewhere it is made to."""
    early = f"""
import sys
class Early:
    def find_spec(self, name, path=None, target=None):
        if name == "yolo_dyn.integration.annealing":
            sys.meta_path.remove(self)
            import ultralytics.nn.tasks
sys.meta_path.insert(0, Early())
from yolo_dyn import insert
assert not any(isinstance(finder, Early) for finder in sys.meta_path)
{BUILD}
"""
    assert python("-W", "error:yolo-dyn", "-c", early, cwd=tmp_path).split()[-1] == "SGDM"


def test_the_start_file_names_the_hook(tmp_path):
    """What Python 3.15 and later do with it: a line that is no comment names a callable, which is called."""
    (entry,) = [line for line in (ROOT / "yolo_dyn.start").read_text().splitlines() if not line.startswith("#")]
    script = f"""
import pkgutil, sys
for _ in range(2):
    pkgutil.resolve_name({entry!r})()
print(sum(type(f).__name__ == "IntegrateOnImport" for f in sys.meta_path))
"""
    assert (
        python("-I", "-S", "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n{script}", cwd=tmp_path).strip() == "1"
    )


def test_the_stock_commands_without_a_hook(tmp_path, tiny):
    words = ("model=yolov8n-sgdm.yaml", f"data={tiny}", "imgsz=64", "epochs=1", "batch=8", "workers=0", "device=cpu")
    words += ("plots=False", "deterministic=False")
    off = {"cwd": tmp_path, "YOLO_DYN_AUTOREGISTER": "0"}
    python("-m", "yolo_dyn", "train", *words, f"project={tmp_path}", "name=run", "lr_steps={1: 0.5}", **off)
    best = tmp_path / "run" / "weights" / "best.pt"
    words = (f"source={tiny.parent / 'images' / 'val' / '0.bmp'}", "imgsz=64", f"project={tmp_path}", "name=predicted")
    python("-m", "yolo_dyn", "detect", "predict", f"model={best}", *words, **off)
    wrong = [sys.executable, "-m", "yolo_dyn", "train", "model=yolov8n-sgmd.yaml"]
    environment = {**os.environ, "YOLO_DYN_AUTOREGISTER": "0"}
    done = subprocess.run(wrong, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'yolov8-sgdm.yaml'" in done.stderr.splitlines()[-1]


def test_the_hook_is_idempotent_and_imports_the_standard_library_only(tmp_path):
    line = (ROOT / "yolo_dyn.pth").read_text()
    script = f"""
import sys
exec({line!r}); exec({line!r})
print(sum(type(f).__name__ == "IntegrateOnImport" for f in sys.meta_path))
print(sorted({{m.split(".")[0] for m in sys.modules}} - set(sys.stdlib_module_names)))
"""
    count, modules = python("-c", script, cwd=tmp_path).splitlines()[-2:]
    assert count == "1"
    assert not {"torch", "ultralytics", "numpy", "yaml"} & set(json.loads(modules.replace("'", '"')))
    assert len(line.splitlines()) == 1


def test_the_hook_costs_under_5_ms_of_start_up(tmp_path):
    """Python's own account of the import, the median of several starts."""
    times = []
    for _ in range(7):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", ""], capture_output=True, text=True, cwd=tmp_path
        )
        row = next(line for line in done.stderr.splitlines() if line.split("|")[-1].strip() == "yolo_dyn")
        times.append(int(row.split("|")[1]))
    assert statistics.median(times) < 5000, times


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.accept)])
def test_stock_models_build_identically_with_the_hook_on_and_off(every, tmp_path):
    words = ("-c", STOCK_MODELS, str(every))
    printed = [python(*words, cwd=tmp_path, YOLO_DYN_AUTOREGISTER=flag) for flag in ("1", "0")]
    on, off = (json.loads(text.splitlines()[-1]) for text in printed)
    assert len(on) > 40 / every  # 45 in 8.3.0, and more since
    assert on == off
