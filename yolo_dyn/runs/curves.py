"""`yolo-dyn curves`: losses and metrics of several runs of any task in one picture (SGDM paper, Fig. 3)."""

import math
from pathlib import Path

from yolo_dyn.errors import YoloDynError
from yolo_dyn.output.arguments import FileName, Names, checked
from yolo_dyn.output.files import check_new
from yolo_dyn.output.outcome import Written
from yolo_dyn.output.style import line, save, verbatim
from yolo_dyn.runs.read import read_run

HEADS = {"(B)": "boxes", "(M)": "masks", "(P)": "keypoints"}  # what ends of column names stand for
LOSSES = {
    "dfl": "distribution focal",
    "cls": "class",
    "kobj": "keypoint objectness",
    "seg": "mask",
}  # in words; the others are named as they are
WIDTH = 4  # panels in a row


@checked
@verbatim
def curves(runs: Names, out: FileName = "curves.png", exist_ok: bool = False) -> Written:
    """Draw losses and metrics of several runs of the stock trainer in one picture, a panel for each.

    Args:
        runs: folders with a results.csv, of any task.
        out: picture to write.
        exist_ok: replace it if it exists.

    Returns:
        The picture.

    Raises:
        YoloDynError: if a run has no results.csv, the runs have no panel in common, or the picture exists or cannot be
            written.
    """
    import matplotlib.pyplot as plt

    histories = {_label(run, runs): read_run(Path(run)) for run in runs}
    columns = panels(histories)
    check_new(Path(out), exist_ok)
    rows = math.ceil(len(columns) / WIDTH)
    figure, axes = plt.subplots(rows, WIDTH, figsize=(3.4 * WIDTH, 0.6 + 3 * rows), layout="constrained", squeeze=False)
    for axis, column in zip(axes.flat, columns, strict=False):
        for number, (label, values) in enumerate(histories.items()):
            if column in values:
                epochs = values.get("epoch", list(range(1, len(values[column]) + 1)))
                few = {"marker": "o"} if len(epochs) == 1 else {}
                axis.plot(epochs, values[column], label=label, **line(number), **few)
        axis.set_title(title(column), fontsize=10)
        axis.set_xlabel("epoch", fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(columns) :]:
        axis.set_visible(False)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    save(figure, Path(out), "out")
    return Written((Path(out),), f"{len(runs)} runs drawn to {out}")


def panels(histories: dict[str, dict[str, list[float]]]) -> list[str]:
    """The columns that all runs have and that are drawn: losses of training and validation, then metrics.

    Raises:
        YoloDynError: if there is none.
    """
    shared = [
        column for column in next(iter(histories.values())) if all(column in values for values in histories.values())
    ]
    drawn = [c for part in ("train/", "val/") for c in shared if c.startswith(part)]
    drawn += [
        c for c in shared if c.startswith("metrics/") and not c.startswith(("metrics/precision", "metrics/recall"))
    ]
    if not drawn:
        raise YoloDynError(f"the runs {', '.join(histories)} have no loss and no metric in common")
    return drawn


def title(column: str) -> str:
    """A column in words: the box loss (training), AP of masks."""
    part, _, name = column.partition("/")
    if part in ("train", "val"):
        loss = name.removesuffix("_loss") if name != "loss" else ""
        return f"{LOSSES.get(loss, loss)} loss ({'training' if part == 'train' else 'validation'})".strip()
    name, head = (name[:-3], f" of {HEADS[name[-3:]]}") if name[-3:] in HEADS else (name, "")
    known = {"mAP50-95": "AP", "mAP50": "AP50", "accuracy_top1": "top-1", "accuracy_top5": "top-5"}
    return f"{known.get(name, name)}{head}"


def _label(run: str, runs: list[str]) -> str:
    names = [Path(r).name for r in runs]
    return Path(run).name if names.count(Path(run).name) == 1 else run
