"""Ways to run the jobs of a study: serially; in lanes, each a device with a process at a time; on a Ray cluster."""

import multiprocessing
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import replace

from ultralytics.utils import LOGGER

from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration.api import chosen_device
from yolo_dyn.robustness.executors import cluster_device, on_ray
from yolo_dyn.robustness.processes import deaf_to_interrupts, end_with_parent, ended_by_errors
from yolo_dyn.study.measure import Job
from yolo_dyn.study.records import RunRecord

Execute = Callable[[list[Job]], Iterator[tuple[Job, RunRecord]]]


def run_jobs(executor: str, device: str, jobs: int) -> Execute:
    """How jobs are run; what they come to is the same.

    Args:
        executor: "ray", or nothing.
        device: torch devices, with commas between them.
        jobs: at a time on each device.

    Raises:
        YoloDynError: for an unknown executor or device, no job, or what does not go together.
    """
    if executor not in ("", "ray"):
        raise YoloDynError(f"executor must be ray, or not given, got {executor!r}")
    if jobs < 1:
        raise YoloDynError(f"jobs must be at least 1, got {jobs}")
    devices = device.split(",") if device else [""]
    if executor and (len(devices) > 1 or jobs > 1):
        raise YoloDynError("executor=ray spreads the jobs itself: several devices or jobs do not go with it")
    if executor:
        return lambda missing: _on_ray(missing, device)
    for name in filter(None, devices):
        chosen_device(name)
    lanes = devices * jobs
    return lambda missing: _in_lanes(missing, lanes) if len(lanes) > 1 else _serial(missing, device)


def _serial(jobs: list[Job], device: str) -> Iterator[tuple[Job, RunRecord]]:
    for number, job in enumerate(jobs, 1):
        LOGGER.info(f"\n{job.title}: {number} of {len(jobs)} that are missing")
        yield job, replace(job, device=device).run()


def _in_lanes(jobs: list[Job], lanes: list[str]) -> Iterator[tuple[Job, RunRecord]]:
    """A lane is a device that runs one job at a time, each in a fresh process that ends with this one."""
    free: queue.Queue[str] = queue.Queue()
    for device in lanes:
        free.put(device)

    def run(job: Job) -> RunRecord:
        device = free.get()
        try:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, context, end_with_parent) as process:
                with deaf_to_interrupts():
                    future = process.submit(replace(job, device=device).run)
                return future.result()
        finally:
            free.put(device)

    with ThreadPoolExecutor(len(lanes)) as threads, ended_by_errors():
        futures = {threads.submit(run, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _on_ray(jobs: list[Job], device: str) -> Iterator[tuple[Job, RunRecord]]:
    if jobs:
        yield from on_ray(lambda job, on: replace(job, device=on).run(), jobs, cluster_device(device))
