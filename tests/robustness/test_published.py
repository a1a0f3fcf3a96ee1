"""mPC and rPC as the benchmark defines them, beside published detectors."""

import dataclasses
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.robustness import published
from yolo_dyn.robustness.cells import Cell
from yolo_dyn.robustness.corruptions import GROUPS
from yolo_dyn.robustness.diagnosis_pictures import PICTURES
from yolo_dyn.robustness.differences import averaged, differences
from yolo_dyn.robustness.records import CellRecord, Condition
from yolo_dyn.robustness.report import html
from yolo_dyn.robustness.results import Sweep, summary

CELL = CellRecord(
    condition=Condition("clean"),
    seed=0,
    images=3,
    skipped=0,
    detections=5,
    scores={"AP": 0.4, "AP50": 0.6},
    per_class={},
    intervals={"AP": (0.3, 0.5), "AP50": (0.5, 0.7)},
    ultralytics={"AP": 0.4, "AP50": 0.6},
    model="a",
    path="a.pt",
    weights="0",
    milliseconds={},
    pixels={},
    seconds=1.0,
    identity={},
)


def cells(names: list[str], model: str = "a", drawn: bool = False) -> list[CellRecord]:
    """A clean cell, and for each corruption five whose AP falls with the severity and rises with its place."""
    found = [dataclasses.replace(CELL, model=model)]
    for place, name in enumerate(names):
        for severity in (1, 2, 3, 4, 5):
            condition = Condition("frost_procedural" if drawn and name == "frost" else name, severity, severity)
            ap = 0.3 + place / 100 - severity / 50
            scores = {"AP": ap, "AP50": ap + 0.1}
            found.append(dataclasses.replace(CELL, model=model, condition=condition, scores=scores))
    return found


@pytest.mark.parametrize("drawn", [False, True])
def test_mpc_leaves_the_extra_corruptions_out(drawn):
    (with_extra,) = summary(cells(GROUPS["cococ-extra"], drawn=drawn))
    (without,) = summary(cells(GROUPS["cococ"], drawn=drawn))
    expected = np.mean([0.3 + place / 100 - severity / 50 for place in range(15) for severity in (1, 2, 3, 4, 5)])
    assert with_extra == without
    assert with_extra.ap.mpc == pytest.approx(expected)
    assert with_extra.ap.rpc == pytest.approx(expected / 0.4)
    assert with_extra.ap.cells == 75


def test_mpc_of_a_part_is_that_of_all_that_was_run():
    (row,) = summary(cells(["fog", "saturate"]))
    assert row.ap.cells == 10
    assert row.ap.mpc == pytest.approx(np.mean([0.3 + p / 100 - s / 50 for p in (0, 1) for s in (1, 2, 3, 4, 5)]))
    part = [record.condition for record in cells(GROUPS["cococ-extra"])][:-1]
    assert len(averaged(part)) == 75
    assert len(averaged(part[5:])) == len(part) - 5


def test_the_difference_of_mpc_is_over_the_same_cells():
    records = [*cells(GROUPS["cococ-extra"]), *cells(GROUPS["cococ-extra"], "b")]
    records = [
        dataclasses.replace(r, scores={"AP": 0.9, "AP50": 0.9})
        if r.model == "b" and r.condition.corruption in ("spatter", "saturate", "speckle_noise", "gaussian_blur")
        else r
        for r in records
    ]
    resampled = {(r.model, r.condition): np.tile([r.scores["AP"], r.scores["AP50"]], (20, 1)) for r in records}
    mean = differences(records, resampled)[-1]
    assert str(mean.condition) == "mPC"
    assert mean.ap.value == pytest.approx(0)


def test_ones_own_detectors_stand_before_the_published():
    rows = published.beside(summary(cells(GROUPS["cococ"])), "mine")
    assert [row.own for row in rows] == [True, *[False] * 9]
    assert rows[0].detector == "a"
    assert rows[0].ap == pytest.approx((40, 31, 77.5))
    for row in published.PUBLISHED:
        for three in (row.ap, row.ap50):
            assert three is None or three[2] == pytest.approx(100 * three[1] / three[0], abs=0.2)


def sweep(folder: Path, names: list[str], drawn: bool = False) -> Sweep:
    records = cells(names, drawn=drawn)
    images = EvaluationSet("mine.yaml", "val", {}, 3, [Path("1.jpg")], {}, "", {}, [], True, "")
    for name in ("curves", *PICTURES, "grid"):
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((2, 2, 3), np.uint8))
    known = [Cell(r.path, r.model, r.condition, {"weights": "0"}) for r in records]
    return Sweep(folder, images, {"resamples": 10}, "", known, records, summary(records), [], [])


@pytest.mark.parametrize("drawn", [False, True])
def test_the_report_has_the_published_with_ones_own_in_bold(tmp_path, drawn):
    done = sweep(tmp_path, GROUPS["cococ-extra"], drawn)
    page = html(done, [])
    (table,) = re.findall(r'<section id="published">.*?</section>', page, re.DOTALL)
    rows = re.findall(r"<tr>(<td.*?)</tr>", table)
    assert len(rows) == 10
    assert rows[0].count('<td class="sure">') == rows[0].count("<td") == 8
    assert "<td>Faster R-CNN R50</td><td>COCO val2017</td><td>36.3</td><td>18.2</td><td>50.1</td>" in rows[1]
    assert not any("sure" in row for row in rows[1:])
    assert '<td class="sure">a</td><td class="sure">mine, val, 1 images</td><td class="sure">40.0</td>' in rows[0]
    assert ("Frost was drawn here" in table) == drawn
    assert "frost_procedural 5" in page if drawn else "frost 5" in page
    text = str(done)
    assert re.search(r"^a, own +0\.400 +0\.310 +0\.775", text, re.MULTILINE)
    assert re.search(r"^HTC X101-64x4d-DCN, COCO val2017 +0\.506 +0\.327 +0\.647", text, re.MULTILINE)


def test_a_part_of_the_benchmark_stands_beside_nothing(tmp_path):
    done = sweep(tmp_path, GROUPS["weather"])
    assert not done.benchmark
    assert 'id="published"' not in html(done, [])
    assert "Faster" not in str(done)
