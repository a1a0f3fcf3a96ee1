"""Every registered layer against the static convolution of the same shape: time and peak memory, measured in turn."""

import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.utils import LOGGER

from yolo_dyn import registry
from yolo_dyn.bench.timing import in_turn
from yolo_dyn.layers.functional import FORMS, conv_per_sample, mix_kernels, mixture_conv
from yolo_dyn.layers.protocol import Fusible, options_of
from yolo_dyn.output.arguments import Names, Positive, Range, checked
from yolo_dyn.output.files import writable, write_json
from yolo_dyn.output.outcome import Outcome
from yolo_dyn.output.style import save

SHAPES = ((64, 80), (128, 40), (256, 20))  # channels, height and width: P3, P4, P5 of a small detector at 640 px
CASES = (("eval", 1), ("eval", 8), ("train", 1), ("train", 8))  # what is timed, and the batch size
STATIC = "static 3x3"


@dataclass(frozen=True)
class LayerTimes:
    """A layer at one shape in one case."""

    layer: str
    mode: str  # "eval" or "train"
    batch: int
    channels: int
    size: int  # height and width
    ms: float  # median
    ratio: float  # median over the rounds, to the static convolution in the same round
    peak_mib: float

    def __str__(self) -> str:
        case = _case(self.mode, self.batch, self.channels, self.size)
        return f"{self.layer:<22}{case:<28}{self.ms:>12.2f}{self.ratio:>9.2f}{self.peak_mib:>11.1f}"


@dataclass(frozen=True)
class LayerBench(Outcome):
    """All layers at all shapes in all cases."""

    machine: str
    torch: str
    experts: int
    rounds: int
    cells: list[LayerTimes]
    folder: Path | None = None  # of what was written

    def __str__(self) -> str:
        lines = ["", *_table(self.cells)]
        if self.folder:
            lines += ["", f"written to {self.folder / 'layers.json'} and {self.folder / 'layers.png'}"]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """What is written to layers.json."""
        return {key: value for key, value in asdict(self).items() if key != "folder"}


@checked
def bench_layers(
    layers: Names | None = None, rounds: Positive = 9, experts: Annotated[int, Range(1, 64)] = 4, out: str = ""
) -> LayerBench:
    """Time registered layers against a static 3x3 convolution of the same shape, forward and training step.

    Args:
        layers: YAML names; all registered convolutions and modules by default.
        rounds: times that each layer is run in each cell.
        experts: number of expert kernels, K, of all layers that have them.
        out: folder for `layers.json` and `layers.png`.

    Returns:
        The machine, and for each layer and cell the median time in milliseconds, the median ratio to the static
        convolution in the same round, and the peak memory in MiB.
    """
    names = sorted([*registry.names("convolution"), *registry.names("module")]) if layers is None else layers
    for name in names:
        registry.require(name, "convolution", "module")
    if out:
        writable(Path(out), "")
    cells = []
    LOGGER.info(f"{'layer':<22}{'cell':<28}{'median ms':>12}{'ratio':>9}{'peak MiB':>11}")
    for shape in SHAPES:
        for case in CASES:
            for cell in _measure(names, *shape, *case, rounds, experts):
                cells.append(cell)
                LOGGER.info(str(cell))
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    bench = LayerBench(machine, torch.__version__, experts, rounds, cells, Path(out) if out else None)
    if out:
        write_json(Path(out, "layers.json"), bench.as_dict())
        _draw(cells, Path(out, "layers.png"))
    return bench


def _measure(
    names: list[str], channels: int, size: int, mode: str, batch: int, rounds: int, experts: int
) -> Iterator[LayerTimes]:
    """The static convolution and each layer at one shape, in one mode."""
    static = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    modules: dict[str, nn.Module] = {STATIC: static, **{name: _layer(name, channels, experts) for name in names}}
    x = torch.randn(batch, channels, size, size)
    steps = {name: _step(module, x, mode == "train") for name, module in modules.items()}
    # the static convolution before each layer: what it is compared with has seen the same memory and cache
    times = in_turn([step for name in steps for step in (steps[STATIC], steps[name])], rounds, 1, lambda: None)
    for i, name in enumerate(steps):
        reference, timed = times[2 * i], times[2 * i + (name != STATIC)]
        ratio = statistics.median(t / s for t, s in zip(timed, reference, strict=True))
        yield LayerTimes(name, mode, batch, channels, size, statistics.median(timed), ratio, peak_memory(steps[name]))


@dataclass(frozen=True)
class FormBench(Outcome):
    """The ratio of each form of the mixture to a static convolution, by case."""

    columns: list[str]
    ratios: dict[str, list[float]]  # by case, in the order of the columns

    def __str__(self) -> str:
        lines = [f"{'ratio to a static convolution':<32}" + "".join(f"{column:>20}" for column in self.columns)]
        for case, ratios in self.ratios.items():
            lines.append(f"{case:<32}" + "".join(f"{ratio:>20.2f}" for ratio in ratios))
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@checked
def bench_forms(rounds: Positive = 9) -> FormBench:
    """Time the three forms of the mixture, and the two parts of the kernel form, against one static convolution.

    Args:
        rounds: times that each is run in each cell.
    """
    found = FormBench([*FORMS, "mixing alone", "convolution alone"], {})
    for channels, size in SHAPES:
        for mode, batch in CASES:
            train = mode == "train"
            bank = torch.randn(4 * channels, channels, 3, 3, requires_grad=train)
            x = torch.randn(batch, channels, size, size, requires_grad=train)
            kernels = torch.randn(batch, channels, channels, 3, 3, requires_grad=train)
            attention = torch.softmax(torch.randn(batch, 4), 1)
            calls = [
                *(partial(mixture_conv, x, bank, attention, padding=1, form=form) for form in FORMS),
                partial(mix_kernels, bank, attention),
                partial(conv_per_sample, x, kernels, padding=1),
            ]
            static = _called(partial(F.conv2d, x, bank[:channels].detach().requires_grad_(train), padding=1), train)
            steps = [step for call in calls for step in (static, _called(call, train))]
            times = in_turn(steps, rounds, 1, lambda: None)
            found.ratios[_case(mode, batch, channels, size)] = [
                statistics.median(t / s for t, s in zip(times[2 * i + 1], times[2 * i], strict=True))
                for i in range(len(calls))
            ]
    return found


def peak_memory(step: Callable[[], Any]) -> float:
    """MiB that a call allocates at its peak beyond what was there before, as torch's profiler records it."""
    step()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or every run of the profiler prints two lines
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event["args"]["Bytes"] for event in sorted(events, key=lambda e: e.get("ts", 0)) if _is_memory(event)]
    live = peak = 0
    for change in changes:
        live += change
        peak = max(peak, live)
    return peak / 2**20


def _is_memory(event: dict[str, Any]) -> bool:
    return event.get("name") == "[memory]"


def _layer(name: str, channels: int, experts: int) -> nn.Module:
    """A layer as a 3x3 convolution; a module that is none keeps the channels."""
    layer = registry.require(name)
    options = {"num_experts": experts} if "num_experts" in options_of(layer) else {}
    if registry.kind_of(layer) == "convolution":
        return layer(channels, channels, 3, padding=1, bias=False, **options)
    return layer(channels, channels, **options)


def _step(module: nn.Module, x: torch.Tensor, train: bool) -> Callable[[], Any]:
    if not train:
        module.eval()
        if isinstance(module, Fusible):
            module.fuse()
    x = x.clone().requires_grad_(train)
    return _called(lambda: module.train(train)(x), train)


def _called(forward: Callable[[], torch.Tensor], train: bool) -> Callable[[], Any]:
    def step() -> None:
        if train:
            forward().sum().backward()
            return
        with torch.inference_mode():
            forward()

    return step


def _case(mode: str, batch: int, channels: int, size: int) -> str:
    return f"{mode}, batch {batch}, {channels} x {size}x{size}"


def _table(cells: list[LayerTimes]) -> list[str]:
    """Ratios, a row for each layer and a column for each case, the three shapes side by side."""
    shapes = " / ".join(f"{channels} x {size}x{size}" for channels, size in SHAPES)
    lines = [
        f"ratio to a static 3x3 convolution at {shapes}",
        f"{'':<22}" + "".join(f"{f'{mode}, batch {batch}':>22}" for mode, batch in CASES),
    ]
    for name in dict.fromkeys(cell.layer for cell in cells):
        columns = []
        for case in CASES:
            ratios = [c.ratio for c in cells if c.layer == name and (c.mode, c.batch) == case]
            columns.append(f"{' / '.join(f'{ratio:.2f}' for ratio in ratios):>22}")
        lines.append(f"{name:<22}" + "".join(columns))
    return lines


def _draw(cells: list[LayerTimes], file: Path) -> None:
    import matplotlib.pyplot as plt

    names = [name for name in dict.fromkeys(cell.layer for cell in cells) if name != STATIC][::-1]
    figure, axes = plt.subplots(1, len(CASES), figsize=(4 * len(CASES), 0.42 * len(names) + 1.6), sharey=True)
    for axis, case in zip(axes, CASES, strict=True):
        for offset, (channels, size) in enumerate(SHAPES):
            ratios = {c.layer: c.ratio for c in cells if (c.mode, c.batch, c.channels) == (*case, channels)}
            heights = [i + 0.27 * (1 - offset) for i in range(len(names))]
            axis.barh(heights, [ratios[name] - 1 for name in names], 0.27, left=1, label=f"{channels} x {size}x{size}")
        axis.axvline(1, color="0.3", linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("time / static 3x3 convolution")
        axis.set_title(f"{case[0]}, batch {case[1]}")
        axis.set_yticks(range(len(names)), names)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    save(figure, file, dpi=110)
