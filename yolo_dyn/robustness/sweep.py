"""`yolo-dyn robustness`: every model under every corruption and strength, on the very same pixels."""

import hashlib
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolo_dyn.errors import YoloDynError
from yolo_dyn.robustness import cells as store
from yolo_dyn.robustness.cells import CLEAN, Cell, Task
from yolo_dyn.robustness.corruptions import SEVERITIES, bit_generator, find
from yolo_dyn.robustness.evaluate import Settings, check_model
from yolo_dyn.robustness.executors import executor as find_executor
from yolo_dyn.robustness.images import EvaluationSet, evaluation_set
from yolo_dyn.robustness.report import write
from yolo_dyn.robustness.results import Sweep, data_name

SIGMAS = [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]


@dataclass(frozen=True)
class Plan:
    """What is asked for, checked before anything long begins."""

    models: dict[str, str]  # label -> file
    strengths: list[tuple[str, float | None, int | None]]  # corruption, strength, severity; a clean one first
    settings: Settings
    seed: int
    resamples: int


def robustness(
    model: list[str],
    data: str,
    sigma: list[float] | None = None,
    severity: list[int] | None = None,
    corruption: list[str] | None = None,
    seed: int = 0,
    split: str = "val",
    imgsz: int = 640,
    batch: int = 16,
    conf: float = 0.001,
    iou: float = 0.7,
    max_det: int = 300,
    half: bool = False,
    device: str = "",
    workers: int = 0,
    threads: int = 0,
    jobs: int = 1,
    executor: str = "",
    resamples: int = 1000,
    hashes: bool = False,
    name: str = "",
    project: str = "runs/robustness",
) -> Sweep:
    """Evaluate detection models under noise and other corruptions, all on the same pixels; resumes what was begun.

    The clean score P is always measured. Every finished cell (model, corruption, strength) is kept, so the same command
    again runs only what is missing.

    Args:
        model: checkpoints or exported models; the first is what the others are compared with.
        data: an Ultralytics data YAML.
        sigma: standard deviations of Gaussian noise in grey levels; 0, 10, 20, 30, 40, 50 where nothing is given.
        severity: 1 to 5, in place of sigma.
        corruption: names, with severity; gaussian_noise by default.
        seed: of the corruptions and of the bootstrap.
        split: "train", "val" or "test".
        imgsz: images are letterboxed to a square of so many pixels.
        batch: images a batch.
        conf: least score of a detection.
        iou: threshold of non-maximum suppression.
        max_det: most detections an image.
        half: half precision.
        device: torch device; the first GPU where there is one, else the CPU.
        workers: processes that read and corrupt images.
        threads: of torch on a CPU; as Ultralytics sets them, one less than there are cores, where it is 0.
        jobs: cells at a time, each in its own process.
        executor: "here", "processes" or "ray".
        resamples: of the images, for the intervals.
        hashes: print and write hashes of all pixels.
        name: of the folder for the results, inside `project`; that of the data set where it is empty.
        project: folder of all such folders.

    Returns:
        All cells with what follows from them, as in results.json.

    Raises:
        YoloDynError: where something does not fit, before anything long begins.
    """
    run_all = find_executor(executor, jobs)
    settings = Settings(imgsz, batch, conf, iou, max_det, half, _device(device), _threads(threads))
    plan = Plan(_labels(model), _strengths(sigma, severity, corruption), settings, seed, resamples)
    folder = _folder(Path(project) / (name or data_name(data)))
    images = evaluation_set(data, split)
    for line in images.log():
        print(line)
    for file in plan.models.values():
        check_model(file, images, settings)
    wanted = _cells(plan, images)
    for line in store.changed(folder / "cells", wanted):
        print(line)
    tasks = [
        Task(cell, images, settings, resamples, workers, hashes, str(folder), cell.corrupter(seed))
        for cell in wanted
        if _missing(folder, cell, hashes)
    ]
    _run(tasks, len(wanted), run_all, jobs, folder)
    sweep = Sweep.read(folder, wanted, images, {**asdict(settings), "seed": seed, "resamples": resamples}, _command())
    write(sweep)
    return sweep


def _run(tasks: list[Task], wanted: int, run_all: Any, jobs: int, folder: Path) -> None:
    from ultralytics.utils import TQDM

    if len(tasks) < wanted:
        print(f"{wanted - len(tasks)} of {wanted} cells are finished already in {folder}")
    if not tasks:
        return
    bar = TQDM(total=len(tasks) * len(tasks[0].images.files), desc=f"{len(tasks)} cells", unit="images")
    for done, result in enumerate(run_all(tasks, jobs, bar.update), 1):
        store.save(folder / "cells", result)
        bar.set_description(f"{done} of {len(tasks)} cells, last: {result.cell.title}")
        if not result.record["detections"]:
            print(f"\n{result.cell.title}: no detections at all, so every score is 0")
    bar.close()


def _missing(folder: Path, cell: Cell, hashes: bool) -> bool:
    record = store.load(folder / "cells", cell)
    return record is None or (hashes and not record["pixels"])


def _cells(plan: Plan, images: EvaluationSet) -> list[Cell]:
    common = {
        **asdict(plan.settings),
        "seed": plan.seed,
        "resamples": plan.resamples,
        "images": images.fingerprint,
        "machine": _machine(plan.settings.device),
        "versions": {package: version(package) for package in ("yolo-dyn", "ultralytics", "torch", "opencv-python")},
    }
    weights = {label: store.hash_file(file) for label, file in plan.models.items()}
    return [
        Cell(
            file,
            label,
            corruption,
            strength,
            severity,
            {**common, "weights": weights[label], "corruption": _probe(corruption, strength, plan.seed)},
        )
        for corruption, strength, severity in plan.strengths
        for label, file in plan.models.items()
    ]


def _probe(corruption: str, strength: float | None, seed: int) -> str:
    """Hash of a small corrupted image: another one where the code of a corruption has changed."""
    if strength is None:
        return CLEAN
    image = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)
    made = find(corruption).function(image, strength, bit_generator(seed, "probe", corruption, strength))
    return f"{corruption} {strength:.6g} {hashlib.sha256(made.tobytes()).hexdigest()[:16]}"


def _strengths(
    sigma: list[float] | None, severity: list[int] | None, corruption: list[str] | None
) -> list[tuple[str, float | None, int | None]]:
    if sigma is not None and (severity is not None or corruption not in (None, ["gaussian_noise"])):
        raise YoloDynError("sigma is the strength of gaussian_noise; other corruptions take severity")
    clean: tuple[str, float | None, int | None] = (CLEAN, None, None)
    if severity is None and corruption in (None, ["gaussian_noise"]):
        values = sorted(set(SIGMAS if sigma is None else sigma))
        if not values or not 0 <= values[0] <= values[-1] < float("inf"):
            raise YoloDynError(f"sigma must be grey levels of at least 0, got {sigma}")
        return [clean, *(("gaussian_noise", value, None) for value in values if value)]
    severities = sorted(set(severity or SEVERITIES))
    wrong = [value for value in severities if value not in SEVERITIES]
    if wrong:
        raise YoloDynError(f"severity must be among {', '.join(map(str, SEVERITIES))}, got {wrong[0]}")
    names = dict.fromkeys(corruption or ["gaussian_noise"])
    return [clean, *((c, find(c).strengths[value - 1], value) for c in names for value in severities)]


def _labels(model: list[str] | str) -> dict[str, str]:
    """Short names of the models: the run's of a checkpoint in its folder `weights`, else the file's."""
    files = [model] if isinstance(model, str) else [str(file) for file in model]
    if not files:
        raise YoloDynError("model must name at least one file")
    paths = [Path(file) for file in files]
    short = [path.parent.parent.name if path.parent.name == "weights" else path.stem for path in paths]
    kinds = [f"{name}{path.suffix}" if path.suffix != ".pt" else name for name, path in zip(short, paths, strict=True)]
    labels = kinds if len(set(kinds)) == len(kinds) else [file.replace(os.sep, "-").lstrip(".-") for file in files]
    if len(set(labels)) < len(labels):
        raise YoloDynError(f"a model is given twice: {', '.join(files)}")
    return dict(zip(labels, files, strict=True))


def _folder(folder: Path) -> Path:
    """The folder for the results, made and tried before anything long begins."""
    try:
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        trial = folder / "cells" / f".writable.{os.getpid()}"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise YoloDynError(f"the folder {folder} cannot be written to: {error.strerror}") from error
    return folder


def _device(device: str) -> str:
    return str(device) or ("0" if torch.cuda.is_available() else "cpu")


def _threads(threads: int) -> int:
    from ultralytics.utils import NUM_THREADS

    return threads or NUM_THREADS


def _machine(device: str) -> str:
    return platform.machine() if device == "cpu" else torch.cuda.get_device_name()


def _command() -> str:
    """The command that was typed, where it was."""
    return f"yolo-dyn {' '.join(sys.argv[1:])}" if Path(sys.argv[0]).name == "yolo-dyn" else ""
