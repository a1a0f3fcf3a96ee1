"""The precision in which an exported file is run."""

import functools
from pathlib import Path
from typing import Any


def compute_in_float32(model: Any, folder: str | Path) -> None:
    """Have OpenVINO compute in float32 on a CPU, as torch, ONNX Runtime and our timings do; others are left alone.

    By default it takes bfloat16 if the CPU can, in which coordinates beyond 256 px go in steps of 2 px: detections
    would depend on the CPU. Ultralytics asks for float32 on Windows and on ARM alone.

    Args:
        model: Ultralytics' AutoBackend of any format.
        folder: what it was opened from; for OpenVINO the folder that ``yolo export`` wrote.
    """
    backend: Any = getattr(model, "backend", model)
    if not hasattr(backend, "ov_compiled_model"):
        return
    file = str(next(Path(folder).glob("*.xml")))
    if not hasattr(backend, "compile_model"):  # before 8.4.127
        if all("CPU" in device for device in backend.ov_compiled_model.get_property("EXECUTION_DEVICES")):
            config = {"PERFORMANCE_HINT": backend.inference_mode, "INFERENCE_PRECISION_HINT": "f32"}
            # A core sets a stack of its own for signals, and when it ends sets the one that it found. Found ours the
            # stock's, it would set that again, long freed, and the next signal would end the process.
            backend.ov_compiled_model = backend.core = backend.ov_model = None
            backend.ov_compiled_model = backend.ov.Core().compile_model(file, "CPU", config)
        return
    if backend.compile_model.keywords["device_name"] != "CPU":
        return
    config = {**backend.compile_model.keywords["config"], "INFERENCE_PRECISION_HINT": "f32"}
    backend.compile_model = functools.partial(backend.compile_model, config=config)
    backend.ov_compiled_model = backend.compile_model(file)
