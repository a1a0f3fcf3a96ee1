"""What the cells of a sweep come to: P, mPC, rPC, differences with intervals; as JSON, CSV and terminal text."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.utils import TQDM

from yolo_dyn.data.coco_json import write_detections
from yolo_dyn.data.images import EvaluationSet, data_name
from yolo_dyn.output.environment import environment
from yolo_dyn.output.files import write_csv, write_json, write_text, written_whole
from yolo_dyn.output.outcome import Outcome
from yolo_dyn.output.style import style_of
from yolo_dyn.robustness import cells as store
from yolo_dyn.robustness import diagnosis_lines, objects, published, scores
from yolo_dyn.robustness.arms import Arm, arms, looks, subject
from yolo_dyn.robustness.arms import lines as arm_lines
from yolo_dyn.robustness.cells import Cell
from yolo_dyn.robustness.corruptions.frost import DRAWN
from yolo_dyn.robustness.differences import differences, key, performance, whole
from yolo_dyn.robustness.records import CellRecord, Condition, Degradation, Difference, Fall, Summary
from yolo_dyn.robustness.tasks import Scoring, scoring

SIZES = ("AP_small", "AP_medium", "AP_large")
COLUMNS = ("model", "weights", "corruption", "sigma", "severity", "strength", "seed", "images", "skipped", "detections")
FRONT_COLUMNS = ("front", "front_ms", "AP_less_alone", "AP_less_alone_low", "AP_less_alone_high")


@dataclass(frozen=True, repr=False)
class Sweep(Outcome):
    """All cells of a sweep, and what follows from them."""

    folder: Path
    images: EvaluationSet
    settings: dict[str, Any]
    command: str  # that makes it again; empty if it was called from Python
    cells: list[Cell]
    records: list[CellRecord]  # one a cell
    summary: list[Summary]  # one a model
    differences: list[Difference]  # of each other model to the first, one a condition, and of mPC
    others: list[str]  # models that another command measured in this folder
    arms: list[Arm] = field(default_factory=list)  # each model alone and behind its fronts, if there are any
    seen: dict[Condition, Path] = field(default_factory=dict)  # folders of images that were corrupted before, as files

    @classmethod
    def read(
        cls,
        folder: Path,
        cells: list[Cell],
        images: EvaluationSet,
        settings: dict[str, Any],
        command: str,
        others: Sequence[Cell] = (),
    ) -> "Sweep":
        """Put finished cells together, those of other models after the command's own."""
        skipped = len(images.skipped)  # no part of a cell: what is not evaluated changes no number
        conditions = [cell.condition for cell in cells]
        cells = sorted([*cells, *others], key=lambda cell: conditions.index(cell.condition))
        finished = [(cell, replace(r, skipped=skipped)) for cell in cells if (r := store.load(folder / "cells", cell))]
        resampled = {key(record): _resampled(folder, cell) for cell, record in finished}
        records = [_with_intervals(record, resampled[key(record)]) for _, record in finished]
        compared = differences(records, resampled)
        return cls(
            folder,
            images,
            settings,
            command,
            [cell for cell, _ in finished],
            records,
            summary(records),
            compared,
            list(dict.fromkeys(cell.label for cell in others)),
            arms(records, resampled),
        )

    @property
    def title(self) -> str:
        """Data set, split if there is one, and number of images."""
        split = f"{self.images.split}, " if self.images.split else ""
        return f"{data_name(self.images.data)}, {split}{len(self.images.files)} images"

    @property
    def scoring(self) -> Scoring:
        """How detections are compared with the truth."""
        return scoring(self.images.kind)

    @property
    def models(self) -> list[str]:
        """Labels, the first one being what the others are compared with."""
        return list(dict.fromkeys(record.model for record in self.records))

    @property
    def subject(self) -> str:
        """The models, and what stands before them."""
        return subject(self.arms) or ", ".join(self.models)

    @property
    def looks(self) -> dict[str, tuple[int, int]]:
        """Numbers of colour and style of each model's lines."""
        return looks(self.arms) or {label: (number, style_of(number)) for number, label in enumerate(self.models)}

    @property
    def conditions(self) -> list[Condition]:
        """What was done to the images, in the order of the cells."""
        return list(dict.fromkeys(record.condition for record in self.records))

    @property
    def classes(self) -> list[str]:
        """Classes that have an object, in the order of the data set."""
        return [name for name in self.images.names.values() if any(name in r.per_class for r in self.records)]

    @property
    def degradation(self) -> list[Degradation]:
        """How the AP of each class and of each size falls, one a model."""
        return [degradation([r for r in self.records if r.model == model], self.classes) for model in self.models]

    @property
    def benchmark(self) -> bool:
        """Whether each model has all of COCO-C, whose mean mPC then is, for boxes as in the benchmark."""
        each = [{r.condition for r in self.records if r.model == model} for model in self.models]
        boxes = self.scoring.objects == "boxes"
        return boxes and bool(each) and all(whole(conditions) for conditions in each)

    @property
    def drawn_frost(self) -> bool:
        """Whether frost was drawn, not made from the benchmark's textures."""
        return any(record.condition.corruption == DRAWN for record in self.records)

    def __str__(self) -> str:
        return terminal(self)

    def as_dict(self) -> dict[str, Any]:
        """What is written to results.json."""
        return {
            "command": self.command,
            "settings": self.settings,
            "data": {
                "data": self.images.data,
                "split": self.images.split,
                "images": len(self.images.files),
                "ground_truth": self.images.source,
                "notes": self.images.notes,
                "skipped": self.images.skipped,
                "fingerprint": self.images.fingerprint,
                **self._task(),
            },
            "environment": environment(),
            "summary": [row.as_dict() for row in self.summary],
            "differences": [row.as_dict() for row in self.differences],
            **({"fronts": [arm.as_dict() for arm in self.arms]} if self.arms else {}),
            "degradation": [row.as_dict() for row in self.degradation],
            "cells": [record.as_dict() for record in self.records],
        }

    def _task(self) -> dict[str, Any]:
        """What the numbers are of; nothing for boxes."""
        described = {"scores": self.scoring.title, "diagnosis": f"of {self.scoring.errors_of}"}
        return self.images.kind.as_dict() and self.images.kind.as_dict() | described

    def write_json(self) -> Path:
        path = self.folder / "results.json"
        write_json(path, self.as_dict())
        return path

    def write_csv(self) -> Path:
        """One row a cell; intervals, the classes' AP and what goes wrong in columns of their own."""
        path = self.folder / "results.csv"
        intervals = [f"{name}_{end}" for name in scores.RESAMPLED for end in ("low", "high")]
        fronts = FRONT_COLUMNS if self.arms else ()
        classes = [f"AP of {name}" for name in self.classes]
        heads = [*COLUMNS, *self.scoring.scores, *intervals, *fronts, *classes, *diagnosis_lines.COLUMNS]
        rows: list[list[Any]] = [heads]
        for record in self.records:
            cells = record.as_dict()
            bounds = [value for name in scores.RESAMPLED for value in record.intervals.get(name, ("", ""))]
            values = [cells.get(key, "") for key in (*COLUMNS, *self.scoring.scores)]
            behind = self._front_values(record) if self.arms else ()
            of_classes = [record.per_class.get(name, "") for name in self.classes]
            rows.append([*values, *bounds, *behind, *of_classes, *diagnosis_lines.columns(record)])
        write_csv(path, rows)
        return path

    def _front_values(self, record: CellRecord) -> list[Any]:
        """Those of FRONT_COLUMNS."""
        if not record.front:
            return [""] * len(FRONT_COLUMNS)
        less = next(arm for arm in self.arms if arm.label == record.model).differences.get(record.condition)
        return [
            record.front.name,
            record.front.milliseconds,
            *((less.value, less.low, less.high) if less else [""] * 3),
        ]

    def write_truth(self) -> Path:
        """The ground truth in COCO's format, so that anybody can score the saved detections again."""
        path = self.folder / "annotations.json"
        write_text(path, json.dumps(self.images.coco) + "\n")
        return path

    def write_detections(self) -> Path:
        """The detections of each cell in COCO's format, as `yolo-dyn score` takes them, in a folder for each model."""
        folder = self.folder / "detections"
        for cell in TQDM(self.cells, desc="detections as json", unit="cells"):
            (folder / cell.label).mkdir(parents=True, exist_ok=True)
            found, shapes = store.load_found(self.folder / "cells", cell, self.images.kind)
            with written_whole(folder / cell.label / f"{cell.condition.slug}.json") as file:
                write_detections(file, found, objects.writer(self.images.kind, self.images.coco, found, shapes))
        return folder


def _resampled(folder: Path, cell: Cell) -> np.ndarray:
    return store.load_arrays(folder / "cells", cell, "resampled")["resampled"]


def _with_intervals(record: CellRecord, resampled: np.ndarray) -> CellRecord:
    """With the intervals of this version, whichever measured the cell: they were percentiles once."""
    return replace(record, intervals=scores.interval(resampled, record.scores, record.images))


def summary(records: list[CellRecord]) -> list[Summary]:
    """P, mPC and rPC of each model. A cell that was not run is absent, never 0."""
    rows = []
    for model in dict.fromkeys(record.model for record in records):
        own = [record for record in records if record.model == model]
        rows.append(Summary(model, performance(own, "AP"), performance(own, "AP50")))
    return rows


def terminal(sweep: Sweep) -> str:
    """The summary as text: AP over all conditions, then P, mPC, rPC and the differences."""
    conditions = list(dict.fromkeys(str(record.condition) for record in sweep.records))
    found = {(record.model, str(record.condition)): record for record in sweep.records}
    stock = any(record.ultralytics for record in sweep.records)
    also = ", and Ultralytics' own, which the report explains" if stock else ""
    lines = ["", f"{sweep.scoring.title}{also}", ""]
    for start in range(0, len(conditions), 6):
        some = conditions[start : start + 6]
        rows: dict[str, list[float | None]] = {}
        for model in sweep.models:
            records = [found.get((model, name)) for name in some]
            rows[model] = [record.scores.get("AP") if record else None for record in records]
            if stock:
                rows[f"{model} (Ultralytics)"] = [r.ultralytics.get("AP") if r else None for r in records]
        lines += [*_table(some, rows), ""]
    lines += _table(["P", "mPC", "rPC"], {row.model: [row.ap.p, row.ap.mpc, row.ap.rpc] for row in sweep.summary})
    if sweep.benchmark:
        lines += ["", "beside published detectors under COCO-C (your own first), which the report explains", ""]
        lines += _table(["P", "mPC", "rPC", "AP50: P", "mPC", "rPC"], _beside_published(sweep))
    if sweep.differences:
        lines += [
            "",
            f"AP less that of {sweep.models[0]}, with the 95 % interval of a paired bootstrap over images",
            "",
        ]
    for row in sweep.differences:
        d = row.ap
        lines.append(f"{row.model}  {row.condition!s:<24}{d.value:+.3f}  [{d.low:+.3f}, {d.high:+.3f}]")
    if sweep.arms:
        lines += ["", *arm_lines(sweep.arms, sweep.conditions)]
    lines += diagnosis_lines.lines(sweep.records, sweep.scoring)
    for record in sweep.records:
        if record.pixels:
            pixels = "  ".join(f"{key} {value[:16]}" for key, value in record.pixels.items())
            lines.append(f"pixels of {record.model}, {record.condition}: {pixels}")
    return "\n".join([*lines, "", f"{len(sweep.records)} cells, pictures and report.html in {sweep.folder}"])


def _beside_published(sweep: Sweep) -> dict[str, list[float | None]]:
    return {
        f"{row.detector}, {'own' if row.own else row.data}": [
            None if value is None else value / 100 for three in (row.ap, row.ap50) for value in three or (None,) * 3
        ]
        for row in published.beside(sweep.summary, sweep.title)
    }


def _table(heads: list[str], rows: dict[str, list[float | None]]) -> list[str]:
    """Lines with a column of names, then one of numbers for each head."""
    first = 2 + max(len("model"), *map(len, rows))
    widths = [max(10, len(head) + 2) for head in heads]
    lines = [f"{'model':<{first}}" + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))]
    for name, values in rows.items():
        texts = ("-" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"{name:<{first}}" + "".join(f"{t:>{w}}" for t, w in zip(texts, widths, strict=True)))
    return lines


def degradation(records: list[CellRecord], classes: Sequence[str]) -> Degradation:
    """How the AP of each class and of each size of objects falls in the cells of one model."""
    by_class = [replace(record, scores=record.per_class) for record in records]
    return Degradation(records[0].model, _falls(by_class, classes), _falls(records, SIZES))


def _falls(records: list[CellRecord], names: Sequence[str]) -> dict[str, Fall]:
    scored = {name: {r.condition: r.scores[name] for r in records if name in r.scores} for name in names}
    return {name: Fall(performance(records, name), values) for name, values in scored.items() if values}
