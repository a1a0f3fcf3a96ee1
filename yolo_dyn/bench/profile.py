"""The operations of one fused pass: each has a fixed cost, on a GPU a launch, whatever it computes."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.utils import TQDM

from yolo_dyn import registry
from yolo_dyn.bench.flops import around_rows
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import image_channels
from yolo_dyn.integration.api import load_model
from yolo_dyn.output.arguments import ImageSize, Names, checked
from yolo_dyn.output.files import check_folder, write_json
from yolo_dyn.output.outcome import Outcome

# make no values: memory alone, or a view that its schema does not say to be one
FREE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh")
# the lines of inductor's code that run something: a kernel that it wrote, or one of a library
GENERATED = re.compile(r"^\s+(?:\w+ = )?(?:cpp_fused|triton)\w*(?:\.run)?\(", re.MULTILINE)
LIBRARY = re.compile(r"^\s+(?:\w+ = )?(?:extern_kernels\.\w+|torch\.ops\.[\w.]+)\(", re.MULTILINE)


class Operations(TorchDispatchMode):
    """Count the operators of torch's dispatcher that run inside of it, without those that only make a view.

    Under ``torch.no_grad()`` a composed operator counts as what it is composed of.

    Attributes:
        counts: how often each ran, by name.

    Examples:
        >>> import torch
        >>> layer, x = torch.nn.Linear(8, 4, bias=False), torch.rand(1, 8)
        >>> with torch.no_grad(), Operations() as operations:
        ...     y = layer(x).relu().flatten()
        >>> operations.counts.most_common()
        [('mm', 1), ('relu', 1)]
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        y = func(*args, **(kwargs or {}))
        aliases = [returned.alias_info for returned in func._schema.returns]
        name = func.overloadpacket.__name__
        if name not in FREE and all(alias is None or alias.is_write for alias in aliases):
            self.counts[name] += 1
        return y


@dataclass(frozen=True)
class Compiled:
    """What torch's inductor makes of a layer."""

    generated: int  # kernels that it wrote
    library: int  # calls of kernels that were there: convolutions, matrix products

    def __str__(self) -> str:
        return f"{self.generated} generated kernels + {self.library} library calls"


@dataclass(frozen=True)
class RowOperations:
    """The operations of one row of a model."""

    row: int
    layer: str
    ours: bool
    operations: dict[str, int]  # by name
    compiled: Compiled | None = None

    @property
    def total(self) -> int:
        return sum(self.operations.values())

    @property
    def kinds(self) -> str:
        """The operations by name, the most frequent first."""
        return ", ".join(f"{name} {n}" for name, n in sorted(self.operations.items(), key=lambda kind: -kind[1]))


@dataclass(frozen=True)
class ModelOperations:
    """The operations of a model, row by row."""

    model: str
    rows: list[RowOperations]

    @property
    def total(self) -> int:
        return sum(row.total for row in self.rows)

    @property
    def ours(self) -> list[RowOperations]:
        return [row for row in self.rows if row.ours]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"operations": self.total}


@dataclass(frozen=True)
class Profile(Outcome):
    """The operations of models, each beside the first."""

    imgsz: int
    torch: str
    models: list[ModelOperations]
    out: str = ""  # the file that was written

    def __str__(self) -> str:
        first = self.models[0]
        lines = [
            f"operations of a fused pass, batch 1, {self.imgsz} px, torch {self.torch}, views not counted",
            "",
            f"{'model':<32}{'operations':>12}{'more':>8}{'':>10}  rows of ours, each with its operations",
        ]
        for model in self.models:
            more = model.total - first.total
            share = f"{more / first.total:+.1%}" if more else ""
            ours = ", ".join(f"{row.layer} ({row.total})" for row in model.ours)
            lines.append(f"{model.model:<32}{model.total:>12}{more or '':>8}{share:>10}  {ours}".rstrip())
        seen: list[tuple[Any, ...]] = []
        for row in (row for model in self.models for row in model.ours):
            what = row.layer, row.operations, row.compiled
            if what not in seen:
                seen.append(what)
                lines += ["", f"{row.layer} ({row.total}): {row.kinds}"]
                lines += [f"  under torch.compile: {row.compiled}"] if row.compiled else []
        lines += ["", f"more: than {first.model} has"] if len(self.models) > 1 else []
        return "\n".join([*lines, f"written to {self.out}"] if self.out else lines)

    def as_dict(self) -> dict[str, Any]:
        """What is written to `out`."""
        return {"imgsz": self.imgsz, "torch": self.torch, "models": [model.as_dict() for model in self.models]}


@checked
def profile(model: Names, imgsz: ImageSize = 640, compiled: bool = False, out: str = "") -> Profile:
    """Count the operations of one fused pass at batch 1, row by row: what each costs beside its arithmetic.

    Counted at torch's dispatcher, on the CPU and in channels_last, as the stock predictor runs a model there.

    Args:
        model: model YAMLs or checkpoints; the first is what the others are compared with.
        imgsz: height and width of the images in pixels.
        compiled: also compile each row of a registered layer by itself, and count the kernels that torch's inductor
            writes and the library calls that it keeps; needs a C++ compiler.
        out: JSON file to write.

    Returns:
        The operations of each model, by row and by name.
    """
    check_folder(out)
    opened = {name: load_model(name) for name in model}
    models = [_count(name, opened[name], imgsz, compiled) for name in TQDM(opened, desc="models", disable=not compiled)]
    profile = Profile(imgsz, torch.__version__, models, out)
    if out:
        write_json(Path(out), profile.as_dict(), "out")
    return profile


@torch.no_grad()
def _count(name: str, opened: Any, imgsz: int, compiled: bool) -> ModelOperations:
    ours = [bool(registry.in_model(row)) for row in opened.model]  # before it is fused: a shut gate drops its layer
    model = opened.fuse(verbose=False).eval().to(memory_format=torch.channels_last)
    image = torch.rand(1, image_channels(model), imgsz, imgsz).to(memory_format=torch.channels_last)
    model(image)  # a detector makes its anchors in the first pass
    counts, inputs = _by_row(model, image)
    return ModelOperations(
        name,
        [
            RowOperations(
                i,
                str(row.type).rsplit(".", 1)[-1],
                ours[i],
                dict(counts[i]),
                compile_calls(row, inputs[i]) if ours[i] and compiled else None,
            )
            for i, row in enumerate(model.model)
        ],
    )


def _by_row(model: Any, image: Tensor) -> tuple[list[Counter[str]], list[Any]]:
    """Run a model: the operations of each row, and what the row was given."""
    counts: list[Counter[str]] = [Counter() for _ in model.model]
    inputs: list[Any] = [None for _ in model.model]

    def before(i: int, given: Any) -> None:
        counts[i], inputs[i] = operations.counts.copy(), given

    def after(i: int) -> None:
        counts[i] = operations.counts - counts[i]

    with Operations() as operations, around_rows(model.model, before, after):
        model(image)
    return counts, inputs


def compile_calls(layer: Callable[..., Any], x: Any) -> Compiled:
    """Compile a layer, and count what inductor's code for it runs.

    Raises:
        YoloDynError: if torch cannot compile here.
    """
    from torch._inductor.utils import run_and_get_code

    torch.compiler.reset()
    try:
        _, code = run_and_get_code(torch.compile(layer), x)
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        raise YoloDynError(f"compiled=True: torch.compile failed: {' '.join(first) or type(error).__name__}") from error
    calls = "\n".join(text[text.index("def call(") :] for text in code)
    return Compiled(len(GENERATED.findall(calls)), len(LIBRARY.findall(calls)))
