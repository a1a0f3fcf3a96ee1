"""Time and memory of a cell at the size of COCO: 5,000 images, 80 classes, 300 detections an image, 1,000 resamples."""

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from helpers import ROOT

pytestmark = [pytest.mark.accept, pytest.mark.timeout(3600)]

SIZES = (500, 1500, 5000)
CELL = """
import hashlib, json, re, sys, time
from pathlib import Path
import numpy as np
from pycocotools import mask
from reference_scores import HEIGHT, WIDTH, elliptic, simulated
from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.data.tasks import ObjectKind
from yolo_dyn.robustness import cells, objects, scores
from yolo_dyn.robustness.records import Condition

count, engine, folder, kind = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), ObjectKind(sys.argv[4])
truth, found = simulated(count)
shapes = None
if kind.task == "segment":
    shapes = objects.masks(elliptic(found[:, 1:5]))
    annotations = truth["annotations"]
    for annotation, counts in zip(annotations, elliptic(np.array([a["bbox"] for a in annotations])), strict=True):
        of = {"size": [HEIGHT, WIDTH], "counts": counts}
        annotation |= {"segmentation": of, "area": float(mask.area(of))}
names = {c["id"]: c["name"] for c in truth["categories"]}
files = [Path(f"{i}.jpg") for i in range(count)]
images = EvaluationSet("", "", names, 3, files, truth, "", {}, [], True, "", kind)
marks = []

def timed(function):
    def call(*arguments):
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*arguments)
        marks.append((time.perf_counter() - wall, time.process_time() - cpu))
        return result
    return call

scores.evaluate, scores.resample = timed(scores.evaluate), timed(scores.resample)
cell = cells.Cell("", engine, Condition("clean"), {"weights": ""})
done = timed(cells.finished)(cell, images, cells.Detections(found, {}, {}, {}, shapes=shapes), 1000, engine)
peak = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
cells.save(folder, done)
print(json.dumps({
    "detections": len(found),
    "seconds": [round(wall, 2) for wall, _ in marks],
    "cpu": [round(cpu, 2) for _, cpu in marks],
    "gib": peak / 2**20,
    "mb": (folder / f"{cell.name}.npz").stat().st_size / 1e6,
    "numbers": [done.record.scores, done.record.per_class, done.record.intervals],
    "resampled": hashlib.sha256(done.arrays["resampled"].tobytes()).hexdigest(),
}))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Any:
    """What a process of its own needs for a cell of so many images with an engine and a task; each is run once."""
    folder = tmp_path_factory.mktemp("cells")

    @functools.cache
    def run(images: int, engine: str, task: str = "detect") -> dict[str, Any]:
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        words = [sys.executable, "-c", CELL, str(images), engine, str(folder), task]
        done = subprocess.run(
            words, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.parametrize(("task", "sizes", "megabytes"), [("detect", SIZES, 30), ("segment", SIZES[::2], 100)])
def test_a_cell_of_the_size_of_coco(measured, capsys, task, sizes, megabytes):
    table = {size: measured(size, "hotcoco", task) for size in sizes}
    with capsys.disabled():
        print(f"\n{task}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; in brackets seconds of all cores")
        print("images   detections   scoring          bootstrap        all              peak GiB   cell MB")
        for size, cell in table.items():
            times = "".join(f"{s:>6.1f} ({c:>5.1f})   " for s, c in zip(cell["seconds"], cell["cpu"], strict=True))
            print(f"{size:<9}{cell['detections']:<13}{times}{cell['gib']:<11.2f}{cell['mb']:.1f}")
    largest = table[5000]
    assert largest["detections"] == 1_500_000
    assert largest["cpu"][-1] < 60  # by a clock that does not run where others have the cores
    assert largest["gib"] < 4
    assert largest["mb"] < megabytes
    assert largest["cpu"][-1] < 2 * 10 * table[500]["cpu"][-1]  # time grows as the images, and no faster


def test_masks_score_as_pycocotools(measured):
    found, expected = (measured(500, engine, "segment") for engine in ("hotcoco", "pycocotools"))
    assert found["numbers"] == expected["numbers"]
    assert found["resampled"] == expected["resampled"]
    assert 0.1 < found["numbers"][0]["AP"] < 0.9


def test_the_full_size_scores_as_pycocotools(measured, capsys):
    found, expected = measured(5000, "hotcoco"), measured(5000, "pycocotools")
    with capsys.disabled():
        print(f"\n5000 images by pycocotools: {expected['seconds'][0]:.0f} s, {expected['gib']:.2f} GiB")
    assert found["numbers"] == expected["numbers"]
    assert found["resampled"] == expected["resampled"]
    assert 0.1 < found["numbers"][0]["AP"] < 0.9
    assert found["cpu"][0] < expected["cpu"][0] / 10
