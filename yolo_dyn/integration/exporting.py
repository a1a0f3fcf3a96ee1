"""What the stock export does for models with our layers: a form of the mixture that the target takes, and a whole file.

`prepare` is called when Ultralytics' exporter has copied and fused the model, before it writes anything. All that it
changes belongs to that copy or to this one export.
"""

import importlib.util
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from yolo_dyn import registry
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import compat
from yolo_dyn.layers.baking import mixing_layers
from yolo_dyn.layers.protocol import HasForm, RefusesExport

# Formats whose convolutions take a kernel that is computed in the graph: all but TensorRT (engine) are measured, whose
# developers say so. Of others nothing is known: they get matrix products instead, which all of them have. Among them is
# tflite, by TensorFlow, whose convolution keeps the first kernel (https://github.com/tensorflow/tensorflow/issues/31205).
COMPUTED_KERNELS = ("onnx", "openvino", "ncnn", "torchscript", "mnn", "executorch", "litert", "engine")
REFUSED = {"paddle": "its converter, x2paddle, reads neither form of a dynamic convolution"}
PACKAGES = {"onnx": ("onnx", "onnxslim", "onnxruntime"), "openvino": ("openvino",), "ncnn": ("ncnn", "pnnx")}


def on_export_start(exporter: Any) -> None:
    """Prepare the export when the exporter has copied and fused its model."""
    compat.before_writing(exporter, prepare)


def prepare(exporter: Any) -> None:
    """Prepare the export of a model that has our layers; others are left alone.

    Raises:
        YoloDynError: if the format cannot take a layer, or needs a package that is missing.
    """
    layers, target = registry.in_model(exporter.model), exporter.args.format
    if not layers:
        return
    mixing = mixing_layers(exporter.model).values()
    if target in REFUSED and any(isinstance(part, HasForm) for layer in mixing for part in layer.modules()):
        raise YoloDynError(f"format={target}: {REFUSED[target]}; accepted: any other format")
    _require_packages(target)
    for layer in layers:
        if isinstance(layer, RefusesExport) and (reason := layer.cannot_export(target)):
            raise YoloDynError(f"{type(layer).__name__} cannot be exported to {target}: {reason}")
    if _form(exporter.args) == "unfold":
        free_batch(exporter.model)
    if target == "onnx":
        widen_lines(layers)
    method = "export_coreml" if target == "mlmodel" else f"export_{target}"
    setattr(exporter, method, _whole(exporter, getattr(exporter, method)))


def _form(args: Any) -> str:
    """The form of the mixtures in a graph: the one asked for, or the fastest that the target can run."""
    asked = getattr(args, "form", None)
    able = args.format in COMPUTED_KERNELS and not args.dynamic
    if asked == "kernel" and not able:
        kind = f"{args.format} with dynamic=True" if args.dynamic else args.format
        raise YoloDynError(f"form=kernel: {kind} takes no computed kernels; accepted here: unfold")
    return asked or ("kernel" if able else "unfold")


def widen_lines(layers: Iterable[nn.Module]) -> None:
    """Pad kernels of nine taps in a line with zeros to eleven, which changes nothing but how OpenCV computes them.

    OpenCV 5.0's ``cv2.dnn`` takes a dense kernel of 9 x 1 or 1 x 9 for one of 3 x 3: boxes are off by tens of pixels.
    """
    for module in {m for layer in layers for m in layer.modules() if isinstance(m, nn.Conv2d)}:
        if module.kernel_size in ((9, 1), (1, 9)) and module.groups < module.in_channels:
            rows, columns = (int(size == 9) for size in module.kernel_size)
            module.weight = nn.Parameter(F.pad(module.weight.detach(), (columns, columns, rows, rows)))
            module.kernel_size = (11, 1) if rows else (1, 11)
            padding: Any = module.padding
            module.padding = (padding[0] + rows * module.dilation[0], padding[1] + columns * module.dilation[1])


def _require_packages(target: str) -> None:
    from ultralytics.utils import AUTOINSTALL

    missing = [package for package in PACKAGES.get(target, ()) if not importlib.util.find_spec(package)]
    if missing and not AUTOINSTALL:
        raise YoloDynError(f"format={target} needs {', '.join(missing)}: pip install 'yolo-dyn[export]'")


def free_batch(model: nn.Module) -> None:
    """Let the mixtures of a model leave the batch size free in a graph that is traced from it.

    A convolution that folds the batch into its groups has the number of groups, and with it the batch size, written
    into the graph. `torch.export` tells by itself which sizes are to be free and needs no preparation.
    """
    for module in model.modules():
        if isinstance(module, HasForm) and module.form == "kernel":
            module.form = "unfold"


def _whole(exporter: Any, stock: Callable[..., Any]) -> Callable[..., Any]:
    """Export into a folder of its own, then put what came out in its place: never half a file, whatever happens."""

    def export(*args: Any, **kwargs: Any) -> Any:
        file = exporter.file
        with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=f".{file.stem}-export-") as folder:
            exporter.file = Path(folder) / file.name
            try:
                with _named(exporter.file, file), _without_tracer_warnings():
                    result = stock(*args, **kwargs)
            finally:
                exporter.file = file
            written = compat.written(result)
            target = file.parent / written.name if written.is_relative_to(folder) else written
            if target != written and target.is_dir():
                target.rename(Path(folder) / f"old-{written.name}")
            if target != written:
                shutil.move(written, target)
        return (str(target), *result[1:]) if isinstance(result, tuple) else str(target)

    return export


@contextmanager
def _named(written: Path, wanted: Path) -> Iterator[None]:
    """Let the log name the place that the export ends up in."""
    from ultralytics.utils import LOGGER

    stems = str(written.with_suffix("")), str(wanted.with_suffix(""))  # what is exported has other endings

    def rename(record: logging.LogRecord) -> bool:
        record.msg, record.args = record.getMessage().replace(*stems), ()
        return True

    LOGGER.addFilter(rename)
    try:
        yield
    finally:
        LOGGER.removeFilter(rename)


@contextmanager
def _without_tracer_warnings() -> Iterator[None]:
    """The kernel form reads the batch size as a number, which is meant if the batch size is fixed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module="yolo_dyn")
        warnings.filterwarnings("ignore", "Constant folding - Only steps=1")  # of the exporter's own padding
        yield
