"""Parameters and FLOPs of a model, row by row, beside the stock model and the paper."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from yolo_dyn import registry
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import image_channels
from yolo_dyn.stock import load_model

# The SGDM paper's figures: its table, then baseline and with SGDM, in millions of parameters and in GFLOPs. YOLOv5n is
# the outlier of Table 2: the same widths as YOLOv8n, at twice its increment.
PAPER = {
    "yolov5n-sgdm": [("Table 2", (2.5, 2.8), (7.2, 8.1)), ("Table 5, older YOLOv5 code", (1.9, 2.0), (4.6, 4.8))],
    "yolov5s-sgdm": [("Table 2", (9.2, 9.8), (24.2, 25.1))],
    "yolov6n-sgdm": [("Table 2", (4.5, 4.5), (13.1, 13.2))],
    "yolov6s-sgdm": [("Table 2", (16.5, 16.6), (44.9, 45.1))],
    "yolov8n-sgdm": [("Table 2", (3.1, 3.3), (8.7, 9.1))],
    "yolov8s-sgdm": [("Table 2", (11.2, 11.8), (28.8, 29.7))],
}


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
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(was_training)
    counts = counter.get_flop_counts()
    return [
        Cost(
            str(row.type).rsplit(".", 1)[-1],
            sum(p.numel() for p in row.parameters()),
            sum(counts.get(f"{type(model).__name__}.model.{i}", {}).values()),
        )
        for i, row in enumerate(rows)
    ]


def info(model: str, base: str = "", imgsz: int = 640) -> None:
    """Print parameters and GFLOPs of a model, per layer and in total, beside the stock model and the paper.

    Args:
        model: model YAML or checkpoint.
        base: the model to compare with; by default the name without its layer, yolov8n.yaml for yolov8n-sgdm.yaml.
        imgsz: height and width of the image in pixels.
    """
    rows = profile(load_model(model), imgsz)
    print(f"{'row':>4}  {'layer':<16}{'parameters':>12}{'GFLOPs':>10}")
    for i, row in enumerate(rows):
        mark = "  *" if row.name in registry.names() else ""
        print(f"{i:>4}  {row.name:<16}{row.params:>12,}{row.flops / 1e9:>10.3f}{mark}")
    totals = _totals(rows)
    print(f"\n{'':<36}{'parameters':>14}{'GFLOPs':>10}   at {imgsz} px, two FLOPs a multiply-add; * layers of yolo_dyn")
    print(f"{model:<36}{totals[0]:>14,}{totals[1]:>10.3f}")
    base = base or _stock_name(model)
    if base:
        stock = _totals(profile(load_model(base), imgsz))
        print(f"{base:<36}{stock[0]:>14,}{stock[1]:>10.3f}")
        print(f"{'increment':<36}{totals[0] - stock[0]:>+14,}{totals[1] - stock[1]:>+10.3f}")
    for table, params, gflops in PAPER.get(Path(model).stem, []):
        columns = f"{f'{params[0]} -> {params[1]} M':>14}{f'{gflops[0]} -> {gflops[1]}':>14}"
        print(
            f"{f'paper, {table}':<36}{columns}   increment {params[1] - params[0]:+.1f} M, {gflops[1] - gflops[0]:+.1f}"
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
