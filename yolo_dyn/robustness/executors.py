"""Ways to run the cells of a sweep, which do not depend on each other: serially, in processes, on a Ray cluster."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from yolo_dyn.errors import YoloDynError, nearest, needed
from yolo_dyn.integration.api import chosen_device, machine_name
from yolo_dyn.robustness.cells import FinishedCell, Task
from yolo_dyn.robustness.processes import deaf_to_interrupts, end_with_parent, ended_by_errors, without_leak_warnings

Progress = Callable[[int], None]  # number of images done
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Executor:
    """A way to run tasks."""

    run: Callable[[list[Task], int, Progress], Iterator[FinishedCell]]  # so many at a time
    device: Callable[[str], str] = chosen_device  # that tasks run on, from the one that is asked for
    machine: Callable[[str], str] = machine_name  # that such a device belongs to


def serial(tasks: list[Task], jobs: int, progress: Progress) -> Iterator[FinishedCell]:
    """One after another in this process."""
    for task in tasks:
        yield task.run(progress)


def processes(tasks: list[Task], jobs: int, progress: Progress) -> Iterator[FinishedCell]:
    """In so many fresh processes, which end with this one."""
    without_leak_warnings()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), end_with_parent) as pool, ended_by_errors():
        with deaf_to_interrupts():
            futures = [pool.submit(task.run) for task in tasks]
        yield from _reported((future.result() for future in as_completed(futures)), tasks, progress)


def cluster(tasks: list[Task], jobs: int, progress: Progress) -> Iterator[FinishedCell]:
    """On a Ray cluster, whose nodes must see the same files."""
    settings = tasks[0].settings
    found = on_ray(lambda task, device: task.on(device).run(), tasks, settings.device, settings.threads or 1)
    yield from _reported((done for _, done in found), tasks, progress)


def cluster_device(device: str) -> str:
    """The device of jobs on a Ray cluster: the CPU if that is asked for, or if the cluster has no GPU.

    Raises:
        YoloDynError: if Ray or a cluster is missing, or a GPU is asked for and the cluster has none.
    """
    gpus = connected_ray().cluster_resources().get("GPU", 0)
    if device not in ("", "cpu") and not gpus:
        raise YoloDynError(f"device={device}: the Ray cluster has no GPU")
    return "cpu" if device == "cpu" or not gpus else device or "0"


def cluster_machine(device: str) -> str:
    """The machine that jobs with such a device get from a Ray cluster."""
    ((_, name),) = on_ray(lambda _, on: machine_name(on), [None], device)
    return name


def on_ray(
    run: Callable[[Job, str], Result], jobs: Sequence[Job], device: str, cpus: int = 1
) -> Iterator[tuple[Job, Result]]:
    """Run jobs on a Ray cluster, each on a GPU of its own unless the device is the CPU.

    Args:
        run: is called with a job and its device: cpu, or an empty string for the one GPU that Ray lets it see, whatever
            number that has on its machine.
        jobs: to run.
        device: from `cluster_device`.
        cpus: that a job takes.

    Returns:
        Each job with its result, as they are done.
    """
    ray = connected_ray()
    on = "cpu" if device == "cpu" else ""
    remote = ray.remote(num_cpus=cpus, num_gpus=int(on != "cpu"))(_in_folder)
    of = {remote.remote(run, job, on, Path.cwd()): job for job in jobs}
    waiting = list(of)
    while waiting:
        (ready, *_), waiting = ray.wait(waiting)
        yield of[ready], ray.get(ready)


def _in_folder(run: Callable[[Job, str], Result], job: Job, device: str, folder: Path) -> Result:
    """A worker of Ray starts in a folder of its own; paths are as seen from this one."""
    os.chdir(folder)
    return run(job, device)


def connected_ray() -> Any:
    """Ray, connected to the cluster that this process belongs to, or that RAY_ADDRESS names.

    Raises:
        YoloDynError: if it is not installed, or there is no cluster.
    """
    ray = needed("ray", "executor=ray", "'yolo-dyn[ray]'")
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False)
        except ConnectionError as error:
            raise YoloDynError("executor=ray found no Ray cluster: start one with `ray start --head`") from error
    return ray


def _reported(found: Iterable[FinishedCell], tasks: list[Task], progress: Progress) -> Iterator[FinishedCell]:
    for done in found:
        progress(len(tasks[0].images.files))
        yield done


EXECUTORS = {
    "serial": Executor(serial),
    "processes": Executor(processes),
    "ray": Executor(cluster, cluster_device, cluster_machine),
}
EARLIER_NAMES = {"here": "serial"}


@dataclass(frozen=True)
class RunOptions:
    """How cells are run, which changes no number."""

    workers: int = 0
    jobs: int = 1
    executor: Executor = EXECUTORS["serial"]
    hashes: bool = False


def executor(name: str, jobs: int) -> Executor:
    """The executor of that name; without a name, processes for several jobs.

    Raises:
        YoloDynError: for an unknown name, or no job.
    """
    if jobs < 1:
        raise YoloDynError(f"jobs must be at least 1, got {jobs}")
    name = EARLIER_NAMES.get(name, name) or ("processes" if jobs > 1 else "serial")
    if name not in EXECUTORS:
        raise YoloDynError(f"unknown executor {name!r}{nearest(name, EXECUTORS)} (known: {', '.join(EXECUTORS)})")
    return EXECUTORS[name]
