"""mPC and rPC as the benchmark defines them, beside published detectors."""

import dataclasses

import numpy as np
import pytest

from yolo_dyn.robustness import published
from yolo_dyn.robustness.corruptions import GROUPS
from yolo_dyn.robustness.records import CellRecord, Condition
from yolo_dyn.robustness.results import averaged, differences, summary

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
