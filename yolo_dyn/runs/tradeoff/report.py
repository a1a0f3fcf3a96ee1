"""The trade-off as text: the table in the terminal and as CSV, and what speaks against comparing its runs."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from yolo_dyn.output.files import write_csv
from yolo_dyn.runs.tradeoff.scores import Row

SETTINGS = ("data", "fraction", "imgsz", "batch", "device", "workers", "cache", "amp", "compile", "val")  # tell on time
NOTES = """IES = seconds / {metric}: lower is better. RCS = {metric} x N / seconds: higher is better (FMDConv, Eq. 3-4).
Seconds: median over the epochs, with validation and saving, on the machine that trained and beside what else it ran.
{metric}: that of the best epoch, as a fraction. N: {images}."""
DETECTION = (
    "AP (IoU 0.50 to 0.95) stands in top-1's place: it is no share of correct images, so RCS is no rate of them."
)


def write(rows: list[Row], file: Path) -> None:
    """Write the table as CSV.

    Raises:
        YoloDynError: if the file cannot be written.
    """
    lines = [{**asdict(row), "ies": row.ies, "rcs": row.rcs} for row in rows]
    write_csv(file, [lines[0], *(line.values() for line in lines)])


def report(rows: list[Row], arguments: list[dict[str, Any]], images_given: bool) -> list[str]:
    """Lines for the terminal: the table, and how to read it.

    Args:
        rows: the runs.
        arguments: those that each run was trained with.
        images_given: whether N was given, not counted.
    """
    return [*_table(rows), "", *_notes(rows, arguments, images_given)]


def _table(rows: list[Row]) -> list[str]:
    wide = 2 + max(len("run"), *(len(row.run) for row in rows))
    heads = ("epochs", "best", "N", "seconds an epoch", rows[0].metric, "IES", "RCS")
    lines = [f"{'run':<{wide}}" + "{:>8}{:>6}{:>12}{:>18}{:>9}{:>12}{:>12}".format(*heads)]
    for row in rows:
        whole = f"{row.epochs:>8}{row.best_epoch:>6}{row.images:>12,}"
        lines.append(
            f"{row.run:<{wide}}{whole}{row.seconds:>18.2f}{row.accuracy:>9.4f}{row.ies:>12.2f}{row.rcs:>12.2f}"
        )
    return lines


def _notes(rows: list[Row], arguments: list[dict[str, Any]], images_given: bool) -> list[str]:
    """What the figures are, and what speaks against comparing these runs."""
    metric = rows[0].metric
    notes = [NOTES.format(metric=metric, images="as given" if images_given else "images of the train split")]
    notes += [DETECTION] if metric == "AP" else []
    notes += [f"{row.run}: a single epoch, so its seconds hold the warm-up" for row in rows if row.epochs == 1]
    notes += [f"{row.run}: {metric} is 0, so IES is infinite" for row in rows if row.accuracy == 0]
    for row, own in zip(rows, arguments, strict=True):
        if isinstance(own.get("epochs"), int) and row.epochs < own["epochs"]:
            notes.append(f"{row.run}: {row.epochs} of {own['epochs']} epochs; stopped early, or not finished")
    for key in SETTINGS:
        values = {row.run: str(own.get(key)) for row, own in zip(rows, arguments, strict=True) if key in own}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{run} {value}" for run, value in values.items())
            notes.append(f"not trained alike, {key}: {listed}")
    return notes
