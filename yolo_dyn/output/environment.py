"""The machine and the versions that numbers were made with."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("yolo-dyn", "ultralytics", "torch", "numpy", "opencv-python", "pycocotools", "hotcoco", "albumentations")
ALIKE = {
    "ultralytics": ("ultralytics-opencv-headless",),
    "opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
}


def environment() -> dict[str, Any]:
    """Machine and versions."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": processor(),
        "processor_kind": _processor_kind(),
        "cores": os.cpu_count(),
        **versions(PACKAGES),
    }


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Version of each package, or of one that brings the same modules by another name; None where there is none."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str | None:
    for name in (package, *ALIKE.get(package, ())):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _processor_kind() -> str:
    """What decides which kernels torch runs, and so the last bits of a training: a maker sells several by one name."""
    import torch

    cpu = _cpuinfo()
    known = [f"{key.removeprefix('cpu ')} {cpu[key]}" for key in ("cpu family", "model") if key in cpu]
    return ", ".join([*known, torch.backends.cpu.get_cpu_capability()])


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first core; empty elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return {}
    first = cpuinfo.read_text().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
