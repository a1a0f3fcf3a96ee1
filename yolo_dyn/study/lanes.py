"""Ways to run the jobs of a study: here, one after another; in lanes, one process a device; on a Ray cluster."""

import multiprocessing
import os
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from yolo_dyn.errors import YoloDynError
from yolo_dyn.robustness.executors import connected_ray, end_with_parent, in_any_order
from yolo_dyn.study.measure import Job, Record

Execute = Callable[[list[Job]], Iterator[tuple[Job, Record]]]


def run_jobs(executor: str, device: str, jobs: int) -> Execute:
    """How jobs are run; what they come to is the same.

    Args:
        executor: "ray", or nothing.
        device: torch devices, with commas between them.
        jobs: at a time on each device.

    Raises:
        YoloDynError: for an unknown executor, no job, or what does not go together.
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
    lanes = devices * jobs
    return lambda missing: _in_lanes(missing, lanes) if len(lanes) > 1 else _here(missing, device)


def _here(jobs: list[Job], device: str) -> Iterator[tuple[Job, Record]]:
    for number, job in enumerate(jobs, 1):
        print(f"\n{job.title}: {number} of {len(jobs)} that are missing")
        yield job, replace(job, device=device).run()


def _in_lanes(jobs: list[Job], lanes: list[str]) -> Iterator[tuple[Job, Record]]:
    """A lane is a device that runs one job at a time, each in a fresh process that ends with this one."""
    free: queue.Queue[str] = queue.Queue()
    for device in lanes:
        free.put(device)

    def run(job: Job) -> Record:
        device = free.get()
        try:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, context, end_with_parent) as process:
                return process.submit(replace(job, device=device).run).result()
        finally:
            free.put(device)

    with ThreadPoolExecutor(len(lanes)) as threads:
        futures = {threads.submit(run, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _on_ray(jobs: list[Job], device: str) -> Iterator[tuple[Job, Record]]:
    """On a GPU each where the cluster has any and the device is not the CPU; Ray says which, so the job must not."""
    if not jobs:
        return
    ray = connected_ray()
    gpus = ray.cluster_resources().get("GPU", 0)
    if device not in ("", "cpu") and not gpus:
        raise YoloDynError(f"device={device}: the Ray cluster has no GPU")
    device = "cpu" if device == "cpu" else ""
    remote = ray.remote(num_cpus=1, num_gpus=int(gpus > 0 and not device))(_in_folder)
    of = {remote.remote(replace(job, device=device), Path.cwd()): job for job in jobs}
    for reference, record in in_any_order(ray, list(of)):
        yield of[reference], record


def _in_folder(job: Job, folder: Path) -> Record:
    """A worker of Ray starts in a folder of its own; paths are as seen from this one."""
    os.chdir(folder)
    return job.run()
