"""Ways to run the cells of a sweep, which do not depend on each other: here, in several processes, on a Ray cluster."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from typing import Any

from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.robustness.cells import Done, Task

Progress = Callable[[int], None]  # number of images done
Executor = Callable[[list[Task], int, Progress], Iterator[Done]]


def here(tasks: list[Task], jobs: int, progress: Progress) -> Iterator[Done]:
    """One after another in this process."""
    for task in tasks:
        yield task.run(progress)


def processes(tasks: list[Task], jobs: int, progress: Progress) -> Iterator[Done]:
    """In so many fresh processes, which end with this one."""
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        futures = [pool.submit(task.run) for task in tasks]
        try:
            yield from _reported((future.result() for future in as_completed(futures)), tasks, progress)
        finally:
            pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """A killed parent says nothing to its workers, which would wait for it for ever."""
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def ray(tasks: list[Task], jobs: int, progress: Progress) -> Iterator[Done]:
    """On a Ray cluster, whose nodes must see the same files."""
    ray = connected_ray()
    gpus = 1 if str(tasks[0].settings.device) not in ("cpu", "") else 0
    remote = ray.remote(num_cpus=tasks[0].settings.threads or 1, num_gpus=gpus)(Task.run)
    found = (done for _, done in in_any_order(ray, [remote.remote(task) for task in tasks]))
    yield from _reported(found, tasks, progress)


def connected_ray() -> Any:
    """Ray, connected to the cluster that this process belongs to, or that RAY_ADDRESS names.

    Raises:
        YoloDynError: where it is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise YoloDynError("executor=ray needs Ray: pip install 'yolo-dyn[ray]'") from error
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False)
        except ConnectionError as error:
            raise YoloDynError("executor=ray found no Ray cluster: start one with `ray start --head`") from error
    return ray


def in_any_order(ray: Any, waiting: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Each reference with its result, as they are done."""
    while waiting:
        (ready, *_), waiting = ray.wait(waiting)
        yield ready, ray.get(ready)


def _reported(found: Iterable[Done], tasks: list[Task], progress: Progress) -> Iterator[Done]:
    for done in found:
        progress(len(tasks[0].images.files))
        yield done


EXECUTORS: dict[str, Executor] = {"here": here, "processes": processes, "ray": ray}


def executor(name: str, jobs: int) -> Executor:
    """The executor of that name; without a name, processes for several jobs.

    Raises:
        YoloDynError: for an unknown name, or no job.
    """
    if jobs < 1:
        raise YoloDynError(f"jobs must be at least 1, got {jobs}")
    name = name or ("processes" if jobs > 1 else "here")
    if name not in EXECUTORS:
        raise YoloDynError(f"unknown executor {name!r}{nearest(name, EXECUTORS)} (known: {', '.join(EXECUTORS)})")
    return EXECUTORS[name]
