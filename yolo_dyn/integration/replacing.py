"""Rows of a model YAML that are to have a dynamic convolution in place of their own: ``{dynamic: Name, ...}``."""

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from yolo_dyn.errors import nearest
from yolo_dyn.integration.places import Plan, built
from yolo_dyn.integration.rows import ALL, FIRST, larger_convolutions


def planned(model: dict[str, Any], layer: str, chosen: Sequence[str], arguments: dict[str, Any], name: str) -> Plan:
    """Write the layer into the chosen rows.

    Raises:
        YoloDynError: for rows that are not there, or that have no convolution to replace.
    """
    plan = Plan(name, copy.deepcopy([*model["backbone"], *model["head"]]), len(model["backbone"]))
    with torch.device("meta"):
        rows, _ = built(model)
    options = {"dynamic": layer, **arguments}
    for place in map(str, chosen):
        where = {"where": FIRST} if place == FIRST else {}
        for index in _rows(plan, place, rows):
            row = plan.rows[index]
            given = row[3][-1] if row[3] and isinstance(row[3][-1], dict) else {}
            row[3] = [*(row[3][:-1] if given else row[3]), {**given, **options, **where}]
    parts = {"backbone": plan.rows[: plan.backbone], "head": plan.rows[plan.backbone :]}
    with torch.device("meta"):
        built({**model, **parts, "yaml_file": name})  # raises for arguments that do not fit the layer
    return plan


def _rows(plan: Plan, place: str, modules: nn.Sequential) -> list[int]:
    """The rows that a word names, all with something to replace."""
    able = [index for index, module in enumerate(modules) if larger_convolutions(module)]
    blocks = [index for index in able if len(larger_convolutions(modules[index])) > 1]
    last = len(plan.rows) - 1  # the head, which must be asked for by its name
    if place in (ALL, FIRST):
        return [index for index in (able if place == ALL else blocks) if index < last]
    number = int(place) if re.fullmatch(r"\d+", place) else None
    found = [index for index, row in enumerate(plan.rows) if number == index or row[2] == place]
    if not found:
        names = sorted({plan.rows[index][2] for index in able})
        raise plan.error(
            f"has no row {place!r}{nearest(place, [ALL, FIRST, *names])}; accepted for replace: {ALL}, {FIRST}, "
            f"numbers of rows, or {', '.join(names)}"
        )
    found = [index for index in found if index in able]
    if not found:
        raise plan.error(f"has no convolution larger than 1x1 that sees all channels in {place}")
    return found
