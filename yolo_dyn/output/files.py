"""Files: the YAMLs that come with the package, found by bare name from any folder; written whole; hashed."""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from yolo_dyn.errors import MissingFileError, YoloDynError

FOLDERS = ("models_yaml", "datasets")
OPENCV = "-opencv.onnx"  # ends the name of an ONNX file that OpenCV runs, in place of ONNX Runtime
_PACKAGE = Path(__file__).resolve().parent.parent
_SCALED = re.compile(r"(yolo(?:e-)?v?\d+)[nslmx]")


def bundled_folder(name: str) -> Path:
    """Return the folder `models_yaml` or `datasets`: inside an installed package, beside it in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def bundled_names() -> list[str]:
    """Names of all YAML files that come with the package."""
    return sorted(file.name for folder in FOLDERS for file in bundled_folder(folder).glob("*.yaml"))


def is_yaml(name: str | Path) -> bool:
    """Whether a name is that of a YAML file."""
    return Path(name).suffix in (".yaml", ".yml")


def unscaled(name: str) -> str:
    """Drop the scale letter, as Ultralytics does: yolov8n-sgdm.yaml is read from yolov8-sgdm.yaml."""
    return _SCALED.sub(r"\1", name, count=1)


def variant(name: str) -> tuple[str, dict[str, Any]]:
    """Read what the name of a classifier says about its backbone.

    Returns:
        The name without it, and the options of its TorchvisionBackbone: mobilenetv2-x0.5-odconv-cls.yaml is half as
        wide as mobilenetv2-odconv-cls.yaml, resnet18-cifar-cls.yaml is resnet18-cls.yaml with the stem for CIFAR.
    """
    if match := re.match(r"mobilenetv2(-x(\d+\.\d+))-", name):
        return name.replace(match[1], "", 1), {"width": float(match[2])}
    if re.match(r"resnet\d+-cifar-", name):
        return name.replace("-cifar", "", 1), {"stem": "cifar"}
    return name, {}


def find_yaml(name: str | Path) -> Path | None:
    """Find a YAML beside its scaled name or that of a `variant`, or among those that come with the package.

    Ultralytics takes the scale letter out of the whole path, which breaks in a folder named ``run2s``; here it is taken
    out of the file name alone.

    Args:
        name: a bare name, or a path; ``models_yaml/`` and ``datasets/`` also name the bundled folders.

    Returns:
        The file, or None.
    """
    path = Path(name)
    if not is_yaml(path):
        return None
    candidates = [path, path.with_name(unscaled(path.name)), path.with_name(variant(path.name)[0])]
    if path.parent == Path() or str(path.parent) in FOLDERS:
        folders = FOLDERS if path.parent == Path() else (str(path.parent),)
        candidates += [bundled_folder(folder) / file.name for folder in folders for file in tuple(candidates)]
    return next((file for file in candidates if file.is_file()), None)


def results_folder(project: str, name: str) -> Path:
    """The folder of that name inside a project.

    Raises:
        YoloDynError: if the name leads out of it.
    """
    folder = Path(project) / name
    if not folder.resolve().is_relative_to(Path(project).resolve()):
        raise YoloDynError(f"name must be a folder inside project={project}, got {name!r}")
    return folder


def check_new(path: Path, exist_ok: bool) -> None:
    """Raise YoloDynError if a file that `out` names is there already and may not be replaced."""
    if path.exists() and not exist_ok:
        raise YoloDynError(f"{path} exists; exist_ok=True replaces it, out=... writes another")


def check_folder(out: str | Path) -> None:
    """Raise MissingFileError if the folder of a file that `out` names, if it does, is not there."""
    if str(out) and not Path(out).absolute().parent.is_dir():
        raise MissingFileError(f"the folder of out={out} does not exist")


def writable(folder: Path, inside: str = "cells") -> Path:
    """The folder for the results, made with the one inside and tried before anything long begins."""
    try:
        (folder / inside).mkdir(parents=True, exist_ok=True)
        trial = folder / inside / f".writable.{os.getpid()}"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise YoloDynError(f"the folder {folder} cannot be written to: {error.strerror}") from error
    return folder


@contextmanager
def written_whole(path: Path, argument: str = "") -> Iterator[Path]:
    """A file to write to, which takes the place of `path` when all went well: nobody ever finds half of it.

    Args:
        path: the file.
        argument: that named it, for messages.

    Raises:
        YoloDynError: if it cannot be written: the disk is full, the folder is missing or may not be written to.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        named = f"{argument}={path}" if argument else path
        raise YoloDynError(f"{named} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, argument: str = "") -> None:
    """Write a text file whole, see `written_whole`."""
    with written_whole(path, argument) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, argument: str = "") -> None:
    """Write a JSON file whole, see `written_whole`."""
    write_text(path, json.dumps(content, indent=1) + "\n", argument)


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file whole, see `written_whole`; no spreadsheet takes a name of the user's for a formula."""
    with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([_no_formula(value) for value in row] for row in rows)


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file, or of all files of a folder in the order of their names.

    Raises:
        YoloDynError: if there is nothing.
    """
    path = Path(path)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    if not all(file.is_file() for file in files) or not files:
        raise YoloDynError(f"{path} does not exist")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
