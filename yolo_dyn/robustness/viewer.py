"""The data of report.html, which report.js draws: curves, errors, and the same pixels under every model.

Images are tiles inside the page, so that it is one file; how many there are follows from what may be spent on them.
"""

import base64
import json
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from ultralytics.utils import TQDM

from yolo_dyn.output.style import COLOURS
from yolo_dyn.robustness.corruptions import SIGMA
from yolo_dyn.robustness.error_types import SHOWN
from yolo_dyn.robustness.objects import found_outline, framed, ignored, true_outline
from yolo_dyn.robustness.pictures import Judged, judged, shown
from yolo_dyn.robustness.records import CellRecord, Condition
from yolo_dyn.robustness.reliability import FEWEST, LEAST_SCORE
from yolo_dyn.robustness.results import Sweep

IMAGES = 24  # at most
BYTES = 8_000_000  # of images in the page, which so stays under 10 MB
SIDES = {12: 480, 40: 400}  # longer side of a tile, by how many conditions there are at most
SMALLEST = 320
QUALITY = 60  # of WebP
LEAST = 0.1  # score of a detection that is kept in the page
MOST = 100  # detections of a panel


def content(sweep: Sweep, chosen: Sequence[int]) -> str:
    """The data of a sweep's page as JSON that may stand inside a page.

    Args:
        sweep: finished cells.
        chosen: numbers of images for the viewer, the most telling one first; as many are taken as there is room for.
    """
    data = {
        "models": sweep.models,
        "looks": [sweep.looks[model] for model in sweep.models],
        "conditions": [_condition(condition, sweep) for condition in sweep.conditions],
        "classes": list(sweep.images.names.values()),
        "colours": COLOURS,
        "errors": SHOWN,
        "fewest": FEWEST,
        "leastScore": LEAST_SCORE,
        "cells": [[_cell(sweep, model, condition) for condition in sweep.conditions] for model in sweep.models],
        "labelled": sweep.images.labelled,
        "framed": framed(sweep.images.kind),
        "least": LEAST,
        "images": _images(sweep, chosen),
    }
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _condition(condition: Condition, sweep: Sweep) -> dict[str, Any]:
    by_severity = any(each.severity for each in sweep.conditions)
    place = condition.severity if by_severity else condition.strength
    unit = "severity" if by_severity else f"sigma, {SIGMA.unit}"
    return {"name": str(condition), "corruption": condition.corruption, "x": place or 0, "unit": unit}


def _cell(sweep: Sweep, model: str, condition: Condition) -> dict[str, Any] | None:
    """What the charts show of a cell; None if it was not run."""
    found = (r for r in sweep.records if (r.model, r.condition) == (model, condition))
    record = next(found, None)
    return None if record is None else {**_scores(record), **_diagnosis(record)}


def _scores(record: CellRecord) -> dict[str, Any]:
    names = [name for name in ("AP", "AP50") if name in record.scores]
    return {name: _rounded([record.scores[name], *record.intervals.get(name, ())]) for name in names}


def _diagnosis(record: CellRecord) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if record.diagnosis and record.diagnosis.errors:
        told["errors"] = _rounded([record.diagnosis.errors.gains[name] for name in SHOWN])
    if record.diagnosis and record.diagnosis.precision:
        told["precision"] = _rounded(record.diagnosis.precision)
    if record.diagnosis and record.diagnosis.reliability:
        bins = record.diagnosis.reliability.bins
        told["bins"] = [[*_rounded([each.confidence, each.precision]), each.detections] for each in bins]
    return told


def _rounded(values: Sequence[float] | np.ndarray, digits: int = 4) -> list[float]:
    return [round(float(value), digits) for value in values]


def _images(sweep: Sweep, chosen: Sequence[int]) -> list[dict[str, Any]]:
    """Images with their tiles, objects and detections, while there is room; the first one in any case."""
    if not chosen:
        return []
    cells = {(cell.label, cell.condition): cell for cell in sweep.cells}
    chosen = chosen[:IMAGES]
    found = judged(sweep, list(cells.values()), LEAST, chosen)
    images: list[dict[str, Any]] = []
    used = 0
    for place, number in enumerate(TQDM(chosen, desc="images of report.html", unit="images")):
        image = _image(sweep, number, {key: each[place] for key, each in found.items()})
        used += len(json.dumps(image, separators=(",", ":")))
        if images and used > BYTES:
            break
        images.append(image)
    return images


def _image(sweep: Sweep, number: int, found: dict[tuple[str, Condition], Judged]) -> dict[str, Any]:
    """One image: what it is under each condition before each front, and what every model finds in it."""
    image, kind = sweep.images.coco["images"][number], sweep.images.kind
    size = (image["height"], image["width"])
    fronts = {cell.label: cell.front for cell in sweep.cells}
    different = list(dict.fromkeys(fronts[model] for model in sweep.models))
    objects = [each for each in sweep.images.coco["annotations"] if each["image_id"] == number]
    return {
        "name": sweep.images.files[number].name,
        "size": [image["width"], image["height"]],
        "tiles": [_tiles(sweep, number, front) for front in different],
        "fronts": [different.index(fronts[model]) for model in sweep.models],
        "objects": [
            [
                *_place(sweep, each["category_id"], each["bbox"], size),
                int(not ignored(kind, each)),
                *_outline(*true_outline(kind, each, size)),
            ]
            for each in objects
        ],
        "found": [
            [
                _found(sweep, found[model, condition], size) if (model, condition) in found else None
                for condition in sweep.conditions
            ]
            for model in sweep.models
        ],
    }


def _tiles(sweep: Sweep, number: int, front: str) -> list[str]:
    """An image under each condition, or what a front makes of it, as sources of images."""
    side = next((side for most, side in SIDES.items() if len(sweep.conditions) <= most), SMALLEST)
    return [_tile(shown(sweep, number, condition, front), side) for condition in sweep.conditions]


def _tile(image: np.ndarray, side: int) -> str:
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    _, code = cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return f"data:image/webp;base64,{base64.b64encode(code.tobytes()).decode()}"


def _found(sweep: Sweep, judged: Judged, size: tuple[int, int]) -> list[list[Any]]:
    """Detections of a panel, the best first: class, box, thousandths of the score, the object found, an outline."""
    shapes = [None] * len(judged.found) if judged.shapes is None else judged.shapes
    rows = []
    for row, shape, match in list(zip(judged.found, shapes, judged.match.tolist(), strict=True))[:MOST]:
        outline = _outline(*found_outline(sweep.images.kind, shape, size))
        score = math.floor(1000 * row[5])  # rounded, it might reach a least score that it does not
        rows.append([*_place(sweep, int(row[6]), row[1:5], size), score, match, *outline])
    return rows


def _place(sweep: Sweep, category: int, box: Any, size: tuple[int, int]) -> list[float]:
    """Number of the class, and left, top, width, height to a pixel; in small images to a tenth."""
    corners = np.round(box, int(max(size) < 400)).tolist()
    number = list(sweep.images.names).index(category)
    return [number, *(int(x) if x == int(x) else x for x in corners)]


def _outline(polygons: list[np.ndarray], points: np.ndarray) -> list[list[Any]]:
    """Polygons of as few points as they need, and points; nothing where there are neither."""
    if not polygons and not len(points):
        return []
    simple = [cv2.approxPolyDP(np.asarray(each, np.float32), 1.0, True).reshape(-1, 2) for each in polygons]
    return [[_rounded(each.ravel(), 1) for each in simple], _rounded(np.ravel(points), 1)]
