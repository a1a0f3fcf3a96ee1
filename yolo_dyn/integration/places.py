"""Where a layer can be put into a model YAML, and what happens to the rows around it.

A row is named by its number, counted through backbone and head; what a row reads, by such a number or by one counted
back from itself. Rows that are put in between move the numbers of those after them.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from yolo_dyn import registry
from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.integration.api import detection_heads
from yolo_dyn.integration.model_yaml import smallest
from yolo_dyn.integration.rows import SAME
from yolo_dyn.layers.protocol import declares_channels

ACCEPTED = "head, backbone_end, p2 to p7, numbers of rows, or names of modules"


@dataclass
class Plan:
    """The rows of a model YAML, and what is to be put among them."""

    name: str  # of the YAML, for messages
    rows: list[list[Any]]
    backbone: int  # how many of them are the backbone
    after: list[int] = field(default_factory=list)  # the rows that are followed by a layer
    at_head: bool = False  # and before each input of the head

    @property
    def head(self) -> list[Any]:
        return self.rows[-1]

    def error(self, message: str) -> YoloDynError:
        return YoloDynError(f"{self.name} {message}")


def planned(model: dict[str, Any], at: Sequence[str], name: str) -> Plan:
    """Find the places that are asked for.

    Raises:
        YoloDynError: for one that the model does not have.
    """
    plan = Plan(name, copy.deepcopy([*model["backbone"], *model["head"]]), len(model["backbone"]))
    strides: list[int | None] = []
    for place in map(str, at):
        if place == "head":
            plan.at_head = True
            _check_head(plan)
        elif re.fullmatch(r"p\d", place):
            strides = strides or row_strides(model)
            plan.after.append(_last_of_stride(plan, place, strides))
        else:
            plan.after += _rows_called(plan, place)
    plan.after = sorted(set(plan.after))
    return plan


def _check_head(plan: Plan) -> None:
    heads = detection_heads()
    if not plan.rows or plan.head[2] not in heads:
        found = f"its last row is {plan.head[2]}" if plan.rows else "it has no rows"
        raise plan.error(f"has no head to insert before: {found}; accepted: {', '.join(heads)}")


def _rows_called(plan: Plan, place: str) -> list[int]:
    """The rows that a place names: by number, by the name of their module, or as the end of the backbone."""
    last = len(plan.rows) - 2  # nothing comes after the head
    if place == "backbone_end":
        if not plan.backbone:
            raise plan.error("has no backbone to insert after")
        return [min(plan.backbone - 1, last)]
    if re.fullmatch(r"\d+", place):
        if int(place) > last:
            raise plan.error(f"has no row {place} that a layer can follow; accepted: 0 to {last}")
        return [int(place)]
    found = [index for index, row in enumerate(plan.rows[: last + 1]) if row[2] == place]
    if not found:
        names = sorted({row[2] for row in plan.rows[: last + 1]})
        raise plan.error(
            f"has no place {place!r}{nearest(place, ['head', 'backbone_end', *names])}; accepted: {ACCEPTED} (here "
            f"{', '.join(names)})"
        )
    return found


def _last_of_stride(plan: Plan, place: str, strides: list[int | None]) -> int:
    """The last row whose map is 1/2^n of the image, for the place "pn"."""
    wanted = 2 ** int(place[1:])
    found = [index for index, stride in enumerate(strides[:-1]) if stride == wanted]
    if not found:
        known = sorted({stride for stride in strides[:-1] if stride})
        levels = ", ".join(f"p{stride.bit_length() - 1}" for stride in known)
        raise plan.error(f"has no {place}: no row's map is 1/{wanted} of the image; accepted here: {levels}")
    return found[-1]


def built(model: dict[str, Any]) -> tuple[nn.Sequential, int]:
    """The rows of a model YAML at its smallest scale, and the channels of its images."""
    from ultralytics.nn import tasks

    channels = model.get("channels", model.get("ch", 3))
    rows, _ = tasks.parse_model(copy.deepcopy(smallest(model)), channels, False)
    return rows, channels


def row_strides(model: dict[str, Any], size: int = 256) -> list[int | None]:
    """The stride of each row's map, from a pass through the model at its smallest scale; None if it yields no map."""
    layers, channels = built(model)
    outputs: list[Any] = []
    strides: list[int | None] = []
    x: Any = torch.zeros(1, channels, size, size)
    with torch.inference_mode():
        for layer in layers.eval()[:-1]:
            source: Any = layer.f
            read = [x if f == -1 else outputs[f] for f in (source if isinstance(source, list) else [source])]
            try:
                x = layer(read if isinstance(source, list) else read[0])
            except Exception:  # of rows that read more than maps, such as text
                x = None
            outputs.append(x)
            is_map = isinstance(x, torch.Tensor) and x.ndim == 4
            strides.append(size // x.shape[-1] if is_map else None)
    return [*strides, None]


def put_in(plan: Plan, layer: str, arguments: dict[str, Any], rewire: bool) -> None:
    """Put a row of the layer after each chosen row.

    Args:
        plan: is changed.
        layer: YAML name.
        arguments: its keyword arguments.
        rewire: let the rows that read a chosen row by its number read the layer instead; they still read the row
            itself otherwise.

    Raises:
        YoloDynError: if a layer would be read by nobody.
    """
    old = plan.rows
    moved = [index + sum(place < index for place in plan.after) for index in range(len(old))]  # numbers after this
    rows: list[list[Any]] = []
    for index, (source, *rest) in enumerate(old):
        sources = source if isinstance(source, list) else [source]
        read = [_renumbered(f, index, plan.after, moved, rewire) for f in sources]
        rows.append([read if isinstance(source, list) else read[0], *rest])
        if index in plan.after:
            rows.append(_row(-1, layer, SAME, arguments))
    plan.backbone += sum(index < plan.backbone for index in plan.after)
    plan.rows = rows
    for index in plan.after:
        number = moved[index] + 1
        reads = [[row[0]] if isinstance(row[0], int) else row[0] for row in rows]
        if not any(f == number or (f < 0 and at + f == number) for at, read in enumerate(reads) for f in read):
            raise plan.error(f"reads row {index} by its number alone: rewire=False would leave the layer unread")


def _renumbered(f: int, index: int, after: list[int], moved: list[int], rewire: bool) -> int:
    """What row `index` reads, when rows have been put in: `f` is what it reads now."""
    if f == -1:
        return f  # the row before it, or the layer that now stands there
    target = f if f >= 0 else index + f
    return moved[target] + (rewire and target in after)


def put_before_head(plan: Plan, layer: str, arguments: dict[str, Any]) -> None:
    """Put a row of the layer before each input of the head.

    The rows go after the last row of the neck. So all rows of the backbone and the neck keep their numbers, and with
    them the names by which the weights of a stock checkpoint are found.
    """
    *body, (sources, *head) = plan.rows
    read = [source % len(body) for source in sources]
    rows = [_row(index, layer, _channels(plan.rows, index), arguments) for index in read]
    plan.rows = [*body, *rows, [list(range(len(body), len(body) + len(rows))), *head]]


def _row(source: int, layer: str, c2: Any, arguments: dict[str, Any]) -> list[Any]:
    return [source, 1, layer, [c2, *([dict(arguments)] if arguments else [])]]


def _channels(rows: list[Any], index: int) -> Any:
    """The unscaled output channels of a row if they stand in it, or in one whose map it passes on; else "same"."""
    source, _, module, args = rows[index]
    if module in ("nn.Upsample", "nn.Identity"):
        return _channels(rows, source + index if source < 0 else source)
    kind = registry.get(module)
    declares = kind is not None and declares_channels(kind)  # its first argument may be anything
    return SAME if declares or not args or type(args[0]) is not int else args[0]
