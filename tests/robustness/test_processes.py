"""Workers end with the process that they work for, and so does what they have started."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from yolo_dyn.robustness.processes import end_with_parent

SPAWN = multiprocessing.get_context("spawn")


def work(file: str) -> None:
    """A worker that has just started one of its own, which has not begun to watch it."""
    end_with_parent()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    Path(file).with_suffix(".partial").write_text(f"{os.getpid()} {child.pid}")
    Path(file).with_suffix(".partial").replace(file)
    time.sleep(100)


def start(file: str) -> None:
    """A parent that is killed."""
    SPAWN.Process(target=work, args=(file,)).start()
    time.sleep(100)


def running(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("target", [work, start])
def test_nothing_outlives_a_worker_that_ends(tmp_path, target):
    file = tmp_path / "processes"
    process = SPAWN.Process(target=target, args=(str(file),))
    process.start()
    limit = time.monotonic() + 60
    while not file.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    started = [int(number) for number in file.read_text().split()]
    assert all(map(running, started))
    os.kill(process.pid, signal.SIGTERM if target is work else signal.SIGKILL)
    limit = time.monotonic() + 5
    while any(map(running, started)) and time.monotonic() < limit:
        time.sleep(0.05)
    left = [number for number in started if running(number)]
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert not left
    process.join()
