"""Installed commands in processes forked from one that has imported torch and Ultralytics.

A short command spends most of its time on these imports. What a process does about its start-up, or reads from its
environment while it imports, needs a process of its own.
"""

import importlib.metadata
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

from ultralytics.utils import ARGV

IMPORTED = ["torchvision", "ultralytics.cfg", "ultralytics.models", "yolo_dyn.cli", "matplotlib.pyplot", "polars"]


def _call(words: list[str], cwd: Path, files: list[str]) -> None:
    os.chdir(cwd)
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    ARGV[:] = words
    sys.argv = ARGV  # Ultralytics keeps the list of its import
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=words[0])
    try:
        sys.exit(entry.load()())
    except Exception:  # as the interpreter does it; multiprocessing would print it by itself
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


def run(words: list[str], cwd: Path, folder: Path) -> subprocess.CompletedProcess:
    """Run a command as a shell would; what it prints goes by way of two files in the folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    files = [str(folder / "stdout"), str(folder / "stderr")]
    process = context.Process(target=_call, args=(words, cwd, files))
    process.start()
    process.join()
    return subprocess.CompletedProcess(words, process.exitcode, *(Path(file).read_text() for file in files))
