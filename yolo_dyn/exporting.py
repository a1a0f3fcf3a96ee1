"""What the stock export does for models with our layers: a form of the mixture that the target takes, and a whole file.

`on_export_start` is called by Ultralytics' exporter when it has copied and fused the model, before it writes anything.
All that it changes belongs to that copy or to this one export.
"""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_dyn import registry


def on_export_start(exporter: Any) -> None:
    """Prepare the export of a model that has our layers; others are left alone."""
    if not registry.in_model(exporter.model):
        return
    if exporter.args.dynamic:
        free_batch(exporter.model)
    method = f"export_{exporter.args.format}"
    setattr(exporter, method, _whole(exporter, getattr(exporter, method)))


def free_batch(model: nn.Module) -> None:
    """Let the mixtures of a model leave the batch size free in a graph that is traced from it.

    A convolution that folds the batch into its groups has the number of groups, and with it the batch size, written
    into the graph. `torch.export` tells by itself which sizes are to be free and needs no preparation.
    """
    for module in model.modules():
        if getattr(module, "form", None) == "kernel":
            module.form = "unfold"  # type: ignore[assignment]


def _whole(exporter: Any, stock: Callable[[], str | Path]) -> Callable[[], str]:
    """Export into a folder of its own, then put what came out in its place: never half a file, whatever happens."""

    def export() -> str:
        file = exporter.file
        with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=f".{file.stem}-export-") as folder:
            exporter.file = Path(folder) / file.name
            try:
                with _named(folder, str(file.parent)), _without_tracer_warnings():
                    written = Path(stock())
            finally:
                exporter.file = file
            target = file.parent / written.name
            if target.is_dir():
                target.rename(Path(folder) / f"old-{written.name}")
            shutil.move(written, target)
        return str(target)

    return export


@contextmanager
def _named(folder: str, target: str) -> Iterator[None]:
    """Let the log name the folder that the export ends up in."""
    from ultralytics.utils import LOGGER

    def rename(record: logging.LogRecord) -> bool:
        record.msg, record.args = record.getMessage().replace(folder, target), ()
        return True

    LOGGER.addFilter(rename)
    try:
        yield
    finally:
        LOGGER.removeFilter(rename)


@contextmanager
def _without_tracer_warnings() -> Iterator[None]:
    """The kernel form reads the batch size as a number, which is meant where the batch size is fixed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module="yolo_dyn")
        warnings.filterwarnings("ignore", "Constant folding - Only steps=1")  # of the exporter's own padding
        yield
