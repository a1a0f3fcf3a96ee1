"""`yolo-dyn tradeoff`: accuracy against training time of finished runs: table, CSV and picture."""

from dataclasses import replace
from pathlib import Path

from yolo_dyn.errors import YoloDynError
from yolo_dyn.output.arguments import FileName, Names, OrDefault, checked
from yolo_dyn.output.files import check_new
from yolo_dyn.output.labels import run_names
from yolo_dyn.output.outcome import Written
from yolo_dyn.runs.read import read_arguments
from yolo_dyn.runs.tradeoff.picture import draw
from yolo_dyn.runs.tradeoff.report import report, write
from yolo_dyn.runs.tradeoff.scores import check_same_kind, counted_images, read_row


@checked
def tradeoff(runs: Names, images: OrDefault = 0, out: FileName = "tradeoff.png", exist_ok: bool = False) -> Written:
    """Compare accuracy and training time of runs of the stock trainer in two scores, IES and RCS.

    Args:
        runs: folders with a results.csv, of classifiers or of detectors.
        images: N, the images of an epoch; by default those that the run trained on, as its args.yaml names them.
        out: picture to write; the table goes beside it as a .csv.
        exist_ok: replace both if they exist.

    Returns:
        Picture and table; its text is the table.

    Raises:
        YoloDynError: if a run lacks time, accuracy or data, runs are of different kinds, or `out` exists or cannot be
            written.
    """
    picture = Path(out) if Path(out).suffix else Path(out).with_suffix(".png")
    table = picture.with_suffix(".csv")
    if table.name == "results.csv":
        raise YoloDynError(f"out={out}: its table would be called results.csv, like that of a run; give another name")
    rows = [read_row(Path(run), name, images) for run, name in zip(runs, run_names(runs), strict=True)]
    check_same_kind(rows)
    arguments = [read_arguments(Path(run)) for run in runs]
    if not images:
        rows = [replace(row, images=n) for row, n in zip(rows, counted_images(runs, arguments), strict=True)]
    for file in (picture, table):
        check_new(file, exist_ok)
    draw(rows, picture)
    write(rows, table)
    text = "\n".join([*report(rows, arguments, bool(images)), "", f"table in {table}, picture in {picture}"])
    return Written((picture, table), text)
