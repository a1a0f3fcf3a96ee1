"""Sweeps: their numbers against pycocotools by hand, resuming, executors, bad images, and the page."""

import contextlib
import csv
import dataclasses
import html.parser
import io
import json
import os
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import heeding_ctrl_c, save
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from reference_scores import simulated
from ultralytics import YOLO

from yolo_dyn import YoloDynError, cli
from yolo_dyn.robustness import cells, executors, register_corruption
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.corruptions import CORRUPTIONS, Corruption
from yolo_dyn.robustness.evaluate import Settings
from yolo_dyn.robustness.plan import Plan
from yolo_dyn.robustness.records import Condition
from yolo_dyn.robustness.rediagnosis import diagnosed
from yolo_dyn.robustness.report import write
from yolo_dyn.robustness.results import Sweep
from yolo_dyn.robustness.scores import paired_interval
from yolo_dyn.robustness.sweep import robustness

FAST = {"imgsz": 192, "batch": 5, "device": "cpu", "threads": 1, "resamples": 50}
FEW = {"max_det": 15}  # boxes, since each takes its time to draw
NUMBERS = ("AP", "AP50", "AP75", "AP_large", "AR100", "per_class", "intervals", "ultralytics", "detections")


@pytest.fixture
def folder(detectors, tmp_path, monkeypatch) -> Path:
    """A copy of the data set and the models that a test may spoil; the working directory."""
    shutil.copytree(detectors, tmp_path / "work")
    text = (detectors / "data.yaml").read_text().replace(str(detectors), str(tmp_path / "work"))
    (tmp_path / "work/data.yaml").write_text(text)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def done(detectors, tmp_path_factory):
    """A finished sweep of both models."""
    models = [str(detectors / name) for name in ("a.pt", "b.pt")]
    project = str(tmp_path_factory.mktemp("runs"))
    return robustness(models, str(detectors / "data.yaml"), sigma=[0, 10, 50], hashes=True, project=project, **FAST)


def numbers(sweep) -> list[dict]:
    return [{key: record.as_dict().get(key) for key in NUMBERS} for record in sweep.records]


@pytest.fixture
def without_pictures(monkeypatch) -> None:
    """For tests that look at cells alone."""
    monkeypatch.setattr("yolo_dyn.robustness.sweep.write", lambda *_: None)


@pytest.fixture
def empty_pictures(monkeypatch) -> None:
    """For tests that look at the page's text."""
    monkeypatch.setattr("yolo_dyn.robustness.report.curves", lambda _, path: path.touch())
    monkeypatch.setattr("yolo_dyn.robustness.report.grid", lambda _, path, *__: path.touch() or [])
    monkeypatch.setattr(
        "yolo_dyn.robustness.diagnosis_pictures.PICTURES",
        dict.fromkeys(("errors", "precision", "reliability"), lambda _, path: path.touch()),
    )


def run(folder: Path, **changes):
    arguments = {"model": ["a.pt"], "data": "data.yaml", "sigma": [20], **FAST, **changes}
    return robustness(**arguments)


def test_scores_are_pycocotools_on_the_saved_detections(done):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(done.folder / "annotations.json")
    assert len(done.records) == 6
    for cell, record in zip(done.cells, done.records, strict=True):
        found = np.load(done.folder / "cells" / f"{cell.name}.npz")["detections"]
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCOeval(truth, truth.loadRes(found), "bbox")
            coco.evaluate()
            coco.accumulate()
            coco.summarize()
        names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
        expected = {name: value for name, value in zip(names, coco.stats, strict=False) if value >= 0}
        assert {name: record.scores[name] for name in names if name in record.scores} == pytest.approx(
            expected, abs=1e-9
        )
        assert record.scores["AR100"] == pytest.approx(coco.stats[8], abs=1e-9)
    scores = [record.scores["AP"] for record in done.records if record.model == "a"]
    assert scores[0] > 0.5
    assert scores[0] > scores[1] > scores[2] > 0


def test_the_files_of_a_sweep(done):
    report = json.loads((done.folder / "results.json").read_text())
    assert report["cells"] == json.loads(json.dumps([record.as_dict() for record in done.records]))
    assert [(c["model"], c["corruption"], c["sigma"]) for c in report["cells"]] == [
        (model, corruption, sigma)
        for corruption, sigma in (("clean", 0), ("gaussian_noise", 10), ("gaussian_noise", 50))
        for model in ("a", "b")
    ]
    with (done.folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["AP"]) for row in rows] == [record.scores["AP"] for record in done.records]
    assert float(rows[3]["AP_low"]) == done.records[3].intervals["AP"][0]
    assert report["data"]["images"] == 10
    assert report["environment"]["torch"]
    for name in ("curves.png", "errors.png", "precision.png", "reliability.png", "grid.png"):
        assert min(cv2.imread(str(done.folder / name)).shape[:2]) > 300


def test_mean_and_relative_performance_of_a_sweep(done):
    for row in done.summary:
        clean, *noisy = [record.scores["AP"] for record in done.records if record.model == row.model]
        assert row.ap.p == clean
        assert row.ap.mpc == pytest.approx(np.mean(noisy))
        assert row.ap.rpc == pytest.approx(np.mean(noisy) / clean)
        assert row.ap.cells == 2


def test_the_summary_prints_ultralytics_own_ap_beside_ours(done):
    lines = {line.split("  ")[0]: line.split()[-3:] for line in str(done).splitlines()}
    for model in ("a", "b"):
        records = [record for record in done.records if record.model == model]
        assert lines[f"{model} (Ultralytics)"] == [f"{record.ultralytics['AP']:.3f}" for record in records]


def test_differences_are_paired(done):
    resampled = {
        (cell.label, cell.condition): np.load(done.folder / "cells" / f"{cell.name}.npz")["resampled"]
        for cell in done.cells
    }
    found = {(record.model, record.condition): record.scores["AP"] for record in done.records}
    *cellwise, mean = done.differences
    for row in cellwise:
        a, b = (resampled[model, row.condition] for model in ("a", "b"))
        assert row.ap.value == found["b", row.condition] - found["a", row.condition]
        values = {"AP": row.ap.value, "AP50": row.ap50.value}
        assert (row.ap.low, row.ap.high) == paired_interval(a, b, values, done.records[0].images)["AP"]
    assert str(mean.condition) == "mPC"
    assert mean.ap.value == pytest.approx(np.mean([row.ap.value for row in cellwise[1:]]))


def test_cells_from_before_get_the_intervals_of_today(done, tmp_path):
    """They were percentiles once: those of a results folder are all of one kind."""
    shutil.copytree(done.folder, tmp_path / "run")
    for file in (tmp_path / "run" / "cells").glob("*.json"):
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "intervals": {"AP": [0.1, 0.2], "AP50": [0.3, 0.4]}}))
    again = Sweep.read(tmp_path / "run", done.cells, done.images, done.settings, "")
    assert [record.intervals for record in again.records] == [record.intervals for record in done.records]


def test_what_goes_wrong_stands_in_every_result(done):
    with (done.folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    text = (done.folder / "report.html").read_text()
    for record, row in zip(done.records, rows, strict=True):
        errors, rated = record.diagnosis.errors, record.diagnosis.reliability
        assert np.mean(record.diagnosis.precision) == pytest.approx(record.scores["AP50"], abs=1e-9)
        assert {name: float(row[f"dAP50 of {name}"]) for name in errors.gains} == errors.gains
        assert {name: int(row[f"{name} errors"]) for name in errors.counts} == errors.counts
        assert row["D-ECE"] == ("" if rated.dece is None else str(rated.dece))
        assert row["empty because"] == "; ".join(record.diagnosis.missing)
        for value in errors.gains.values():
            assert f"<td>{value:+.3f}</td>" in text
    own = [record for record in done.records if record.model == "a"]
    assert own[0].diagnosis.errors.counts["missed"] < own[-1].diagnosis.errors.counts["missed"]
    names, classes = list(rows[0]), [f"AP of {name}" for name in done.classes]
    assert names[names.index("AP50_high") + 1 :][: len(classes) + 1] == [*classes, "dAP50 of classification"]
    for line in str(done).splitlines():
        if line.startswith("a  clean  "):
            gains = own[0].diagnosis.errors.gains
            assert f"{max(list(gains.values())[:6]):+.3f}" in line
            break
    else:
        pytest.fail("the costliest errors are not printed")


def test_what_falls_by_class_and_by_size(done):
    report = json.loads((done.folder / "results.json").read_text())
    clean, *noisy = [record for record in done.records if record.model == "b"]
    of_b = report["degradation"][1]
    assert of_b["model"] == "b"
    assert list(of_b["classes"]) == done.classes
    for name, fall in of_b["classes"].items():
        p, values = clean.per_class[name], [record.per_class[name] for record in noisy]
        assert (fall["P"], fall["mPC"]) == (p, pytest.approx(np.mean(values)))
        assert fall["drop"] == pytest.approx(p - np.mean(values))
        assert fall["rPC"] == (pytest.approx(np.mean(values) / p) if p else None)
        assert fall["change"] == {r.condition.slug: v - p for r, v in zip(noisy, values, strict=True)}
    assert of_b["sizes"].keys() == {name for name in ("AP_small", "AP_medium", "AP_large") if name in clean.scores}
    assert of_b["sizes"]["AP_large"]["P"] == clean.scores["AP_large"]


def as_before(folder: Path) -> list[Path]:
    """The cells of a folder, as versions wrote them that did not tell what goes wrong."""
    files = sorted((folder / "cells").glob("*.json"))
    for number, file in enumerate(files):
        content = json.loads(file.read_text())
        del content["diagnosis"]
        file.write_text(json.dumps(content))
        os.utime(file, (1000 + number, 1000 + number))
    return files


def test_cells_from_before_tell_what_goes_wrong(done, tmp_path, monkeypatch, log):
    shutil.copytree(done.folder, tmp_path / "run")
    files = as_before(tmp_path / "run")
    before = Sweep.read(tmp_path / "run", done.cells, done.images, done.settings, "")
    assert [record.diagnosis for record in before.records] == [None] * 6
    assert diagnosed(before).records == done.records
    assert "6 cells of an earlier version" in log[0]
    assert [file.stat().st_mtime for file in files] == [1000 + number for number in range(6)]
    monkeypatch.setattr("yolo_dyn.robustness.rediagnosis.diagnose", lambda *_: pytest.fail("again"))
    again = Sweep.read(tmp_path / "run", done.cells, done.images, done.settings, "")
    assert diagnosed(again).records == done.records


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({}, "the cell keeps no detections"),
        ({"detections": np.ones((3, 4))}, "the cell keeps no detections"),
        ({"detections": np.full((1, 7), 99.0)}, "do not fit: a detection names the image 99"),
    ],
)
def test_cells_from_before_that_cannot_tell_it_say_why(arrays, reason, done, empty_pictures, tmp_path):
    shutil.copytree(done.folder, tmp_path / "run")
    as_before(tmp_path / "run")
    file = tmp_path / "run" / "cells" / f"{done.cells[2].name}.npz"
    np.savez_compressed(file, resampled=np.load(file)["resampled"], **arrays)
    sweep = diagnosed(Sweep.read(tmp_path / "run", done.cells, done.images, done.settings, ""))
    assert sweep.records[1] == done.records[1]
    assert reason in sweep.records[2].diagnosis.missing[0]
    write(sweep, images=False)
    text = html.unescape((sweep.folder / "report.html").read_text())
    assert text.count(f">{sweep.records[2].diagnosis.missing[0]}</td>") == 2
    with (sweep.folder / "results.csv").open() as lines:
        row = list(csv.DictReader(lines))[2]
    assert reason in row["empty because"]
    assert row["D-ECE"] == row["dAP50 of missed"] == row["missed errors"] == ""
    assert float(row["AP"]) == done.records[2].scores["AP"]


def test_pixel_hashes_are_printed_and_those_of_every_model_agree(done):
    pixels = {}
    for record in done.records:
        pixels.setdefault(record.condition, []).append(record.pixels)
        assert record.pixels["used"][:16] in str(done)
    assert all(a == b for a, b in pixels.values())
    assert len({a["decoded"] for a, _ in pixels.values()}) == 1
    assert len({a["used"] for a, _ in pixels.values()}) == 3
    listed = (done.folder / "cells" / f"{done.cells[0].name}_pixels.csv").read_text().splitlines()
    assert len(listed) == 11


class Page(html.parser.HTMLParser):
    """Sections, and everything the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.sections += [given["id"]] if tag == "section" else []
        self.sources += [given[key] for key in ("src", "href") if key in given]


def test_the_page_is_complete_and_self_contained(done):
    text = (done.folder / "report.html").read_text()
    page = Page(text)
    expected = ["summary", "curves", "viewer", "scores", "differences", "errors", "precision", "reliability", "cells"]
    assert page.sections == [*expected, "classes", "degradation", "images", "reproduce"]
    assert all(source.startswith("data:") for source in page.sources)
    assert len(page.sources) == 1  # an empty icon: what else is shown is in the data of the script
    for record in done.records:
        assert f"{record.scores['AP']:.3f}" in text


def test_a_finished_sweep_runs_nothing_and_a_missing_cell_alone(folder, without_pictures, monkeypatch, log):
    first = run(folder, sigma=[20, 40])
    ran = []
    whole = cells.Task.run
    monkeypatch.setattr(cells.Task, "run", lambda task, *a: ran.append(task.cell.condition.strength) or whole(task, *a))
    assert numbers(run(folder, sigma=[20, 40])) == numbers(first)
    assert ran == []
    assert "3 of 3 cells are finished already" in log[-1]
    (first.folder / "cells" / f"{first.cells[1].name}.json").unlink()
    assert numbers(run(folder, sigma=[20, 40])) == numbers(first)
    run(folder, sigma=[20, 30, 40])
    assert ran == [20, 30]
    for file in (first.folder / "cells").glob("*.json"):  # as earlier versions wrote it
        content = json.loads(file.read_text())
        del content["skipped"]
        file.write_text(json.dumps(content))
    assert numbers(run(folder, sigma=[20, 40])) == numbers(first)
    assert ran == [20, 30]


def test_detections_of_a_finished_sweep_are_written_when_asked_for(folder, without_pictures, monkeypatch):
    finished = run(folder)
    assert not (finished.folder / "detections").exists()
    monkeypatch.setattr(cells.Task, "run", lambda *_: pytest.fail("measured again"))
    run(folder, json=True)
    for cell, record in zip(finished.cells, finished.records, strict=True):
        found = json.loads((finished.folder / "detections" / "a" / f"{cell.condition.slug}.json").read_text())
        assert len(found) == record.detections > 0


def test_cells_of_earlier_versions_open(folder, without_pictures, monkeypatch):
    """Their detections are rows of double precision."""
    before = run(folder)
    for cell in before.cells:
        file = before.folder / "cells" / f"{cell.name}.npz"
        with np.load(file) as arrays:
            earlier = {name: np.ascontiguousarray(arrays[name], float) for name in arrays.files}
        assert earlier["detections"].size
        np.savez_compressed(file, **earlier)
        for name, array in cells.load_arrays(file.parent, cell).items():
            np.testing.assert_array_equal(array, earlier[name])
    monkeypatch.setattr(cells.Task, "run", lambda *_: pytest.fail("measured again"))
    assert numbers(run(folder)) == numbers(before)


@pytest.mark.parametrize("exact", [True, False])
def test_a_cell_is_compact_and_keeps_detections_exactly(exact, folder, tmp_path):
    _, found = simulated(100)
    if not exact:  # than single precision
        found[0, 5] = 0.1
    sweep = run(folder, sigma=[0])
    (cell,), (record,) = sweep.cells, sweep.records
    resampled = np.zeros((1000, 2))
    cells.save(tmp_path, cells.FinishedCell(cell, record, {"detections": found, "resampled": resampled}, {}))
    kept = cells.load_arrays(tmp_path, cell)["detections"]
    assert kept.dtype == float
    assert (kept == found).all()
    bytes_each = (tmp_path / f"{cell.name}.npz").stat().st_size / len(found)
    assert bytes_each < 5 * (4 if exact else 8)  # less than its box and its score alone, uncompressed


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"model": "a"',
        *(pytest.param(c, marks=pytest.mark.accept) for c in (b"[]", b'{"model": "a"}', b"\xff\xfe")),
    ],
)
def test_a_damaged_cell_is_set_aside_and_measured_again(content, folder, without_pictures, log):
    before = run(folder)
    file = before.folder / "cells" / f"{before.cells[1].name}.json"
    file.write_bytes(content)
    (before.folder / "cells" / "foreign.json").write_bytes(content)
    assert numbers(run(folder)) == numbers(before)
    assert sum("the cell is measured again" in line for line in log) == 2
    assert file.with_name(f"{file.name}.damaged").read_bytes() == content
    assert numbers(run(folder)) == numbers(before)  # and nothing blocks the folder any more
    assert "2 of 2 cells are finished already" in log[-1]


@pytest.mark.parametrize(
    "damage", ["missing", "one byte", *(pytest.param(d, marks=pytest.mark.accept) for d in ("empty", "foreign", "cut"))]
)
def test_a_cell_without_its_arrays_is_measured_again(damage, folder, without_pictures, log):
    before = run(folder)
    file = before.folder / "cells" / f"{before.cells[1].name}.npz"
    good = file.read_bytes()
    at = len(good) // 3  # inside the compressed detections
    damaged = {
        "empty": b"",
        "foreign": b"no archive",
        "cut": good[:at],
        "one byte": good[:at] + bytes([good[at] ^ 255]) + good[at + 1 :],
    }
    file.unlink() if damage == "missing" else file.write_bytes(damaged[damage])
    assert numbers(run(folder)) == numbers(before)
    assert any("its arrays are missing or damaged" in line for line in log)


def test_models_of_several_commands_in_one_folder_stand_in_its_report(folder, empty_pictures, log):
    same = {"sigma": [20], "name": "one"}
    run(folder, model=["a.pt"], **same)
    run(folder, model=["a.pt"], **{**same, "sigma": [40]})  # not what is asked for
    shutil.copy("a.pt", "c.pt")
    run(folder, model=["c.pt"], **same, max_det=20)  # nor is this
    found = run(folder, model=["b.pt"], **same)
    assert (found.models, found.others) == (["b", "a"], ["a"])
    assert "in the report too: a" in log[-1]
    assert [str(d.condition) for d in found.differences] == ["clean", "sigma 20", "mPC"]
    together = run(folder, model=["b.pt", "a.pt"], **{**same, "name": "two"})
    assert numbers(found) == numbers(together)
    assert [d.as_dict() for d in found.differences] == [d.as_dict() for d in together.differences]
    page = (found.folder / "report.html").read_text()
    assert "Measured by other commands in the same folder: a." in page
    shutil.copy("b.pt", "a.pt")  # trained anew: of two of one name the last
    again = run(folder, model=["a.pt"], **same)
    assert (again.models, again.others) == (["a", "b"], ["b"])
    assert numbers(run(folder, model=["b.pt"], **same))[1] == numbers(found)[0]


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (lambda folder: shutil.copy(folder / "b.pt", folder / "a.pt"), "other weights"),
        (lambda folder: (folder / "labels/val/0.txt").write_text("0 0.5 0.5 0.5 0.5\n"), "other images"),
        (lambda folder: shutil.copy(folder / "images/val/0.png", folder / "images/val/5.png"), "other images"),
        (lambda folder: {"max_det": 20}, "other max_det"),
        (lambda folder: {"imgsz": 160}, "other imgsz"),
        (lambda folder: {"seed": 1}, "other seed, corruption"),
    ],
    ids=["weights", "labels", "pixels", "max_det", "imgsz", "seed"],
)
def test_a_change_is_noticed_and_never_mixed_in(change, noticed, folder, without_pictures, log):
    before = run(folder)
    changes = change(folder)
    after = run(folder, **(changes if isinstance(changes, dict) else {}))
    assert f"finished cells here are of {noticed} and are left aside" in "\n".join(log)
    assert not {cell.name for cell in before.cells} & {cell.name for cell in after.cells}
    assert numbers(after) != numbers(before)
    assert len(after.records) == 2


@register_corruption("half_dark", (0.9, 0.7, 0.5, 0.3, 0.1), "share of light")
def half_dark(image, strength, bits):
    return (image * strength).astype(np.uint8)


SEVERITIES = {"sigma": None, "severity": [1, 5], "corruption": ["half_dark", "shot_noise"]}


def test_the_channels_are_part_of_a_cell(done):
    plan = Plan({"a": done.cells[0].model}, [Condition("clean")], Settings())
    grey = dataclasses.replace(done.images, channels=1)
    (three,), (one,) = (plan.cells(images, "") for images in (done.images, grey))
    assert "channels" not in three.identity  # as it was before channels were kept
    assert one.identity == {**three.identity, "channels": 1}


def test_severities_of_several_corruptions_one_of_them_the_users(folder, without_pictures):
    here = run(folder, **SEVERITIES)
    assert [(r.condition.corruption, r.condition.severity, r.condition.sigma) for r in here.records] == [
        ("clean", None, 0),
        ("half_dark", 1, None),
        ("half_dark", 5, None),
        ("shot_noise", 1, None),
        ("shot_noise", 5, None),
    ]
    assert here.records[2].scores["AP"] < here.records[1].scores["AP"] < here.records[0].scores["AP"]


def test_a_group_of_the_benchmark_in_every_result(folder, without_pictures, monkeypatch):
    monkeypatch.delenv("YOLO_DYN_FROST", raising=False)
    done = run(folder, sigma=None, severity=[2], corruption=["weather", "speckle_noise"])
    names = ["clean", "snow", "frost_procedural", "fog", "brightness", "speckle_noise"]
    assert [r.condition.corruption for r in done.records] == names
    assert [cell["corruption"] for cell in json.loads(done.write_json().read_text())["cells"]] == names
    assert ",frost_procedural," in done.write_csv().read_text()
    assert "frost_procedural 2" in str(done)
    again = run(folder, sigma=None, severity=[2], corruption=["weather", "speckle_noise"])
    assert again.cells == done.cells


@pytest.mark.accept
def test_a_corruption_of_the_users_reaches_processes_and_their_workers(folder, without_pictures):
    apart = run(folder, **SEVERITIES, jobs=2, name="apart", workers=1)
    assert numbers(apart) == numbers(run(folder, **SEVERITIES))


def test_the_code_of_a_corruption_is_part_of_a_cell(folder, without_pictures, monkeypatch, log):
    arguments = {"sigma": None, "severity": [3], "corruption": ["half_dark"]}
    run(folder, **arguments)
    other = Corruption("half_dark", lambda image, s, bits: image // 3, (1, 1, 0.5, 1, 1))
    monkeypatch.setitem(CORRUPTIONS, "half_dark", other)
    run(folder, **arguments)
    assert "1 finished cells here are of other corruption" in "\n".join(log)


@pytest.mark.accept
def test_a_ray_cluster_gives_the_same_numbers(folder, without_pictures):
    ray = pytest.importorskip("ray")
    with pytest.raises(YoloDynError, match="found no Ray cluster"):
        run(folder, executor="ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert numbers(run(folder, executor="ray", name="ray")) == numbers(run(folder, name="serial"))
        with pytest.raises(YoloDynError, match="device=1: the Ray cluster has no GPU"):
            run(folder, executor="ray", device="1")
    finally:
        ray.shutdown()


@pytest.mark.accept
def test_jobs_on_a_ray_cluster_get_a_gpu_each_and_do_not_name_it(tmp_path, monkeypatch):
    """Ray shows a job its GPU alone: by the number that was asked for it would reach that of another job."""

    def job(number: int, device: str) -> tuple[str, str, str]:  # by its code: Ray's processes do not know this file
        time.sleep(5)  # so that both run at a time
        return device, os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.getcwd()

    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    monkeypatch.chdir(tmp_path)
    try:
        asked = {device: executors.cluster_device(device) for device in ("", "cpu", "1")}
        assert asked == {"": "0", "cpu": "cpu", "1": "1"}
        told = dict(executors.on_ray(job, [0, 1], asked["1"]))
        assert sorted(visible for _, visible, _ in told.values()) == ["0", "1"]
        assert {(device, folder) for device, _, folder in told.values()} == {("", str(tmp_path))}
        ((_, (device, _, _)),) = executors.on_ray(job, [0], asked["cpu"])
        assert device == "cpu"
        assert executors.cluster_machine("cpu") == platform.machine()
    finally:
        ray.shutdown()


def test_an_executor_s_earlier_name_still_works():
    assert executors.executor("here", 1) == executors.executor("serial", 1) == executors.executor("", 1)
    assert executors.executor("", 2) == executors.EXECUTORS["processes"]


def test_a_task_runs_on_the_device_that_its_worker_knows_and_stays_the_same_cell(done, monkeypatch):
    task = cells.Task(done.cells[0], done.images, Settings(device="1"), 0, 0, False, ".", Corrupter(None))
    assert task.on("").settings == Settings(device="")
    assert task.on("").cell == task.cell


@pytest.mark.parametrize(
    ("ending", "times", "jobs"),
    [
        ("SIGINT", 1, 2),
        *(pytest.param("SIGKILL", 10, jobs, marks=pytest.mark.accept) for jobs in (1, 2)),
        *(pytest.param(ending, 10, 2, marks=pytest.mark.accept) for ending in ("SIGTERM", "SIGINT")),
    ],
)
def test_who_ends_a_sweep_loses_at_most_the_cells_in_work(ending, times, jobs, folder, without_pictures):
    sigmas = [30] if times == 1 else list(range(5, 55, 5))
    words = [f"{key}={value}" for key, value in FAST.items()]
    words += ["model=a.pt,b.pt", "data=data.yaml", f"sigma={','.join(map(str, sigmas))}", f"jobs={jobs}", "workers=1"]
    program = [str(Path(sys.executable).with_name("yolo-dyn")), "robustness", *words]
    rng = np.random.default_rng(times)
    kept: set[Path] = set()
    for _ in range(times):
        process = subprocess.Popen(
            program,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heeding_ctrl_c,
        )
        time.sleep(rng.uniform(4, 9))
        # Ctrl-C reaches every process of a terminal
        (os.killpg if ending == "SIGINT" else os.kill)(process.pid, getattr(signal, ending))
        ended = time.monotonic()
        told = process.communicate(timeout=60)[1]
        if ending == "SIGINT" and process.returncode:
            assert process.returncode == 130
            assert "Traceback" not in told
            assert told.strip().splitlines()[-1].startswith("yolo-dyn: interrupted; what is finished is kept: ")
        while alive(process.pid) and time.monotonic() < ended + 5:
            time.sleep(0.1)
        assert not alive(process.pid), "what was ended left its workers behind"
        finished = set((folder / "runs/robustness").rglob("cells/*.json"))
        assert finished >= kept
        kept = finished
    resumed = run(folder, model=["a.pt", "b.pt"], sigma=sigmas)
    undisturbed = run(folder, model=["a.pt", "b.pt"], sigma=sigmas, name="undisturbed")
    assert numbers(resumed) == numbers(undisturbed)
    assert [row.as_dict() for row in resumed.differences] == [row.as_dict() for row in undisturbed.differences]


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own, and how to mount it again with other options."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("needs to be allowed to mount a disk")

    def mount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)

    yield place, mount
    subprocess.run(["umount", str(place)], check=True)


def told(words: list[str], capsys) -> str:
    """The one line of a command that fails."""
    capsys.readouterr()
    assert cli.main(words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("yolo-dyn: error: ")]
    return line


@pytest.mark.accept
def test_a_full_disk_is_one_line_and_costs_nothing_that_is_finished(folder, disk, capsys):
    place, mount = disk
    words = ["robustness", "model=a.pt,b.pt", "data=data.yaml", "sigma=20,40"]
    words += [f"{key}={value}" for key, value in FAST.items()]
    undisturbed = run(folder, model=["a.pt", "b.pt"], sigma=[20, 40], name="undisturbed")
    needed = sum(file.stat().st_size for file in undisturbed.folder.rglob("*"))
    kept: set[Path] = set()
    for size in np.geomspace(8192, 0.9 * needed, 10):
        mount(f"size={int(size) // 4096 * 4}k")
        line = told([*words, f"project={place}"], capsys)
        assert "cannot be written" in line, line
        finished = set(place.rglob("cells/*.json"))
        assert finished >= kept
        kept = finished
        assert not list(place.rglob("*.damaged"))
    assert len(kept) == 6
    mount(f"size={4 * needed}")
    assert cli.main([*words, f"project={place}"]) == 0
    resumed = json.loads((place / "work/results.json").read_text())
    assert [{key: record.get(key) for key in NUMBERS} for record in resumed["cells"]] == json.loads(
        json.dumps(numbers(undisturbed))
    )


@pytest.mark.accept
def test_a_disk_that_cannot_be_written_to_is_one_line(folder, disk, capsys):
    place, mount = disk
    mount("size=100m")
    (place / "run").mkdir()
    (place / "run" / "results.csv").write_text("epoch,train/box_loss,metrics/mAP50(B)\n1,2.0,0.1\n2,1.0,0.2\n")
    mount("ro")
    with (folder / "data.yaml").open("a") as file:
        file.write("test: images/val\n")
    image = str(next((folder / "images/val").glob("*.png")))
    small, where = ["imgsz=192", "device=cpu"], f"project={place}"
    commands = [
        ["robustness", "model=a.pt", "data=data.yaml", where, *small],
        ["compare", "model=a.pt", "data=data.yaml", where, *small],
        ["cam", "model=a.pt", f"source={image}", where, *small],
        ["points", "model=yolov8n-sgdm-a2d2c.yaml", f"source={image}", "imgsz=192", f"out={place}/points.png"],
        ["deploy", "model=a.pt", "data=data.yaml", "formats=torch", where, "imgsz=192"],
        ["bench", "model=yolov8n.yaml", "imgsz=64", "rounds=1", f"out={place}/bench.json"],
        ["bench", "layers", "layers=CBAM", "rounds=1", f"out={place}"],
        ["insert", "model=yolov8.yaml", "layer=SGDM", f"out={place}/model.yaml"],
        ["noise-recipe", f"out={place}/recipe.yaml"],
        ["curves", f"{place}/run", f"out={place}/curves.png"],
        ["study", "bccd", "data=data.yaml", "arms=yolov8n", "seeds=0", where],
        ["results", "bccd", f"source={Path(__file__).parents[2] / 'docs/results'}", f"page={place}/page.md"],
    ]
    for words in commands:
        assert re.search(r"cannot be written|Read-only", told(words, capsys)), words
    assert [path.name for path in place.iterdir()] == ["run"]


def alive(session: int) -> list[int]:
    """Processes of a session that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
            if int(sid) == session and state != "Z":
                found.append(int(stat.parent.name))
    return found


def test_broken_images_are_skipped_and_counted_and_change_no_score(folder, empty_pictures, log):
    expected = run(folder, **FEW)
    good = (folder / "images/val/0.png").read_bytes()
    (folder / "images/val/empty.png").touch()
    (folder / "images/val/text.jpg").write_text("no image")
    (folder / "images/val/cut.png").write_bytes(good[: len(good) // 2])
    jpeg = cv2.imencode(".jpg", cv2.imdecode(np.frombuffer(good, np.uint8), 1))[1].tobytes()
    (folder / "images/val/cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    for i in range(20):  # so many that the stock check of five files would be sure to wait for one
        os.mkfifo(folder / f"images/val/pipe{i}.png")
    head = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)  # a PNG of 400 megapixels, as it says
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    (folder / "images/val/bomb.png").write_bytes(bomb + struct.pack(">I", 0) + b"IDAT")
    found = run(folder, **FEW)
    assert numbers(found) == numbers(expected)
    assert {record.skipped for record in found.records} == {25}
    assert {record.images for record in found.records} == {10}
    text, page = "\n".join(log), (found.folder / "report.html").read_text()
    for name, reason in (
        ("empty.png", "the file is empty"),
        ("text.jpg", "it is no image"),
        ("cut.png", "it cannot be decoded"),
        ("cut.jpg", "it cannot be decoded: image file is truncated"),
        ("pipe7.png", "it is no file"),
        # an earlier Ultralytics asks for its HEIF plugin whatever is wrong, and that may be missing
        ("bomb.png", "it (cannot be decoded: Image size|is no image)"),
    ):
        assert name.startswith("pipe") or re.search(f"skipped .*{name}: {reason}", text)
        assert re.search(f"{name}: {reason}", page)
    assert "skipped 19 more: it is no file; the report lists them" in text


def test_labels_and_images_that_do_not_pair(folder, log):
    (folder / "labels/val/1.txt").unlink()
    (folder / "labels/val/of_nothing.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    found = run(folder, **FEW)
    text, page = "\n".join(log), (found.folder / "report.html").read_text()
    for note in (
        "1 images have no label file and count as without objects: 1.png",
        "1 label files have no image: of_nothing.txt",
    ):
        assert note in text
        assert note in page


def test_no_detections_at_all(folder, log):
    model = YOLO("a.pt")
    for scores in model.model.model[-1].cv3:
        scores[-1].weight.data.zero_()
        scores[-1].bias.data.fill_(-20)
    save(model, "silent.pt")
    found = run(folder, model=["silent.pt", "a.pt"])
    assert [record.scores["AP"] for record in found.records if record.model == "silent"] == [0, 0]
    assert "silent, clean: no detections at all, so every score is 0" in "\n".join(log)
    assert found.summary[0].ap.rpc is None
    assert found.differences[0].ap.value > 0.5


def test_images_without_any_object(folder):
    for file in (folder / "labels/val").glob("*.txt"):
        file.write_text("")
    found = run(folder, model=["a.pt", "b.pt"], **FEW)
    assert all("AP" not in record.scores for record in found.records)
    assert found.summary[0].ap.as_dict() == {"P": None, "mPC": None, "rPC": None, "cells": 0}
    assert found.differences == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ["nowhere.pt"]}, "model 'nowhere.pt' does not exist"),
        ({"model": ["a.pt", "a.pt"]}, "a model is given twice"),
        ({"data": "nowhere.yaml"}, "nowhere.yaml"),
        ({"split": "test"}, "data.yaml has no split 'test' (it has train, val)"),
        ({"sigma": [-1]}, "sigma must be grey levels of at least 0"),
        ({"severity": [2]}, "sigma is the strength of gaussian_noise; other corruptions take severity"),
        ({"sigma": None, "severity": [6]}, "severity must be from 1 to 5, got [6]"),
        ({"sigma": None, "corruption": ["gausian_noise"]}, "did you mean 'gaussian_noise'?"),
        ({"executor": "slurm"}, "unknown executor 'slurm' (known: serial, processes, ray)"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"project": "data.yaml"}, "data.yaml/work cannot be written to"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_named_before_anything_runs(changes, message, folder):
    with pytest.raises(YoloDynError, match=re.escape(message)):
        run(folder, **changes)


def test_a_class_that_the_data_lacks(folder):
    (folder / "labels/val/3.txt").write_text("9 0.5 0.5 0.1 0.1\n")
    with pytest.raises(YoloDynError, match=r"3.txt, line 1: the class 9 is none of the data YAML's 7 names"):
        run(folder)
