"""`yolo-dyn robustness`: every model under every corruption and strength, on the very same pixels."""

import sys
from pathlib import Path

from ultralytics.utils import LOGGER, TQDM

from yolo_dyn.data.images import EvaluationSet, data_name, evaluation_set
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration.api import chosen_threads
from yolo_dyn.output.arguments import (
    ImageSize,
    Names,
    OrDefault,
    Pictures,
    Positive,
    Severities,
    Share,
    Sigmas,
    Threads,
    checked,
)
from yolo_dyn.output.files import results_folder, writable
from yolo_dyn.output.labels import model_labels
from yolo_dyn.robustness import cells as store
from yolo_dyn.robustness.cells import Cell, Task
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.evaluate import Settings
from yolo_dyn.robustness.executors import RunOptions
from yolo_dyn.robustness.executors import executor as find_executor
from yolo_dyn.robustness.fronts import chosen_fronts
from yolo_dyn.robustness.models import check_model, common_task
from yolo_dyn.robustness.plan import Plan, chosen_conditions
from yolo_dyn.robustness.rediagnosis import diagnosed
from yolo_dyn.robustness.report import write
from yolo_dyn.robustness.results import Sweep


@checked
def robustness(
    model: Names,
    data: str,
    sigma: Sigmas | None = None,
    severity: Severities | None = None,
    corruption: Names | None = None,
    front: Names | None = None,
    seed: OrDefault = 0,
    split: str = "val",
    imgsz: ImageSize = 640,
    batch: Positive = 16,
    conf: Share = 0.001,
    iou: Share = 0.7,
    max_det: Positive = 300,
    half: bool = False,
    device: str = "",
    workers: OrDefault = 0,
    threads: Threads = 0,
    jobs: Positive = 1,
    executor: str = "",
    resamples: Positive = 1000,
    hashes: bool = False,
    json: bool = False,
    pictures: Pictures | None = None,
    name: str = "",
    project: str = "runs/robustness",
) -> Sweep:
    """Evaluate models under noise and other corruptions, all on the same pixels; resumes what was begun.

    The models are of one task: detection, segmentation, pose or oriented boxes (OBB).
    The clean score P is always measured. Every finished cell (model, corruption, strength) is kept, so the same command
    again runs only what is missing, and models that other commands have measured in the folder, on the same pixels with
    the same settings, stand in the report too.

    Args:
        model: checkpoints or exported models; the first is what the others are compared with.
        data: an Ultralytics data YAML.
        sigma: standard deviations of Gaussian noise in grey levels; 0, 10, 20, 30, 40, 50 by default.
        severity: 1 to 5, in place of sigma.
        corruption: names, with severity, or groups (cococ, cococ-extra, noise, blur, weather, digital, sensor, codec);
            sensor_noise:camera.yaml takes a camera's parameters; gaussian_noise by default.
        front: denoisers before each model, beside each model without one: bilateral, median, median5, nlm, one of your
            own, or module:function. By default bilateral and nlm estimate the noise of each image; bilateral:20 takes
            a sigma of 20 grey levels, bilateral:oracle that of gaussian_noise.
        seed: of the corruptions and of the bootstrap.
        split: "train", "val" or "test".
        imgsz: images are letterboxed to a square of so many pixels.
        batch: images a batch.
        conf: least score of a detection.
        iou: threshold of non-maximum suppression.
        max_det: most detections an image.
        half: half precision.
        device: torch device; the first GPU if there is one, else the CPU.
        workers: processes that read and corrupt images.
        threads: of torch on a CPU; as Ultralytics sets them, one less than there are cores, if it is 0.
        jobs: cells at a time, each in its own process.
        executor: "serial", "processes" or "ray".
        resamples: of the images, for the intervals.
        hashes: print and write hashes of all pixels.
        json: also write the detections of all cells in COCO's format, finished ones too, as `yolo-dyn score` takes
            them: detections/<model>/<condition>.json.
        pictures: formats of the pictures that lie beside the page, png (by default), pdf, svg.
        name: of the folder for the results, inside `project`; that of the data set if it is empty.
        project: folder of all such folders.

    Returns:
        All cells with what follows from them, as in results.json.

    Raises:
        YoloDynError: if something does not fit, before anything long begins.
    """
    options = RunOptions(workers, jobs, find_executor(executor, jobs), hashes)
    on = options.executor.device(device)
    settings = Settings(imgsz, batch, conf, iou, max_det, half, on, chosen_threads(threads))
    conditions = chosen_conditions(sigma, severity, corruption)
    plan = Plan(model_labels(model), conditions, settings, seed, resamples, chosen_fronts(front))
    plan.check()
    folder = writable(results_folder(project, name or data_name(data)))
    images = evaluation_set(data, split, task=common_task(plan.models.values()))
    if not images.labelled:
        raise YoloDynError(f"{data}, split {split}, has no labels to score against; found: {images.source}")
    sweep = diagnosed(measure(plan, images, folder, options, others=True))
    if json:
        sweep.write_detections()
    write(sweep, pictures or ["png"])
    return sweep


def measure(plan: Plan, images: EvaluationSet, folder: Path, options: RunOptions, others: bool = False) -> Sweep:
    """Run the cells that are missing in the folder.

    Args:
        plan: what is asked for.
        images: to evaluate on.
        folder: of the cells and of what is written.
        options: how to run them.
        others: also give the models that other commands have measured there in the same way.

    Raises:
        YoloDynError: if a model does not fit, before anything long begins.
    """
    for line in images.log():
        LOGGER.info(line)
    for file in plan.models.values():
        check_model(file, images, plan.settings.imgsz)
    cells = plan.cells(images, options.executor.machine(plan.settings.device))
    for line in store.changed(folder / "cells", cells):
        LOGGER.info(line)
    common = (images, plan.settings, plan.resamples, options.workers, options.hashes, str(folder))
    missing = [cell for cell in cells if _missing(folder, cell, options.hashes)]
    if len(missing) < len(cells):
        LOGGER.info(f"{len(cells) - len(missing)} of {len(cells)} cells are finished already in {folder}")
    if missing:
        tasks = [Task(cell, *common, Corrupter.of(cell.condition, plan.seed), plan.front(cell)) for cell in missing]
        _run(tasks, options, folder)
    found = store.of_other_models(folder / "cells", cells) if others else []
    sweep = Sweep.read(folder, cells, images, plan.as_dict(), typed(), found)
    if sweep.others:
        LOGGER.info(f"measured in {folder} before, in the report too: {', '.join(sweep.others)}")
    return sweep


def _run(tasks: list[Task], options: RunOptions, folder: Path) -> None:
    images = len(tasks[0].images.files)
    # closed by whatever ends the sweep: what is said of its end is the last line
    with TQDM(total=len(tasks) * images, desc=f"{len(tasks)} cells", unit="images") as bar:

        def progress(count: int) -> None:
            if count < images and (bar.n + count) % images == 0:
                bar.desc = f"scoring cell {(bar.n + count) // images} of {len(tasks)}"
            bar.update(count)

        for done, result in enumerate(options.executor.run(tasks, options.jobs, progress), 1):
            store.save(folder / "cells", result)
            # shown, with the new rate, by an update
            bar.desc = f"{done} of {len(tasks)} cells, last: {result.cell.title}"
            if not result.record.detections:
                LOGGER.info(f"\n{result.cell.title}: no detections at all, so every score is 0")


def _missing(folder: Path, cell: Cell, hashes: bool) -> bool:
    record = store.load(folder / "cells", cell)
    return record is None or (hashes and not record.pixels)


def typed() -> str:
    """The command that was typed, if it was."""
    return f"yolo-dyn {' '.join(sys.argv[1:])}" if Path(sys.argv[0]).name == "yolo-dyn" else ""
