"""Diagnoses as columns of results.csv and as lines of the terminal."""

from typing import Any

from yolo_dyn.robustness.diagnosis import Diagnosis
from yolo_dyn.robustness.error_types import SHOWN, WHOLE
from yolo_dyn.robustness.records import CellRecord
from yolo_dyn.robustness.tasks import Scoring

NOT_DIAGNOSED = "an earlier version measured the cell"
GAINS = tuple(f"dAP50 of {name}" for name in (*SHOWN, *WHOLE))
COUNTS = tuple(f"{name} errors" for name in SHOWN)
RATES = ("D-ECE", "D-ECE by position", "rated detections")
COLUMNS = (*GAINS, *COUNTS, *RATES, "empty because")


def columns(record: CellRecord) -> list[Any]:
    """The values of COLUMNS of a cell, empty where nothing can be told."""
    found = record.diagnosis or Diagnosis(missing=[NOT_DIAGNOSED])
    errors, rated = found.errors, found.reliability
    values: list[Any] = [None] * len(GAINS + COUNTS)
    if errors:
        values = [*errors.gains.values(), *errors.counts.values()]
    values += [rated.dece, rated.dece_position, rated.detections] if rated else [None] * len(RATES)
    return [*("" if value is None else value for value in values), "; ".join(found.missing)]


def lines(records: list[CellRecord], rules: Scoring) -> list[str]:
    """The two types of errors that cost each model most, on clean images and where its AP50 is lowest."""
    models = dict.fromkeys(record.model for record in records)
    found = [line for model in models for line in _lines(model, [r for r in records if r.model == model])]
    of = "" if rules.objects == "boxes" else f" of {rules.errors_of}"
    head = f"AP50{of} to be gained by correcting one type of error alone, the two largest"
    return ["", head, "", *found] if found else []


def _lines(model: str, records: list[CellRecord]) -> list[str]:
    told = {r.condition: r.diagnosis.errors for r in records if r.diagnosis and r.diagnosis.errors}
    shown = [condition for condition in told if condition.clean]
    shown += sorted(told, key=lambda condition: told[condition].ap50)[:1]
    found = []
    for condition in dict.fromkeys(shown):
        gains = told[condition].gains
        most = sorted(SHOWN, key=lambda name: -gains[name])[:2]
        found.append(f"{model}  {condition!s:<24}{', '.join(f'{name} {gains[name]:+.3f}' for name in most)}")
    return found
