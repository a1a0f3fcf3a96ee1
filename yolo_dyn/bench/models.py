"""Latency of models, measured in turn (A B A B ...), so that a machine whose speed drifts favours none."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_dyn.bench.timing import Times, in_turn, inference_step, summary
from yolo_dyn.integration import image_channels
from yolo_dyn.integration.api import chosen_device, load_model, machine_name, torch_device, train_args
from yolo_dyn.output.arguments import ImageSize, Names, OrDefault, Positive, checked
from yolo_dyn.output.files import check_folder, write_json
from yolo_dyn.output.outcome import Outcome


@dataclass(frozen=True)
class Latencies(Outcome):
    """Times of models that were measured in turn, and how."""

    what: str
    imgsz: int
    batch: int
    device: str
    machine: str
    threads: int
    torch: str
    models: list[Times]
    out: str = ""  # the file that was written

    def __str__(self) -> str:
        where = f"{self.device} ({self.machine}, {self.threads} threads)"
        rounds = len(self.models[0].ms)
        lines = [
            f"{self.what}, batch {self.batch}, {self.imgsz} px, {where}, {rounds} rounds in turn",
            "",
            f"{'model':<32}{'median ms':>12}{'p95 ms':>12}{'ratio':>10}",
            *(f"{t.model:<32}{t.median_ms:>12.2f}{t.p95_ms:>12.2f}{t.ratio:>10.3f}" for t in self.models),
            "",
            f"ratio: median over the rounds of a model's time to that of {self.models[0].model} in the same round",
        ]
        return "\n".join([*lines, f"written to {self.out}"] if self.out else lines)

    def as_dict(self) -> dict[str, Any]:
        """What is written to `out`."""
        return {key: value for key, value in asdict(self).items() if key != "out"}


@checked
def bench(
    model: Names,
    imgsz: ImageSize = 640,
    batch: Positive = 1,
    train: bool = False,
    rounds: OrDefault = 0,
    device: str = "",
    out: str = "",
) -> Latencies:
    """Time models in turn: median, 95th percentile and the ratio to the first.

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
        The machine, the settings, and for each model its times in milliseconds.
    """
    device = torch_device(chosen_device(device))
    rounds = rounds or (6 if train else 40)
    check_folder(out)
    steps = [(_training_step if train else inference_step)(load_model(name), imgsz, batch, device) for name in model]
    warmup = 1 if train else 5
    waits = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    times = in_turn(steps, rounds, warmup, waits.get(torch.device(device).type, lambda: None))

    latencies = Latencies(
        what="training step" if train else "inference, fused",
        imgsz=imgsz,
        batch=batch,
        device=device,
        machine=machine_name(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        models=[summary(name, series, times[0]) for name, series in zip(model, times, strict=True)],
        out=out,
    )
    if out:
        write_json(Path(out), latencies.as_dict(), "out")
    return latencies


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
