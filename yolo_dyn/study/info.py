"""Parameters and FLOPs of a model, row by row, beside the stock model and the paper."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from yolo_dyn import registry
from yolo_dyn.bench.flops import counted_by_row
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import image_channels
from yolo_dyn.integration.api import load_model
from yolo_dyn.study.paper import figures


@dataclass(frozen=True)
class Cost:
    """What one row of a model costs: parameters, and FLOPs (two for a multiply-add)."""

    name: str
    params: int
    flops: int


def profile(model: nn.Module, imgsz: int = 640) -> list[Cost]:
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


def info(model: str, base: str = "", imgsz: int = 640, nc: int = 0) -> None:
    """Print parameters and GFLOPs of a model, per layer and in total, beside the stock model and the paper.

    Args:
        model: model YAML or checkpoint.
        base: the model to compare with; by default the name without its layer, yolov8n.yaml for yolov8n-sgdm.yaml.
        imgsz: height and width of the image in pixels.
        nc: classes; those that the YAML says where it is 0.
    """
    rows = profile(load_model(model, nc), imgsz)
    print(f"{'row':>4}  {'layer':<16}{'parameters':>12}{'GFLOPs':>10}")
    for i, row in enumerate(rows):
        mark = "  *" if row.name in registry.names() else ""
        print(f"{i:>4}  {row.name:<16}{row.params:>12,}{row.flops / 1e9:>10.3f}{mark}")
    totals = _totals(rows)
    print(f"\n{'':<36}{'parameters':>14}{'GFLOPs':>10}   at {imgsz} px, two FLOPs a multiply-add; * layers of yolo_dyn")
    print(f"{model:<36}{totals[0]:>14,}{totals[1]:>10.3f}")
    base = base or _stock_name(model)
    if base:
        stock = _totals(profile(load_model(base, nc), imgsz))
        print(f"{base:<36}{stock[0]:>14,}{stock[1]:>10.3f}")
        print(f"{'increment':<36}{totals[0] - stock[0]:>+14,}{totals[1] - stock[1]:>+10.3f}")
    for table, baseline, arm in figures(Path(model).stem):
        columns = f"{f'{baseline[0]} -> {arm[0]} M':>14}{f'{baseline[1]} -> {arm[1]}':>14}"
        print(
            f"{f'paper, {table}':<36}{columns}   increment {arm[0] - baseline[0]:+.1f} M, {arm[1] - baseline[1]:+.1f}"
        )


def _totals(rows: list[Cost]) -> tuple[int, float]:
    return sum(row.params for row in rows), sum(row.flops for row in rows) / 1e9


def _stock_name(model: str) -> str:
    """The name without the suffixes of its layers, where there is such a model."""
    stem = Path(model).stem
    suffixes = tuple(f"-{layer.lower()}" for layer in registry.names())
    while stem.endswith(suffixes):
        stem = stem.rpartition("-")[0]
    if stem != Path(model).stem:
        with contextlib.suppress(YoloDynError):
            load_model(f"{stem}.yaml")
            return f"{stem}.yaml"
    return ""
