"""`yolo-dyn deploy`: models as devices will run them: exported, checked, scored under noise, timed and weighed."""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.utils import LOGGER

from yolo_dyn.bench.timing import in_turn, summary
from yolo_dyn.data.images import EvaluationSet, data_name, evaluation_set, letterbox, read_image
from yolo_dyn.deploy.bake import check_mixes, write_baked
from yolo_dyn.deploy.quiet import written_to
from yolo_dyn.deploy.report import Deployment, DeploymentRow, write
from yolo_dyn.deploy.runtimes import Session, open_session
from yolo_dyn.errors import MissingFileError, YoloDynError, nearest
from yolo_dyn.integration import compat
from yolo_dyn.integration.api import chosen_threads
from yolo_dyn.output.arguments import ImageSize, Names, Positive, Sigmas, Threads, checked
from yolo_dyn.output.environment import versions
from yolo_dyn.output.files import hash_file, results_folder, writable, write_json
from yolo_dyn.output.labels import model_labels
from yolo_dyn.robustness.evaluate import Settings
from yolo_dyn.robustness.executors import RunOptions
from yolo_dyn.robustness.models import check_model
from yolo_dyn.robustness.plan import Plan, chosen_conditions
from yolo_dyn.robustness.results import Sweep
from yolo_dyn.robustness.sweep import measure

TORCH = "torch"  # the checkpoint itself, fused
FORMATS: dict[str, dict[str, Any]] = {  # name -> arguments of the stock export
    TORCH: {},
    "torchscript": {"format": "torchscript"},
    "onnx": {"format": "onnx"},
    "onnx-dynamic": {"format": "onnx", "dynamic": True},
    "onnx-half": {"format": "onnx", "quantize": 16},
    "onnx-int8": {"format": "onnx", "quantize": 8},
    "opencv": {"format": "onnx", "form": "unfold"},  # OpenCV 4 dies of computed kernels
    "openvino": {"format": "openvino"},
    "ncnn": {"format": "ncnn"},
}
BAKED = "baked"  # the same with static convolutions, see `bake`
FORMATS |= {BAKED: {}, **{f"{BAKED}-{name}": words for name, words in FORMATS.items() if words}}
BAKED_OVER = 200  # images of the training split
MAKERS = ("yolo-dyn", "ultralytics", "torch")  # of an exported file
PHOTOS = 8  # images on which an export is compared with torch


@checked
def deploy(
    model: Names,
    data: str,
    formats: Names | None = None,
    sigma: Sigmas | None = None,
    split: str = "val",
    imgsz: ImageSize = 640,
    threads: Threads = 0,
    rounds: Positive = 50,
    name: str = "",
    project: str = "runs/deploy",
) -> Deployment:
    """Export models, then compare the files: agreement with torch, AP clean and under noise, latency, size and memory.

    Everything runs on the CPU at batch 1. Exports and scores are kept: the same command again makes only what is
    missing, and times anew.

    Args:
        model: checkpoints; the first is what the others' times are compared with.
        data: an Ultralytics data YAML, for scores and to calibrate INT8.
        formats: torch, torchscript, onnx, onnx-dynamic, onnx-half, onnx-int8, opencv, openvino, ncnn; by default torch,
            onnx, onnx-int8 (Ultralytics has it since 8.4.80) and openvino. baked and baked-onnx, ..., are the model
            whose dynamic convolutions `bake` makes static, at their mean over 200 images of the training split.
        sigma: standard deviations of Gaussian noise in grey levels; 0 and 30 by default.
        split: of the data, for scores.
        imgsz: images are letterboxed to a square of so many pixels.
        threads: of each runtime; as Ultralytics sets torch's if it is 0.
        rounds: calls of each file, in turn.
        name: of the folder for the results, inside `project`; that of the data set if it is empty.
        project: folder of all such folders.

    Returns:
        One row a model and format, as in deploy.csv.

    Raises:
        YoloDynError: if something does not fit, or a format cannot be exported.
    """
    usual = [TORCH, "onnx", *(["onnx-int8"] if compat.can_quantize() else []), "openvino"]
    formats = list(dict.fromkeys(formats or usual))
    models = model_labels(model)
    _check(models, formats)
    threads = chosen_threads(threads)
    settings = Settings(imgsz, batch=1, threads=threads)
    conditions = chosen_conditions([0.0, 30.0] if sigma is None else sigma, None, None)
    folder = writable(results_folder(project, name or data_name(data)))
    images = evaluation_set(data, split)
    for file in models.values():
        check_model(file, images, imgsz)

    files = {
        (label, target): _file(label, models[label], target, imgsz, data, folder / "exports")
        for label in models
        for target in formats
    }
    plan = Plan({f"{label}-{target}": str(file) for (label, target), file in files.items()}, conditions, settings)
    sweep = measure(plan, images, folder, RunOptions())
    deployment = Deployment(folder, rows(models, files, images, sweep, settings, rounds), sweep, imgsz, threads, rounds)
    write(deployment)
    return deployment


def _check(models: dict[str, str], formats: list[str]) -> None:
    for target in formats:
        if target not in FORMATS:
            raise YoloDynError(f"unknown format {target!r}{nearest(target, FORMATS)} (known: {', '.join(FORMATS)})")
        if "quantize" in FORMATS[target] and not compat.can_quantize():
            raise YoloDynError(f"format {target} needs Ultralytics 8.4.80 or newer, which exports it")
    for file in models.values():
        if Path(file).suffix != ".pt":
            raise YoloDynError(f"model must be a checkpoint (.pt), which is exported from here; got {file!r}")
        if not Path(file).is_file():
            raise MissingFileError(f"model {file!r} does not exist")
        if any(target.startswith(BAKED) for target in formats):
            check_mixes(file)


def _file(label: str, checkpoint: str, target: str, imgsz: int, data: str, folder: Path) -> Path:
    """The file of a model in a format, baked and exported into the folder unless it is there already."""
    if target.startswith(BAKED):
        checkpoint = baked(checkpoint, imgsz, data, folder / f"{label}-{BAKED}")
    return exported(checkpoint, target, imgsz, data, folder / f"{label}-{target}")


def baked(checkpoint: str, imgsz: int, data: str, folder: Path) -> str:
    """The checkpoint whose dynamic convolutions are static, baked into the folder unless it is there already."""
    file, note = folder / f"{folder.name}.pt", folder / "bake.json"
    images = evaluation_set(data, "train", labelled=False, count=BAKED_OVER)
    identity = {"weights": hash_file(checkpoint), "imgsz": imgsz, "images": images.fingerprint, **versions(MAKERS)}
    if note.is_file() and file.is_file() and json.loads(note.read_text(encoding="utf-8")) == identity:
        return str(file)
    folder.mkdir(parents=True, exist_ok=True)
    LOGGER.info(f"baking {checkpoint}")
    write_baked(checkpoint, images, file, imgsz, batch=16)
    write_json(note, identity)
    return str(file)


def exported(checkpoint: str, target: str, imgsz: int, data: str, folder: Path) -> Path:
    """The file of a checkpoint in a format, exported into the folder unless it is there already.

    Raises:
        YoloDynError: if the stock export fails; what it and its tools print is in export.log.
    """
    if not FORMATS[target]:
        return Path(checkpoint)
    from ultralytics import YOLO

    calibration = {"data": data} if FORMATS[target].get("quantize") == 8 else {}
    identity = {"weights": hash_file(checkpoint), "imgsz": imgsz, **FORMATS[target], **calibration, **versions(MAKERS)}
    note = folder / "export.json"
    if note.is_file():
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["identity"] == identity and (folder / kept["file"]).exists():
            return folder / kept["file"]
    folder.mkdir(parents=True, exist_ok=True)
    copy, log = folder / f"{folder.name}.pt", folder / "export.log"  # the stock export writes beside its checkpoint
    shutil.copyfile(checkpoint, copy)
    LOGGER.info(f"exporting {checkpoint} to {target}")
    try:
        with written_to(log):
            file = Path(YOLO(copy).export(imgsz=imgsz, device="cpu", **FORMATS[target], **calibration))
    except YoloDynError:
        raise
    except Exception as error:  # as many kinds as there are formats
        raise YoloDynError(f"{checkpoint} cannot be exported to {target}, see {log}: {error}") from error
    finally:
        copy.unlink()
    write_json(note, {"identity": identity, "file": file.name})
    return folder / file.name


def rows(
    models: dict[str, str],
    files: dict[tuple[str, str], Path],
    images: EvaluationSet,
    sweep: Sweep,
    settings: Settings,
    rounds: int,
) -> list[DeploymentRow]:
    """Compare, time and weigh the files."""
    sessions = {key: open_session(file, settings.threads) for key, file in files.items()}
    photos = _photos(images, settings.imgsz)
    truth = {label: _outputs(open_session(file, settings.threads), photos) for label, file in models.items()}
    calls: list[Callable[[], Any]] = [functools.partial(session, photos[:1]) for session in sessions.values()]
    times = dict(zip(files, in_turn(calls, rounds, 5, lambda: None), strict=True))
    scores = {row.model: row.ap for row in sweep.summary}
    found = []
    for (label, target), file in files.items():
        difference = np.abs(_outputs(sessions[label, target], photos) - truth[label])
        time = summary(label, times[label, target], times[next(iter(models)), target])
        found.append(
            DeploymentRow(
                model=label,
                format=target,
                file=str(file),
                file_mib=_bytes(file) / 2**20,
                box_difference=float(difference[:, :4].max()),
                score_difference=float(difference[:, 4:].max()),
                peak_mib=_peak_memory(file, settings),
                median_ms=time.median_ms,
                p95_ms=time.p95_ms,
                ratio=time.ratio,
                ap=scores[f"{label}-{target}"].p,
                mpc=scores[f"{label}-{target}"].mpc,
            )
        )
    return found


def _bytes(file: Path) -> int:
    return sum(f.stat().st_size for f in (file.rglob("*") if file.is_dir() else [file]) if f.is_file())


def _photos(images: EvaluationSet, imgsz: int) -> np.ndarray:
    """The first images as the network gets them, float32 ``[n, C, imgsz, imgsz]``, 0 to 1."""
    first = (read_image(file, images.channels) for file in images.files[:PHOTOS])
    return np.stack([letterbox(image, imgsz).pixels for image in first]).astype(np.float32) / 255


def _outputs(session: Session, photos: np.ndarray) -> np.ndarray:
    return np.concatenate([np.array(session(photo[None])) for photo in photos])  # a copy: a runtime may use it again


def _peak_memory(file: Path, settings: Settings) -> float:
    command = [sys.executable, "-m", "yolo_dyn.deploy.runtimes", str(file), str(settings.imgsz), str(settings.threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise YoloDynError(f"{file} cannot be run in a process of its own: {done.stderr.strip()[-300:]}")
    return float(done.stdout.splitlines()[-1])
