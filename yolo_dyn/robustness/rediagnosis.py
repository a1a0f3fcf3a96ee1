"""Cells that an earlier version measured get their diagnosis, from the detections that they keep."""

from dataclasses import replace

from ultralytics.utils import LOGGER, TQDM

from yolo_dyn.errors import YoloDynError
from yolo_dyn.robustness import cells as store
from yolo_dyn.robustness import scores
from yolo_dyn.robustness.cells import Cell
from yolo_dyn.robustness.diagnosis import Diagnosis, diagnose
from yolo_dyn.robustness.results import Sweep


def diagnosed(sweep: Sweep) -> Sweep:
    """A sweep all of whose cells tell what goes wrong; each is written into its file as soon as it is found out."""
    lacking = [cell for cell, record in zip(sweep.cells, sweep.records, strict=True) if record.diagnosis is None]
    found: dict[str, Diagnosis] = {}
    if lacking:
        LOGGER.info(f"{len(lacking)} cells of an earlier version lack what goes wrong: it is found in their detections")
    for cell in TQDM(lacking, desc=f"what goes wrong in {len(lacking)} cells", unit="cells", disable=not lacking):
        found[cell.name] = _diagnosis(sweep, cell)
        store.add_diagnosis(sweep.folder / "cells", cell, found[cell.name])
    records = [
        replace(record, diagnosis=record.diagnosis or found[cell.name])
        for cell, record in zip(sweep.cells, sweep.records, strict=True)
    ]
    return replace(sweep, records=records)


def _diagnosis(sweep: Sweep, cell: Cell) -> Diagnosis:
    """From the detections that a cell keeps, or why there is none."""
    kind = sweep.images.kind
    try:
        detections, shapes = store.load_found(sweep.folder / "cells", cell, kind)
    except KeyError:
        return Diagnosis(missing=["the cell keeps no detections"])
    if detections.ndim != 2 or detections.shape[1] != 7:
        return Diagnosis(missing=["the cell keeps no detections"])
    try:
        records = scores.evaluate(sweep.images.coco, detections, kind=kind, shapes=shapes).records
    except YoloDynError as error:
        return Diagnosis(missing=[f"the detections that the cell keeps do not fit: {error}"])
    return diagnose(sweep.images.coco, detections, records)
