"""`yolo-dyn study`: train and measure what is missing of a study, and write its page."""

from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER

from yolo_dyn.data.images import evaluation_set
from yolo_dyn.errors import MissingFileError, YoloDynError, nearest
from yolo_dyn.integration.api import stock_yaml
from yolo_dyn.output.arguments import Names, Positive, Seeds, checked
from yolo_dyn.output.files import writable
from yolo_dyn.output.outcome import Outcome, Text, Written
from yolo_dyn.study.definition import Study, read_study, studies
from yolo_dyn.study.lanes import run_jobs
from yolo_dyn.study.measure import Job, recipe
from yolo_dyn.study.networks import model_file
from yolo_dyn.study.page import counted, write_page
from yolo_dyn.study.records import read_record, write_record
from yolo_dyn.study.timing import time_arms


@checked
def study(
    study: str = "",
    data: str = "",
    arms: Names | None = None,
    seeds: Seeds | None = None,
    counts: bool = False,
    seconds: bool = False,
    executor: str = "",
    device: str = "",
    jobs: Positive = 1,
    project: str = "",
    out: str = "",
    page: str = "",
    **train: Any,
) -> Outcome:
    """Run a study: train and measure what is missing, arm by arm, and set it beside the paper's figures.

    Every arm and seed ends in one small file, so a killed study goes on where it was, and the page is made from these
    files alone.

    Args:
        study: name of a study that comes with the package, or a YAML file; the list of them if it is empty.
        data: data YAML, or folder of pictures by class; the study's own if it is empty.
        arms: names; all by default.
        seeds: of these arms; each arm's own by default.
        counts: only print what needs no training: parameters and multiply-adds, beside the paper's.
        seconds: only time the arms in turn; for a machine with nothing else to do.
        executor: "ray" to spread arms and seeds over a Ray cluster whose nodes see the same files.
        device: torch device of the trainings; several, 0,1, take an arm each at a time.
        jobs: trainings at a time on each device.
        project: folder of trainings; runs/study/<study> if it is empty.
        out: folder of the result files; `results` in the folder of trainings if it is empty.
        page: the page; page.md beside the results' folder if it is empty.
        **train: arguments of the stock trainer, which come before the study's.

    Returns:
        The page; or the list of studies, or counts, if these are asked for.

    Raises:
        YoloDynError: for an unknown study or arm, a wrong key in its file, data without the split, or results in the
            folder that other arguments led to; before anything long begins.
    """
    if not study:
        return Text(_listed())
    definition = read_study(study)
    names = _chosen(definition, arms, study)
    folder = Path(project or f"runs/study/{definition.name}")
    if counts:
        return Text(counted(definition, names, folder / "models"))
    results = Path(out) if out else folder / "results"
    page_file = Path(page) if page else results.parent / "page.md"
    all_jobs = [
        Job(definition, name, seed, data or definition.data, train, folder)
        for name in names
        for seed in (definition.seeds_of(name) if seeds is None else seeds)
    ]
    _check(definition, all_jobs, results)
    if seconds:
        time_arms(definition, names, data or definition.data, train, folder, results)
    else:
        all_jobs.sort(key=lambda job: job.seed)  # every arm once before any arm twice
        _run(all_jobs, results, run_jobs(executor, device, jobs))
    return write_page(definition, results, page_file)


@checked
def results(study: str, source: str, page: str = "") -> Written:
    """Write the page of a study again, from its result files alone.

    Args:
        study: name of a study that comes with the package, or a YAML file.
        source: folder of the result files.
        page: the page; page.md beside the folder if it is empty.

    Returns:
        The page.

    Raises:
        YoloDynError: if there is no result, or one is damaged.
    """
    return write_page(read_study(study), Path(source), Path(page) if page else Path(source).parent / "page.md")


def _listed() -> str:
    found = [read_study(name) for name in studies()]
    wide = 2 + max(len(each.name) for each in found)
    lines = [f"{each.name:<{wide}}{each.paper + ': ' if each.paper else ''}{each.title}" for each in found]
    return "\n".join(["studies: yolo-dyn study NAME data=...", "", *lines])


def _chosen(study: Study, arms: list[str] | None, file: str) -> list[str]:
    trained = study.trained()
    for name in arms or ():
        if name in study.arms and name not in trained:
            raise YoloDynError(f"{file}: the arm {name!r} is left out: {study.arms[name].left_out}")
        if name not in trained:
            raise YoloDynError(f"{file}: unknown arm {name!r}{nearest(name, trained)} (known: {', '.join(trained)})")
    if not trained:
        reasons = "; ".join(dict.fromkeys(arm.left_out for arm in study.arms.values()))
        raise YoloDynError(f"study {file}: all of its arms are left out: {reasons}")
    return list(arms or trained)


def _check(study: Study, jobs: list[Job], out: Path) -> None:
    """Raise if something does not fit, before anything long begins."""
    if not jobs:
        raise YoloDynError("seeds must name at least one seed")
    for job in {job.arm: job for job in jobs}.values():
        arm = study.arms[job.arm]
        try:
            stock_yaml(arm.model)
            model_file(arm, job.arm, job.project / "models")
        except (FileNotFoundError, YoloDynError) as error:
            kind = MissingFileError if isinstance(error, FileNotFoundError) else YoloDynError
            raise kind(f"study {study.name}, arm {job.arm}: {error}") from error
        if "cfg" in job.arguments():
            recipe(job.arguments()["cfg"])
    _check_data(study, jobs[0].data)
    writable(out.parent, out.name)
    for job in jobs:
        if job.file(out).is_file():
            _same(read_record(job.file(out)).command, job.command(), job.file(out))


def _check_data(study: Study, data: str) -> None:
    if not data:
        raise YoloDynError(f"study {study.name} names no data: give data=")
    if study.task == "classify":
        folder = Path(data)
        if len(folder.parts) > 1 and not folder.is_dir():  # a bare name may be one that Ultralytics knows
            raise YoloDynError(f"data={data} is no folder of pictures by class")
        if folder.is_dir() and not (folder / "train").is_dir():
            raise YoloDynError(f"data={data} has no folder 'train' with a folder for each class")
        if folder.is_dir() and not any((folder / split).is_dir() for split in ("val", "test")):
            raise YoloDynError(f"data={data} has no folder 'val' or 'test' with a folder for each class")
    elif not evaluation_set(data, study.split).labelled:
        raise YoloDynError(f"{data}, split {study.split}, has no labels to score against")


def _same(earlier: str, now: str, file: Path) -> None:
    """Raise if a result was made by another command: it would be mixed with what it does not belong to."""
    if set(earlier.split()) != set(now.split()):
        raise YoloDynError(f"the result {file} is of `{earlier}`, not of `{now}`: give another out=, or delete it")


def _run(jobs: list[Job], out: Path, execute: Any) -> None:
    missing = [job for job in jobs if not job.file(out).is_file()]
    if len(missing) < len(jobs):
        LOGGER.info(f"{len(jobs) - len(missing)} of {len(jobs)} results are there already, in {out}")
    for number, (job, record) in enumerate(execute(missing), 1):
        write_record(job.file(out), record)
        LOGGER.info(f"\n{job.title}: written to {job.file(out)}, {number} of {len(missing)} that were missing")
