"""What dynamic convolutions bring and cost a classifier: FMDConv paper, Table 3, on a fifth of CIFAR-10."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.files import hash_file, written_whole
from yolo_dyn.robustness.results import data_name, environment
from yolo_dyn.stock import load_model
from yolo_dyn.study.repeat import train_once
from yolo_dyn.study.runs import TOP1, TOP5, read_arguments, read_run, training_images
from yolo_dyn.study.tradeoff_scores import ies, rcs, seconds_per_epoch

RECIPE: dict[str, Any] = {"imgsz": 32, "epochs": 20, "batch": 128, "seed": 0, "plots": False}
MODELS = {
    "resnet18": "static",
    "resnet18-condconv": "CondConv, 8 experts",
    "resnet18-dynamicconv": "DynamicConv, 4 experts",
    "resnet18-odconv": "ODConv, 4 experts",
    "resnet18-fmdconv": "FMDConv, 4 experts",
}
PAPER_RATIO = 0.51  # FMDConv's seconds an epoch to ODConv's: 114.7 to 223.61 in Table 3
WHY = """Both mix four experts of the same size, which on maps this small is nearly all of their work. The paper's \
ODConv multiplies each expert of each sample by its attention to the taps, and then adds them up; that factor is the \
same for all experts, so here it is multiplied into the input's taps or the mixed kernel once, and little is left to \
set the two apart."""
SECONDS = "seconds.json"


def study_classify(
    data: str,
    models: list[str] | None = None,
    seconds: bool = False,
    rounds: int = 2,
    runs: str = "runs/study-classify",
    out: str = "docs/results/classify",
) -> str:
    """Run what is missing of the classifiers' study: trainings, or with seconds=True how long an epoch of each takes.

    Args:
        data: folder of CIFAR-10 pictures by class, with train and test.
        models: names; all where nothing is given.
        seconds: time the epochs of all models in turn; for a machine with nothing else to do.
        rounds: how often each model is timed.
        runs: folder of the trainings. An interrupted training goes on from there.
        out: folder of the result files.

    Returns:
        What is there.

    Raises:
        YoloDynError: for an unknown model, or a run in the folder that has other arguments.
    """
    for name in models or ():
        if name not in MODELS:
            raise YoloDynError(f"unknown model {name!r}{nearest(name, MODELS)} (known: {', '.join(MODELS)})")
    if not Path(data).is_dir():
        raise YoloDynError(f"data={data} is no folder of pictures by class")
    if seconds:
        _write(Path(out) / SECONDS, _timed(data, list(models or MODELS), rounds))
        return f"seconds of an epoch in {Path(out) / SECONDS}; `yolo-dyn results` writes the page"
    missing = [name for name in models or MODELS if not (Path(out) / f"{name}.json").is_file()]
    for number, name in enumerate(missing, 1):
        print(f"\n{name}: {number} of {len(missing)} that are missing")
        _write(Path(out) / f"{name}.json", _trained(name, data, Path(runs).absolute() / name))
    return f"{len(models or MODELS)} results in {out}; `yolo-dyn results` writes the page"


def _write(file: Path, result: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {file}")


def _command(name: str, data: str) -> str:
    arguments = " ".join(f"{key}={value}" for key, value in RECIPE.items())
    return f"yolo classify train model={name}-cls.yaml data={data_name(data)} {arguments}"


def _trained(name: str, data: str, run: Path) -> dict[str, Any]:
    """Train a classifier; its accuracy is that of the best epoch."""
    train_once(run, f"{name}-cls.yaml", {"data": data, **RECIPE})
    columns, weights = read_run(run), run / "weights" / "best.pt"
    best = max(range(len(columns[TOP1])), key=columns[TOP1].__getitem__)
    return {
        "model": name,
        "command": _command(name, data),
        "weights": hash_file(weights),
        "parameters": sum(p.numel() for p in load_model(str(weights)).parameters()),
        "top1": columns[TOP1][best],
        "top5": columns[TOP5][best],
        "best_epoch": int(columns["epoch"][best]),
        "images": training_images(read_arguments(run)),
        "environment": environment(),
    }


def _timed(data: str, models: Sequence[str], rounds: int) -> dict[str, Any]:
    """Seconds of an epoch with its validation, the second of two, since the first warms up; models in turn."""
    found: dict[str, list[float]] = {name: [] for name in models}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for name in models:
                run = Path(folder) / f"{name}-{number}"
                train_once(run, f"{name}-cls.yaml", {"data": data, **RECIPE, "epochs": 2})
                found[name].append(seconds_per_epoch(read_run(run)["time"]))
    return {
        "what": f"seconds of the second of two epochs, median of {rounds} runs, models in turn",
        "seconds": {name: median(each) for name, each in found.items()},
        "environment": environment(),
    }


def section(source: Path) -> str:
    """The part of the results page on classifiers, from the result files alone; empty where there is none."""
    files = {name: source / f"{name}.json" for name in MODELS}
    found = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
    if not found:
        return ""
    timed = json.loads((source / SECONDS).read_text(encoding="utf-8")) if (source / SECONDS).is_file() else {}
    some = next(iter(found.values()))
    machine = some["environment"]
    text = (
        f"ResNet-18 with 10 classes on {some['images']:,} pictures of CIFAR-10 and 2,000 others to test, 32 px,"
        f" {RECIPE['epochs']} epochs, seed {RECIPE['seed']}: `{some['command']}`, and so on for each model"
        f" (`yolo-dyn study-classify`; {machine['processor']}, {machine['cores']} cores). Top-1 and top-5 of the best"
        f" epoch, one seed. {_timing_words(timed)} IES = seconds / top-1, lower is better; RCS = top-1 x N / seconds,"
        f" N = {some['images']:,}, higher is better."
    )
    return "\n\n".join(["## Classifiers: accuracy against training time", text, _table(found, timed), *_ratio(timed)])


def _timing_words(timed: dict[str, Any]) -> str:
    if not timed:
        return "Seconds of an epoch: not measured yet."
    return f"Time: {timed['what']}, nothing else running (`yolo-dyn study-classify seconds=True`)."


def _table(found: dict[str, dict[str, Any]], timed: dict[str, Any]) -> str:
    lines = ["| model | parameters | top-1 | top-5 | seconds an epoch | IES | RCS | weights |"]
    lines.append("|---|" + "---:|" * 6 + "---|")
    for name, result in found.items():
        seconds = timed.get("seconds", {}).get(name)
        scores = ["", "", ""]
        if seconds:
            each = rcs(seconds, result["top1"], result["images"])
            scores = [f"{seconds:.1f}", f"{ies(seconds, result['top1']):.1f}", f"{each:.1f}"]
        cells = [MODELS[name], f"{result['parameters']:,}", f"{result['top1']:.3f}", f"{result['top5']:.3f}", *scores]
        lines.append("| " + " | ".join([*cells, f"`{result['weights'][:12]}`"]) + " |")
    missing = [label for name, label in MODELS.items() if name not in found]
    return "\n".join(lines) + (f"\n\nNot run yet: {'; '.join(missing)}." if missing else "")


def _ratio(timed: dict[str, Any]) -> list[str]:
    seconds = timed.get("seconds", {})
    if not {"resnet18-fmdconv", "resnet18-odconv"} <= set(seconds):
        return []
    ratio = seconds["resnet18-fmdconv"] / seconds["resnet18-odconv"]
    return [f"FMDConv's epoch takes {ratio:.2f} of ODConv's time here, and {PAPER_RATIO} in the paper. {WHY}"]
