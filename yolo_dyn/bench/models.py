"""Latency of models, measured in turn (A B A B ...), so that a machine whose speed drifts favours none."""

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_dyn.bench.timing import in_turn, inference_step, summary
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import image_channels
from yolo_dyn.integration.api import load_model, train_args


def bench(
    model: list[str],
    imgsz: int = 640,
    batch: int = 1,
    train: bool = False,
    rounds: int = 0,
    device: str = "",
    out: str = "",
) -> dict[str, Any]:
    """Time models in turn and print median, 95th percentile and the ratio to the first.

    Inference is timed as the stock predictor runs it: fused, channels_last on a CPU. A training step is forward, loss,
    backward and an SGD update on random boxes.

    Args:
        model: model YAMLs or checkpoints; the first is what the others are compared with.
        imgsz: height and width of the images in pixels.
        batch: images a call.
        train: time a training step instead of inference.
        rounds: times that each model is run; 40 for inference and 6 for training by default.
        device: torch device; a GPU if there is one, else the CPU.
        out: JSON file to write.

    Returns:
        What is written to `out`: the machine, the settings, and for each model its times in milliseconds.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    rounds = rounds or (6 if train else 40)
    if out and not Path(out).absolute().parent.is_dir():
        raise YoloDynError(f"the folder of out={out} does not exist")
    steps = [(_training_step if train else inference_step)(load_model(name), imgsz, batch, device) for name in model]
    warmup = 1 if train else 5
    times = in_turn(steps, rounds, warmup, torch.cuda.synchronize if device.startswith("cuda") else lambda: None)

    report = {
        "what": "training step" if train else "inference, fused",
        "imgsz": imgsz,
        "batch": batch,
        "device": device,
        "machine": torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "models": [summary(name, series, times[0]) for name, series in zip(model, times, strict=True)],
    }
    _show(report, rounds)
    if out:
        Path(out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"written to {out}")
    return report


def _show(report: dict[str, Any], rounds: int) -> None:
    where = f"{report['device']} ({report['machine']}, {report['threads']} threads)"
    print(f"{report['what']}, batch {report['batch']}, {report['imgsz']} px, {where}, {rounds} rounds in turn\n")
    print(f"{'model':<32}{'median ms':>12}{'p95 ms':>12}{'ratio':>10}")
    for m in report["models"]:
        print(f"{m['model']:<32}{m['median_ms']:>12.2f}{m['p95_ms']:>12.2f}{m['ratio']:>10.3f}")
    first = report["models"][0]["model"]
    print(f"\nratio: median over the rounds of a model's time to that of {first} in the same round")


def _training_step(model: nn.Module, imgsz: int, batch: int, device: str) -> Callable[[], Any]:
    layout = torch.contiguous_format if device == "cpu" else torch.channels_last  # as the stock trainer has it
    model = model.train().to(device).to(memory_format=layout)
    for p in model.parameters():
        p.requires_grad_(p.is_floating_point())
    model.args = train_args()  # type: ignore[assignment]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    boxes = 8 * batch  # eight an image
    generator = torch.Generator().manual_seed(0)
    target = {
        "img": torch.rand(batch, image_channels(model), imgsz, imgsz, generator=generator).to(device),
        "batch_idx": torch.arange(batch, device=device).repeat_interleave(8),  # in order, as the loss needs them
        "cls": torch.zeros(boxes, 1, device=device),
        "bboxes": (torch.rand(boxes, 4, generator=generator) * 0.25 + 0.375).to(device),  # centre and size, fractions
    }

    def step() -> None:
        loss, _ = model(target)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()

    return step
