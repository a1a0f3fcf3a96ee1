"""What the stock trainer leaves in the folder of a run."""

import csv
from pathlib import Path

from yolo_dyn.errors import MissingFileError, YoloDynError

AP = "metrics/mAP50-95(B)"


def read_run(run: Path) -> dict[str, list[float]]:
    """Columns of a run's results.csv, one value an epoch.

    Raises:
        YoloDynError: where the folder has none, or it is empty.
    """
    file = run / "results.csv"
    if not file.is_file():
        raise MissingFileError(f"{run} has no results.csv: it is no run of `yolo train`")
    with file.open(encoding="utf-8") as text:
        rows = [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(text)]
    if not rows:
        raise YoloDynError(f"{file} holds no epoch")
    return {key: [row[key] for row in rows] for key in rows[0]}
