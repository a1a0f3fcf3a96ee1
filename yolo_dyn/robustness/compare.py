"""`yolo-dyn compare`: the same noisy pixels under every model, side by side (SGDM paper, Fig. 4)."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from ultralytics.data.utils import img2label_paths
from ultralytics.utils import LOGGER

from yolo_dyn.data.images import EvaluationSet, data_name, evaluation_set, source_files, source_name
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration.api import chosen_device, chosen_threads
from yolo_dyn.output.arguments import (
    ImageSize,
    Names,
    OrDefault,
    Positive,
    Severities,
    Share,
    Sigmas,
    checked,
)
from yolo_dyn.output.files import results_folder, writable
from yolo_dyn.output.labels import model_labels
from yolo_dyn.output.outcome import Written
from yolo_dyn.robustness.corruptions import GAUSSIAN
from yolo_dyn.robustness.evaluate import Settings
from yolo_dyn.robustness.executors import RunOptions
from yolo_dyn.robustness.fronts import chosen_fronts
from yolo_dyn.robustness.models import common_task, described
from yolo_dyn.robustness.pictures import grid, judged, most_different, spread_conditions
from yolo_dyn.robustness.plan import Plan, chosen_conditions
from yolo_dyn.robustness.sweep import measure

SIGMAS = [0.0, 25.0, 50.0]


@checked
def compare(
    model: Names,
    source: str = "",
    data: str = "",
    split: str = "val",
    images: Names | None = None,
    count: Positive = 3,
    sigma: Sigmas | None = None,
    severity: Severities | None = None,
    corruption: Names | None = None,
    front: Names | None = None,
    conf: Share = 0.25,
    seed: OrDefault = 0,
    imgsz: ImageSize = 640,
    device: str = "",
    name: str = "",
    project: str = "runs/compare",
) -> Written:
    """Draw what models detect in the same noisy images: found, missed and false alarms where the truth is known.

    The models are of one task: detection, segmentation, pose or oriented boxes (OBB).

    Args:
        model: checkpoints or exported models.
        source: folder, file or pattern of images; YOLO labels are found beside them as in training, if a data YAML
            above them has the model's classes.
        data: a data YAML in place of a source.
        split: of the data.
        images: file names to draw; those where the models differ most under the last condition by default.
        count: how many to choose.
        sigma: standard deviations of Gaussian noise in grey levels; 0, 25, 50 by default.
        severity: 1 to 5, in place of sigma.
        corruption: names, with severity, or groups (cococ, cococ-extra, noise, blur, weather, digital, sensor, codec);
            sensor_noise:camera.yaml takes a camera's parameters; gaussian_noise by default.
        front: denoisers before each model, drawn in rows of their own beside each model without one: bilateral, median,
            median5, nlm, one of your own, or module:function. By default bilateral and nlm estimate the noise of each
            image; bilateral:20 takes a sigma of 20 grey levels, bilateral:oracle that of gaussian_noise.
        conf: least score of a detection that is drawn.
        seed: of the corruptions.
        imgsz: images are letterboxed to a square of so many pixels.
        device: torch device; the first GPU if there is one, else the CPU.
        name: of the folder for the results, inside `project`; that of the source or data if it is empty.
        project: folder of all such folders.

    Returns:
        The picture; its text says which images were drawn.

    Raises:
        YoloDynError: if something does not fit, before anything long begins.
    """
    if bool(source) == bool(data):
        raise YoloDynError("give one of source (images) and data (a data YAML)")
    settings = Settings(imgsz, device=chosen_device(device), threads=chosen_threads(0))
    by_default = sigma is None and severity is None and corruption in (None, [GAUSSIAN])
    conditions = chosen_conditions(SIGMAS if by_default else sigma, severity, corruption)
    plan = Plan(model_labels(model), conditions, settings, seed, resamples=1, fronts=chosen_fronts(front))
    plan.check()
    folder = writable(results_folder(project, name or (data_name(data) if data else source_name(source))))
    task = common_task(plan.models.values())
    read = partial(evaluation_set, data, split, task=task) if data else partial(_images, source, model[0], folder)
    available = read(images)
    if images is None and len(available.files) > count:
        available = read(_most_telling(plan, available, folder, count, conf))
    sweep = measure(plan, available, folder, RunOptions())
    picture = folder / "grid.png"
    drawn = grid(sweep, picture, spread_conditions(sweep, conf), len(available.files))
    return Written((picture,), f"\n{', '.join(drawn)}: drawn to {picture}")


def _most_telling(plan: Plan, images: EvaluationSet, folder: Path, count: int, conf: float) -> list[str]:
    """Names of the images to draw. Only the last condition is run on all of them, for a single one the clean too."""
    conditions = (
        plan.conditions[-1:] if len(plan.models) > 1 or plan.fronts else [plan.conditions[0], plan.conditions[-1]]
    )
    sweep = measure(replace(plan, conditions=conditions), images, writable(folder / "choice"), RunOptions())
    return [images.files[i].name for i in most_different(judged(sweep, sweep.cells, conf), count)]


def _images(source: str, model: str, folder: Path, only: list[str] | None) -> EvaluationSet:
    """The images of a source, by a data YAML that is written for them and for a model."""
    about, files = described(model), source_files(source)
    content: dict[str, Any] = {"names": about.names}
    if about.kpt_shape:
        content["kpt_shape"] = list(about.kpt_shape)
    listed, data = folder / "images.txt", folder / "data.yaml"
    listed.write_text("".join(f"{file.absolute()}\n" for file in files), encoding="utf-8")
    split = str(listed.absolute())
    data.write_text(yaml.safe_dump({"train": split, "val": split, **content}), encoding="utf-8")
    labelled = any(_classes(file) == about.names for file in _data_yamls(files[0]))
    if not labelled and any(Path(label).is_file() for label in img2label_paths(list(map(str, files)))):
        LOGGER.info(
            f"labels beside {source} are left aside: no data YAML above them has the model's classes; give data="
        )
    return evaluation_set(str(data), "val", only, labelled, about.task)


def _data_yamls(image: Path) -> Iterator[Path]:
    """YAMLs in the folders above an image, as far up as data sets keep theirs."""
    for folder in list(image.absolute().parents)[:4]:
        yield from sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def _classes(file: Path) -> dict[int, str] | None:
    """The classes that a YAML names, if it does."""
    try:
        names = yaml.safe_load(file.read_text(encoding="utf-8"))["names"]
        return {int(n): str(name) for n, name in (names.items() if isinstance(names, dict) else enumerate(names))}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):  # a YAML of something else
        return None
