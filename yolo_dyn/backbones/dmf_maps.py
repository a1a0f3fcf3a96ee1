"""Dynamic Mobile-Former as a backbone of four maps, from the rows of its bundled YAML."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from yolo_dyn.integration.rows import Row
from yolo_dyn.layers import DMFBlock, Former
from yolo_dyn.output.files import bundled_folder

_SUFFIX = "-cls.yaml"


class DMFMaps(nn.Module):
    """The rows of a Dynamic Mobile-Former up to its last block; what each stage ends with (DMF Sec. 3.6).

    Args:
        rows: each with its inputs in `f`, numbered as in a model YAML.

    Attributes:
        channels: of the maps.
        stages: the rows in five parts: stem, then those that end with each map.

    Shape:
        ``[B, 3, H, W]`` -> four maps ``[B, C_i, ceil(H/stride_i), ceil(W/stride_i)]``, strides 4, 8, 16 and 32.
    """

    def __init__(self, rows: Iterable[nn.Module]):
        super().__init__()
        self.rows = nn.ModuleList(rows)
        blocks = {i: row for i, row in enumerate(self.rows) if isinstance(row, DMFBlock)}
        halving = [i for i, block in blocks.items() if len(block.downsample)]  # each begins a stage
        self.ends = [max(i for i in blocks if i < following) for following in (*halving[1:], len(self.rows))]
        self.channels = [blocks[i].norm.num_channels for i in self.ends]

    @property
    def stages(self) -> list[list[nn.Module]]:
        rows = list(self.rows)
        first = next(i for i, row in enumerate(rows) if isinstance(row, Former))
        bounds = [0, first, *(end + 1 for end in self.ends)]
        return [rows[start:end] for start, end in itertools.pairwise(bounds)]

    def forward(self, x: Tensor) -> list[Tensor]:
        y: list[Tensor] = []
        for row in self.rows:
            f: Any = row.f
            given = [y[i] for i in f] if isinstance(f, list) else y[f] if y else x
            y.append(row(given))
        return [y[i] for i in self.ends]


def names() -> list[str]:
    """The sizes that there are, "dmf-s" for example."""
    return sorted(file.name.removesuffix(_SUFFIX) for file in bundled_folder("models_yaml").glob(f"dmf-*{_SUFFIX}"))


def backbone_rows(name: str) -> list[Any]:
    """The raw rows of a size, those of its classifier's head left out."""
    return yaml.safe_load(_file(name).read_text(encoding="utf-8"))["backbone"]


def build(name: str) -> DMFMaps:
    """Build a size with random weights."""
    built: list[nn.Module] = []
    channels: list[Any] = []
    for index, raw in enumerate(backbone_rows(name)):
        row = Row.read(raw, index, _file(name).name, None)
        f = row.source
        given = [channels[i] for i in f] if isinstance(f, list) else channels[f] if channels else 3
        layer = row.build(given, 0)
        layer.f = f  # type: ignore[assignment]
        built.append(layer)
        channels.append(row.out_channels(given))
    return DMFMaps(built)


def _file(name: str) -> Path:
    return bundled_folder("models_yaml") / f"{name}{_SUFFIX}"
