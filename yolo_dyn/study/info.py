"""Parameters and FLOPs of a model, row by row, beside the stock model and the paper."""

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_dyn import registry
from yolo_dyn.bench.flops import counted_by_row
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import image_channels
from yolo_dyn.integration.api import load_model
from yolo_dyn.output.arguments import ImageSize, OrDefault, checked
from yolo_dyn.output.files import bundled_folder, find_yaml
from yolo_dyn.output.outcome import Outcome
from yolo_dyn.study.paper import figures


@dataclass(frozen=True)
class Cost:
    """What one row of a model costs: parameters, and FLOPs (two for a multiply-add)."""

    name: str
    params: int
    flops: int


def row_costs(model: nn.Module, imgsz: int = 640) -> list[Cost]:
    """Count each row of an Ultralytics model for one image.

    FLOPs are counted at dispatcher level, where functional convolutions of dynamic layers are seen like all others:
    convolutions and matrix products, two FLOPs for a multiply-add.

    Args:
        model: a model with its rows in ``model.model``.
        imgsz: height and width of the image in pixels.
    """
    rows = model.model
    assert isinstance(rows, nn.Sequential)
    p = next(model.parameters())
    image = torch.zeros(1, image_channels(model), imgsz, imgsz, device=p.device, dtype=p.dtype)
    was_training = model.training
    model.eval()
    with torch.no_grad(), counted_by_row(rows) as counts:
        model(image)
    model.train(was_training)
    return [
        Cost(
            str(row.type).rsplit(".", 1)[-1],
            sum(p.numel() for p in row.parameters()),
            2 * counts[i],
        )
        for i, row in enumerate(rows)
    ]


@dataclass(frozen=True)
class Costs(Outcome):
    """What a model costs, beside the stock model and the paper."""

    model: str
    imgsz: int
    rows: list[Cost]
    base: str  # the stock model; empty if there is none
    base_rows: list[Cost]

    def __str__(self) -> str:
        lines = [f"{'row':>4}  {'layer':<16}{'parameters':>12}{'GFLOPs':>10}"]
        for i, row in enumerate(self.rows):
            mark = "  *" if row.name in registry.names() else ""
            lines.append(f"{i:>4}  {row.name:<16}{row.params:>12,}{row.flops / 1e9:>10.3f}{mark}")
        params, gflops = _totals(self.rows)
        note = f"at {self.imgsz} px, two FLOPs a multiply-add; * layers of yolo_dyn"
        lines += [
            "",
            f"{'':<36}{'parameters':>14}{'GFLOPs':>10}   {note}",
            f"{self.model:<36}{params:>14,}{gflops:>10.3f}",
        ]
        if self.base:
            stock = _totals(self.base_rows)
            lines.append(f"{self.base:<36}{stock[0]:>14,}{stock[1]:>10.3f}")
            lines.append(f"{'increment':<36}{params - stock[0]:>+14,}{gflops - stock[1]:>+10.3f}")
        return "\n".join([*lines, *_papers(self.model)])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@checked
def info(model: str, base: str = "", imgsz: ImageSize = 640, nc: OrDefault = 0) -> Costs:
    """Count parameters and GFLOPs of a model, per layer and in total, beside the stock model and the paper.

    Args:
        model: model YAML or checkpoint.
        base: the model to compare with; by default the name without its layer, yolov8n.yaml for yolov8n-sgdm.yaml.
        imgsz: height and width of the image in pixels.
        nc: classes; those that the YAML says if it is 0.
    """
    rows = row_costs(load_model(model, nc), imgsz)
    base = base or _stock_name(model)
    return Costs(model, imgsz, rows, base, row_costs(load_model(base, nc), imgsz) if base else [])


def _papers(model: str) -> list[str]:
    """A line for each of the paper's tables that has the model, if it is the one that comes with the package."""
    file = find_yaml(model)
    if file is None or file.resolve().parent != bundled_folder("models_yaml").resolve():
        return []
    lines = []
    for table, baseline, arm in figures(Path(model).stem):
        columns = f"{f'{baseline[0]} -> {arm[0]} M':>14}{f'{baseline[1]} -> {arm[1]}':>14}"
        increment = f"increment {arm[0] - baseline[0]:+.1f} M, {arm[1] - baseline[1]:+.1f}"
        lines.append(f"{f'paper, {table}':<36}{columns}   {increment}")
    return lines


def _totals(rows: list[Cost]) -> tuple[int, float]:
    return sum(row.params for row in rows), sum(row.flops for row in rows) / 1e9


def _stock_name(model: str) -> str:
    """The name without the suffixes of its layers, if there is such a model."""
    stem = Path(model).stem
    suffixes = tuple(f"-{layer.lower()}" for layer in registry.names())
    while stem.endswith(suffixes):
        stem = stem.rpartition("-")[0]
    if stem != Path(model).stem:
        with contextlib.suppress(YoloDynError):
            load_model(f"{stem}.yaml")
            return f"{stem}.yaml"
    return ""
