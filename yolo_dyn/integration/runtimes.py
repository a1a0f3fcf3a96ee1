"""Runtimes of exported files, as Ultralytics opens them."""

import functools
from pathlib import Path
from typing import Any


def compute_in_float32(model: Any, file: str | Path) -> None:
    """Have OpenVINO compute in float32 on a CPU, as torch, ONNX Runtime and our timings do; others are left alone.

    By default it takes bfloat16 where the CPU can, in which coordinates beyond 256 px go in steps of 2 px: detections
    would depend on the CPU. Ultralytics asks for float32 on Windows and on ARM alone.

    Args:
        model: what was opened: an AutoBackend.
        file: what it was opened from, for OpenVINO a folder or the ``.xml`` in it.
    """
    backend: Any = getattr(model, "backend", None)
    if not hasattr(backend, "ov_compiled_model") or backend.compile_model.keywords["device_name"] != "CPU":
        return
    config = {**backend.compile_model.keywords["config"], "INFERENCE_PRECISION_HINT": "f32"}
    backend.compile_model = functools.partial(backend.compile_model, config=config)
    file = Path(file)
    backend.ov_compiled_model = backend.compile_model(str(file if file.is_file() else next(file.glob("*.xml"))))
