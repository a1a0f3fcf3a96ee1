"""`yolo-dyn repeat`: the same training with several seeds, one after another, by the stock trainer."""

from pathlib import Path
from typing import Any

import torch
import yaml
from ultralytics.utils import LOGGER

from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import integrate
from yolo_dyn.integration.api import check_train_args, check_trainable
from yolo_dyn.output.arguments import Names, Seeds, checked
from yolo_dyn.output.files import results_folder
from yolo_dyn.output.outcome import Outcome

# arguments of `yolo train` that are set here, and why they cannot be given
RESERVED = {
    "seed": "seeds= has them",
    "exist_ok": "a run that is there is kept",
    "resume": "an interrupted run is resumed",
}


class Checkpoints(list[str], Outcome):
    """The best checkpoint of each run."""

    def __str__(self) -> str:
        return "\n".join(self)

    def as_dict(self) -> dict[str, Any]:
        return {"checkpoints": list(self)}


@checked
def repeat(
    model: Names,
    data: str,
    seeds: Seeds | None = None,
    project: str = "runs/repeat",
    name: str = "",
    **train: Any,
) -> Checkpoints:
    """Train models with several seeds by the stock trainer; resume what was interrupted, skip what is done.

    Args:
        model: model YAMLs or checkpoints, of any task.
        data: an Ultralytics data YAML; a folder by class for classifiers.
        seeds: 0, 1, 2 if nothing is given.
        project: folder of the runs, which are called ``<name>-seed<n>``.
        name: of the runs of a single model; that of its YAML if it is empty.
        **train: arguments of `yolo train`; `cfg` names a recipe.

    Returns:
        The best checkpoint of each run.

    Raises:
        YoloDynError: if a run of that name has other arguments, or one is given that is set here.
    """
    for key in RESERVED:
        if key in train:
            raise YoloDynError(f"{key}={train[key]} cannot be given to repeat: {RESERVED[key]}")
    if name and len(model) > 1:
        raise YoloDynError(f"name={name} is for a single model, got {len(model)}")
    if not data:
        raise YoloDynError("data must name a data YAML, or a folder by class for classifiers; got ''")
    check_train_args({"data": data, **train})
    for file in model:
        check_trainable(str(file))
    checkpoints = Checkpoints()
    for file in model:
        for seed in seeds if seeds is not None else [0, 1, 2]:
            run = results_folder(project, f"{name or Path(file).stem}-seed{seed}").absolute()
            train_once(run, file, {"data": data, "seed": seed, **train})
            checkpoints.append(str(run / "weights" / "best.pt"))
    return checkpoints


def train_once(run: Path, model: str, arguments: dict[str, Any]) -> None:
    """Train into a folder, unless it is done there; from where it stopped, if it was interrupted.

    Raises:
        YoloDynError: if the folder holds a run of other arguments.
    """
    integrate()
    from ultralytics import YOLO

    last = run / "weights" / "last.pt"
    if not last.is_file():
        try:
            YOLO(model).train(project=str(run.parent), name=run.name, exist_ok=True, **arguments)
        except RuntimeError as error:
            if error.__cause__ is None or not str(error).startswith("Dataset"):
                raise
            raise YoloDynError(f"data={arguments['data']}: {' '.join(str(error.__cause__).split())}") from error
        return
    _check_same_arguments(run, model, arguments)
    if finished(last):
        LOGGER.info(f"{run} is done already")
    else:
        YOLO(last).train(resume=True)


def finished(last: Path) -> bool:
    """Whether a run's last checkpoint is that of a finished training, which the stock trainer strips at its end."""
    return torch.load(last, map_location="cpu", weights_only=False)["epoch"] == -1


def _check_same_arguments(run: Path, model: str, arguments: dict[str, Any]) -> None:
    recorded = yaml.safe_load((run / "args.yaml").read_text(encoding="utf-8"))
    requested = {"model": model, **arguments}
    recipe = requested.pop("cfg", None)
    if recipe:
        requested = {**yaml.safe_load(Path(recipe).read_text(encoding="utf-8")), **requested}
    for key, value in requested.items():
        if key in recorded and key != "device" and str(recorded[key]) != str(value):
            raise YoloDynError(
                f"{run} was trained with {key}={recorded[key]}, not {value}: give another name or project"
            )
