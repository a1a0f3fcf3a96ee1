"""Short names for tables and pictures: of models, by their files, and of runs, by their folders."""

import os
from pathlib import Path

from yolo_dyn.errors import YoloDynError


def model_labels(model: list[str] | str) -> dict[str, str]:
    """Short names of the models: the run's of a checkpoint in its folder `weights`, else the file's.

    Raises:
        YoloDynError: if there is none, or one is given twice.
    """
    files = [model] if isinstance(model, str) else [str(file) for file in model]
    if not files:
        raise YoloDynError("model must name at least one file")
    paths = [Path(os.path.abspath(file)) for file in files]  # weights/best.pt is of the run that this folder is
    short = [path.parent.parent.name if path.parent.name == "weights" else path.stem for path in paths]
    kinds = [f"{name}{path.suffix}" if path.suffix != ".pt" else name for name, path in zip(short, paths, strict=True)]
    labels = kinds if len(set(kinds)) == len(kinds) else [file.replace(os.sep, "-").lstrip(".-") for file in files]
    if len(set(labels)) < len(labels):
        raise YoloDynError(f"a model is given twice: {', '.join(files)}")
    return dict(zip(labels, files, strict=True))


def run_names(runs: list[str]) -> list[str]:
    """The shortest end of each folder that no other has: train, or a/train if two runs are called train.

    Raises:
        YoloDynError: if a folder is given twice.
    """
    parts = [Path(run).resolve().parts for run in runs]
    for run, own in zip(runs, parts, strict=True):
        if parts.count(own) > 1:
            raise YoloDynError(f"{run} is given twice")
    return ["/".join(own[-_distinct_parts(own, parts) :]) for own in parts]


def _distinct_parts(own: tuple[str, ...], parts: list[tuple[str, ...]]) -> int:
    return next(n for n in range(1, len(own) + 1) if sum(other[-n:] == own[-n:] for other in parts) == 1)
