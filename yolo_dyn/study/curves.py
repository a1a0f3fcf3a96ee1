"""`yolo-dyn curves`: training losses and AP of several runs in one picture (SGDM paper, Fig. 3)."""

from pathlib import Path

from yolo_dyn.errors import YoloDynError
from yolo_dyn.looks import SAVED, line
from yolo_dyn.study.runs import AP, read_run

PANELS = {
    "train/box_loss": "box loss (training)",
    "train/cls_loss": "class loss (training)",
    "train/dfl_loss": "distribution focal loss (training)",
    "val/box_loss": "box loss (validation)",
    "metrics/mAP50(B)": "AP50 (validation)",
    AP: "AP (validation)",
}


def curves(runs: list[str], out: str = "curves.png") -> str:
    """Draw training losses and AP of several runs of the stock trainer in one picture.

    Args:
        runs: folders with a results.csv.
        out: picture to write.

    Returns:
        A line that says where the picture is.

    Raises:
        YoloDynError: where a run has no results.csv, or the picture cannot be written.
    """
    import matplotlib.pyplot as plt

    read = {_label(run, runs): read_run(Path(run)) for run in runs}
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
    for axis, (column, title) in zip(axes.flat, PANELS.items(), strict=True):
        for number, (label, columns) in enumerate(read.items()):
            if column in columns:
                axis.plot(columns["epoch"], columns[column], label=label, **line(number))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch", fontsize=9)
        axis.grid(alpha=0.3)
    figure.legend(*axes.flat[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    try:
        figure.savefig(out, **SAVED)
    except OSError as error:
        raise YoloDynError(f"out={out} cannot be written: {error.strerror}") from error
    finally:
        plt.close(figure)
    return f"{len(runs)} runs drawn to {out}"


def _label(run: str, runs: list[str]) -> str:
    names = [Path(r).name for r in runs]
    return Path(run).name if names.count(Path(run).name) == 1 else run
