"""What the cells of a sweep come to: P, mPC, rPC, differences with intervals; as JSON, CSV and terminal text."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolo_dyn.data.images import EvaluationSet, data_name
from yolo_dyn.output.environment import environment
from yolo_dyn.robustness import cells as store
from yolo_dyn.robustness import scores
from yolo_dyn.robustness.cells import CLEAN, Cell

COLUMNS = ("model", "weights", "corruption", "sigma", "severity", "strength", "seed", "images", "skipped", "detections")
MEAN = "mPC"  # stands in the corruption's place where a figure is the mean over all of them


@dataclass(frozen=True, repr=False)
class Sweep:
    """All cells of a sweep, and what follows from them."""

    folder: Path
    images: EvaluationSet
    settings: dict[str, Any]
    command: str  # that makes it again; empty where it was called from Python
    cells: list[Cell]
    records: list[dict[str, Any]]  # one a cell
    summary: list[dict[str, Any]]  # one a model: P, mPC, rPC of AP and AP50
    differences: list[dict[str, Any]]  # of each other model to the first, one a corruption and strength, and of mPC

    @classmethod
    def read(
        cls, folder: Path, cells: list[Cell], images: EvaluationSet, settings: dict[str, Any], command: str
    ) -> "Sweep":
        """Put finished cells together."""
        records = [store.load(folder / "cells", cell) for cell in cells]
        skipped = {"skipped": len(images.skipped)}  # no part of a cell: what is not evaluated changes no number
        found = [(cell, record | skipped) for cell, record in zip(cells, records, strict=True) if record is not None]
        resampled = {_key(record): _resampled(folder, cell) for cell, record in found}
        kept = [record for _, record in found]
        rows = differences(kept, resampled)
        return cls(folder, images, settings, command, [cell for cell, _ in found], kept, summary(kept), rows)

    @property
    def title(self) -> str:
        """Data set, split and number of images."""
        return f"{data_name(self.images.data)}, {self.images.split}, {len(self.images.files)} images"

    @property
    def models(self) -> list[str]:
        """Labels, the first one being what the others are compared with."""
        return list(dict.fromkeys(record["model"] for record in self.records))

    @property
    def classes(self) -> list[str]:
        """Classes that have an object, in the order of the data set."""
        return [name for name in self.images.names.values() if any(name in r["per_class"] for r in self.records)]

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
            },
            "environment": environment(),
            "summary": self.summary,
            "differences": self.differences,
            "cells": self.records,
        }

    def write_json(self) -> Path:
        path = self.folder / "results.json"
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
        return path

    def write_csv(self) -> Path:
        """One row a cell; intervals and the classes' AP in columns of their own."""
        path = self.folder / "results.csv"
        intervals = [f"{name}_{end}" for name in scores.RESAMPLED for end in ("low", "high")]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, *scores.SCORES, *intervals, *(f"AP of {name}" for name in self.classes)])
            for r in self.records:
                bounds = [value for name in scores.RESAMPLED for value in r["intervals"].get(name, ("", ""))]
                values = [r.get(key, "") for key in (*COLUMNS, *scores.SCORES)]
                writer.writerow([*values, *bounds, *(r["per_class"].get(name, "") for name in self.classes)])
        return path

    def write_truth(self) -> Path:
        """The ground truth in COCO's format, so that anybody can score the saved detections again."""
        path = self.folder / "annotations.json"
        path.write_text(json.dumps(self.images.coco) + "\n", encoding="utf-8")
        return path


Key = tuple[str, str, float | None]  # model, corruption, strength


def _key(record: dict[str, Any]) -> Key:
    return record["model"], record["corruption"], record["strength"]


def _resampled(folder: Path, cell: Cell) -> np.ndarray:
    return store.load_arrays(folder / "cells", cell)["resampled"]


def summary(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """P, mPC and rPC of each model. A cell that was not run is absent, never 0."""
    rows = []
    for model in dict.fromkeys(record["model"] for record in records):
        row: dict[str, Any] = {"model": model}
        for name in scores.RESAMPLED:
            mine = [r for r in records if r["model"] == model and name in r]
            clean = next((r[name] for r in mine if r["corruption"] == CLEAN), None)
            corrupted = [r[name] for r in mine if r["corruption"] != CLEAN]
            row[name] = {
                "P": clean,
                "mPC": scores.mean_performance(corrupted),
                "rPC": scores.relative_performance(clean, corrupted),
                "cells": len(corrupted),
            }
        rows.append(row)
    return rows


def differences(records: list[dict[str, Any]], resampled: dict[Key, np.ndarray]) -> list[dict[str, Any]]:
    """Each other model less the first, cell by cell and for the mean over all corrupted cells (mPC)."""
    models = list(dict.fromkeys(record["model"] for record in records))
    found = {_key(record): record for record in records if record["intervals"]}
    rows = []
    for other in models[1:]:
        pairs = []  # cells that both models have
        for (model, corruption, strength), record in found.items():
            if model == models[0] and (other, corruption, strength) in found:
                pairs.append((record, found[other, corruption, strength]))
        shown = [([pair], {key: pair[0][key] for key in ("corruption", "strength", "severity")}) for pair in pairs]
        corrupted = [pair for pair in pairs if pair[0]["corruption"] != CLEAN]
        if corrupted:
            shown.append((corrupted, {"corruption": MEAN, "strength": None, "severity": None}))
        for these, what in shown:
            rows.append({"model": other, "to": models[0], **what, **_difference(these, resampled)})
    return rows


def _difference(
    pairs: list[tuple[dict[str, Any], dict[str, Any]]], resampled: dict[Key, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Mean difference over pairs of cells, with its interval, of AP and AP50."""
    first, second = (np.mean([resampled[_key(pair[i])] for pair in pairs], 0) for i in (0, 1))
    intervals = scores.paired_interval(first, second)
    values = {name: float(np.mean([b[name] - a[name] for a, b in pairs])) for name in scores.RESAMPLED}
    return {name: {"value": values[name], "low": low, "high": high} for name, (low, high) in intervals.items()}


def condition(record: dict[str, Any]) -> str:
    """Corruption and strength in words, short enough for the head of a column."""
    if record["corruption"] in (CLEAN, MEAN):
        return record["corruption"]
    if record["severity"] is not None:
        return f"{record['corruption']} {record['severity']}"
    return f"sigma {record['strength']:g}"


def terminal(sweep: Sweep) -> str:
    """The summary as text: AP over all conditions, then P, mPC, rPC and the differences."""
    conditions = list(dict.fromkeys(condition(record) for record in sweep.records))
    found = {(record["model"], condition(record)): record for record in sweep.records}
    lines = ["", "AP (COCO, over IoU 0.50 to 0.95), and Ultralytics' own, which the report explains", ""]
    for start in range(0, len(conditions), 6):
        some = conditions[start : start + 6]
        rows: dict[str, list[float | None]] = {}
        for model in sweep.models:
            records = [found.get((model, name), {}) for name in some]
            rows[model] = [record.get("AP") for record in records]
            rows[f"{model} (Ultralytics)"] = [record.get("ultralytics", {}).get("AP") for record in records]
        lines += [*_table(some, rows), ""]
    keys = ["P", "mPC", "rPC"]
    lines += _table(keys, {row["model"]: [row["AP"][key] for key in keys] for row in sweep.summary})
    if sweep.differences:
        lines += [
            "",
            f"AP less that of {sweep.models[0]}, with the 95 % interval of a paired bootstrap over images",
            "",
        ]
    for row in sweep.differences:
        d = row["AP"]
        lines.append(f"{row['model']}  {condition(row):<24}{d['value']:+.3f}  [{d['low']:+.3f}, {d['high']:+.3f}]")
    for record in sweep.records:
        if record["pixels"]:
            pixels = "  ".join(f"{key} {value[:16]}" for key, value in record["pixels"].items())
            lines.append(f"pixels of {record['model']}, {condition(record)}: {pixels}")
    return "\n".join([*lines, "", f"{len(sweep.records)} cells, pictures and report.html in {sweep.folder}"])


def _table(heads: list[str], rows: dict[str, list[float | None]]) -> list[str]:
    """Lines with a column of names, then one of numbers for each head."""
    first = 2 + max(len("model"), *map(len, rows))
    widths = [max(10, len(head) + 2) for head in heads]
    lines = [f"{'model':<{first}}" + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))]
    for name, values in rows.items():
        texts = ("-" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"{name:<{first}}" + "".join(f"{t:>{w}}" for t, w in zip(texts, widths, strict=True)))
    return lines
