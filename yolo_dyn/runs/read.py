"""What the stock trainer leaves in the folder of a run: its columns, its arguments, and the data they name."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from yolo_dyn.errors import MissingFileError, YoloDynError, nearest

# columns of results.csv
AP = "metrics/mAP50-95(B)"
TOP1, TOP5 = "metrics/accuracy_top1", "metrics/accuracy_top5"
# what a task is judged by, its own before what it shares: keypoints, masks, boxes; classes; classes of pixels; depth
MAIN = ("metrics/mAP50-95(P)", "metrics/mAP50-95(M)", AP, TOP1, "metrics/mIoU", "metrics/delta1")
FALLING = ("_loss", "/loss", "abs_rel", "rmse", "silog")  # ends of columns whose lower values are better


def read_run(run: Path) -> dict[str, list[float]]:
    """Columns of a run's results.csv, one value an epoch.

    Raises:
        YoloDynError: if the folder has none, it is empty, or it holds what is no number.
    """
    file = run / "results.csv"
    if not file.is_file():
        raise MissingFileError(f"{run} has no results.csv: it is no run of `yolo train`")
    with file.open(encoding="utf-8", newline="") as text:
        heads, *rows = [row for row in csv.reader(text) if row] or [[]]
    if not rows:
        raise YoloDynError(f"{file} holds no epoch")
    for number, row in enumerate(rows, 1):
        if len(row) != len(heads):
            raise YoloDynError(f"{file}, row {number}: {len(row)} values for {len(heads)} columns")
    return {
        head.strip(): [
            _number(row[column], f"{file}, row {number}, {head.strip()}") for number, row in enumerate(rows, 1)
        ]
        for column, head in enumerate(heads)
    }


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise YoloDynError(f"{where}: {text!r} is no number; it is no run of `yolo train`") from None


def metric_column(metric: str, columns: Iterable[str], where: str) -> str:
    """The column that a metric names: whole, without ``metrics/``, without ``(B)`` or ``accuracy_``.

    Args:
        metric: for example mAP50-95, mAP50(M), top1, val/box_loss; the main metric of the task if it is empty.
        columns: those of a run.
        where: they are from, for messages.

    Raises:
        YoloDynError: if no column has that name, or several have.
    """
    columns = list(columns)
    if not metric:
        main = next((column for column in MAIN if column in columns), None)
        if main is None:
            raise YoloDynError(f"{where} has no metric of a known task; give metric=, one of {', '.join(columns)}")
        return main
    matching = [c for c in columns if metric in (c, c.removeprefix("metrics/"))]
    matching = matching or [c for c in columns if c.startswith("metrics/") and metric == _short(c)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        named = ", ".join(column.removeprefix("metrics/") for column in matching)
        raise YoloDynError(f"{where} has several columns {metric!r}: give metric= as one of {named}")
    raise YoloDynError(f"{where} has no column {metric!r}{nearest(metric, columns)} (it has {', '.join(columns)})")


def _short(column: str) -> str:
    return column.removeprefix("metrics/").partition("(")[0].removeprefix("accuracy_")


def best_value(values: list[float], column: str, where: str) -> float:
    """The value of the best epoch: the highest, or the lowest of a loss; epochs without a number are left out.

    Raises:
        YoloDynError: if no epoch has a number.
    """
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        raise YoloDynError(f"{where}, {column}: no epoch has a number")
    return min(numbers) if column.endswith(FALLING) else max(numbers)


def read_arguments(run: Path) -> dict[str, Any]:
    """Arguments that a run was trained with, from its args.yaml; empty if it has none.

    Raises:
        YoloDynError: if the file is no mapping.
    """
    file = run / "args.yaml"
    if not file.is_file():
        return {}
    try:
        arguments = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise YoloDynError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(arguments, dict):
        raise YoloDynError(f"{file} must hold a mapping of arguments, got {arguments!r}")
    return arguments


def training_images(arguments: dict[str, Any]) -> int:
    """Count the images that an epoch of a run takes: its train split, or the `fraction` of it. Downloads nothing.

    Images are counted as the stock loaders list them, before they leave out the broken ones.

    Args:
        arguments: those of the run; `data`, `task` and `fraction` are read.

    Raises:
        YoloDynError: if the data are not found from here.
    """
    data = arguments.get("data")
    if not arguments:
        raise YoloDynError("the run has no args.yaml")
    if not isinstance(data, str) or "://" in data or Path(data).suffix in (".zip", ".tar", ".gz", ".ndjson"):
        raise YoloDynError(f"data={data} is no folder or data YAML")
    count = _classification_images(data) if arguments.get("task") == "classify" else _listed_images(data)
    part = arguments.get("fraction", 1.0)
    part = part[0] if isinstance(part, list) and part else part  # train, val, test
    requested = part if isinstance(part, int) and part > 1 else round(count * part)  # a count, or a share
    return min(count, max(1, requested))


def _classification_images(data: str) -> int:
    """Images of a classification data set: a folder for each split, in it one for each class."""
    from ultralytics.data.utils import IMG_FORMATS
    from ultralytics.utils import DATASETS_DIR

    folder = Path(data) if Path(data).is_dir() else DATASETS_DIR / data
    splits = (folder, folder.with_name(f"{folder.name}_split"))  # the stock trainer splits a folder that has no splits
    train = next((split / "train" for split in splits if (split / "train").is_dir()), None)
    count = sum(file.suffix[1:].lower() in IMG_FORMATS for file in train.rglob("*.*")) if train else 0
    if not count:
        raise YoloDynError(f"no image is found in {folder / 'train'}")
    return count


def _listed_images(data: str) -> int:
    from yolo_dyn.data.images import image_files
    from yolo_dyn.integration.api import dataset

    try:
        return len(image_files(dataset(data, download=False)["train"]))
    except MissingFileError as error:
        raise YoloDynError(f"{data!r} does not exist") from error
