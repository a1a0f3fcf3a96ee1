"""Exported models, opened by the runtimes that edge devices have; without Ultralytics, and mostly without torch.

`python -m yolo_dyn.deploy.runtimes FILE IMGSZ THREADS` runs one in a process of its own and prints its peak memory.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from yolo_dyn.errors import MissingFileError, YoloDynError, needed
from yolo_dyn.output.files import OPENCV

Session = Callable[[np.ndarray], np.ndarray]  # float32 [B, C, H, W], 0 to 1 -> raw output [B, 4 + classes, anchors]


def open_session(file: str | Path, threads: int) -> Session:
    """Open an exported model.

    Args:
        file: .onnx, .torchscript, a checkpoint, or a folder ``*_openvino_model`` or ``*_ncnn_model``; OpenCV opens
            ``*-opencv.onnx``.
        threads: of the runtime.

    Raises:
        YoloDynError: if there is no such file, its runtime is not installed, or no runtime here takes its kind.
    """
    file = Path(file)
    if not file.exists():
        raise MissingFileError(f"{file} does not exist")
    for ending, runtime in RUNTIMES.items():
        if file.name.endswith(ending):
            return runtime(file, threads)
    raise YoloDynError(f"{file}: no runtime for it (known: {', '.join(RUNTIMES)})")


def _package(name: str) -> Any:
    return needed(name, "an exported file of this format", "'yolo-dyn[export]'")


def _onnx(file: Path, threads: int) -> Session:
    ort = _package("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # its threads go on waiting busily after a call, and would slow down what is timed next
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    half = session.get_inputs()[0].type == "tensor(float16)"
    return lambda images: session.run(None, {name: images.astype(np.float16) if half else images})[0]


def _opencv(file: Path, threads: int) -> Session:
    import cv2

    cv2.setNumThreads(threads)  # of this process, as torch's
    net = cv2.dnn.readNetFromONNX(str(file))

    def run(images: np.ndarray) -> np.ndarray:
        net.setInput(images)
        return net.forward()

    return run


def _openvino(folder: Path, threads: int) -> Session:
    ov = _package("openvino")
    # f32: on some CPUs the default is bfloat16, whose scores differ in the third digit
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    model = ov.Core().compile_model(str(next(folder.glob("*.xml"))), "CPU", settings)
    return lambda images: model(images)[0]


def _ncnn(folder: Path, threads: int) -> Session:
    ncnn = _package("ncnn")
    net = ncnn.Net()
    net.opt.num_threads = threads
    # float32 throughout: by default it stores and computes in half precision where the CPU can
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
    net.load_param(str(folder / "model.ncnn.param"))
    net.load_model(str(folder / "model.ncnn.bin"))
    entry, output = net.input_names()[0], sorted(net.output_names())[0]

    def one(image: np.ndarray) -> np.ndarray:
        with net.create_extractor() as extractor:
            extractor.input(entry, ncnn.Mat(image))
            return np.array(extractor.extract(output)[1])

    return lambda images: np.stack([one(np.ascontiguousarray(image)) for image in images])


def _torchscript(file: Path, threads: int) -> Session:
    import torch

    torch.set_num_threads(threads)
    model = torch.jit.load(str(file)).eval()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images)).numpy()

    return run


def _torch(file: Path, threads: int) -> Session:
    import torch

    from yolo_dyn.integration import compat
    from yolo_dyn.integration.api import load_model

    torch.set_num_threads(threads)
    model = load_model(str(file)).float().fuse(verbose=False).eval().to(memory_format=torch.channels_last)  # type: ignore[operator]
    compat.give_candidates(model)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images).to(memory_format=torch.channels_last))[0].numpy()

    return run


RUNTIMES: dict[str, Callable[[Path, int], Session]] = {
    OPENCV: _opencv,
    ".onnx": _onnx,
    "_openvino_model": _openvino,
    "_ncnn_model": _ncnn,
    ".torchscript": _torchscript,
    ".pt": _torch,
}


def peak_memory(file: str, imgsz: int, threads: int) -> float:
    """Most memory this process has held after running a model three times at batch 1, in MiB."""
    session = open_session(file, threads)
    for _ in range(3):
        session(np.random.default_rng(0).random((1, 3, imgsz, imgsz), np.float32))
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage tells on Linux counts in the process that started this one
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


if __name__ == "__main__":
    print(json.dumps(peak_memory(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
