"""Ablations of "Dynamic Mobile-Former" on DMF-XXS, Tables 3, 6, 7 and 8: the paper's parameters and those built here.

Table 3 does not say what its dynamic convolutions without the residual are. Its counts are those of four kernels in
place of eight and one; the text (Sec. 4.3) says that they are those of DynamicConv, so the attention is a softmax. The
counts of Table 8 do not follow from K in all of the network's dynamic convolutions: one kernel of each has 0.49 M
parameters, where the table has 0.26 M.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from yolo_dyn.stock import load_model

PLAIN = {"residual": False, "init": "random", "activation": "softmax", "num_experts": 4}


@dataclass(frozen=True)
class Ablation:
    """A row of a table: the paper's parameters in millions, and the options of the network's dynamic convolutions."""

    table: int
    name: str
    params: float
    options: dict[str, Any]

    def build(self) -> nn.Module:
        """The network on the meta device, which is enough to count."""
        with torch.device("meta"):
            net: Any = load_model("dmf-xxs-cls.yaml")
            return type(net)({**net.yaml, "defaults": defaults(self.options)}, verbose=False)


def defaults(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The `defaults:` of a model YAML that give these options to all dynamic convolutions of a DMF."""
    return {"DMFBlock": options, "DMFHead": options}


ABLATIONS = (
    Ablation(3, "neither", 10.0, {**PLAIN, "token": False}),
    Ablation(3, "attention features (AFKA)", 12.6, PLAIN),
    Ablation(3, "residual (RCKS)", 12.4, {"token": False}),
    Ablation(3, "both", 15.1, {}),
    Ablation(6, "softmax", 15.1, {"activation": "softmax"}),
    Ablation(6, "sigmoid", 15.1, {"activation": "sigmoid"}),
    Ablation(7, "random", 15.1, {"init": "random"}),
    Ablation(7, "zero", 15.1, {"init": "zero"}),
    Ablation(8, "K = 4", 14.0, {"num_experts": 4}),
    Ablation(8, "K = 6", 14.6, {"num_experts": 6}),
    Ablation(8, "K = 8", 15.1, {"num_experts": 8}),
)


def ablations() -> str:
    """The paper's parameters and those built here, in millions, a line a row."""
    lines = []
    for row in ABLATIONS:
        params = sum(p.numel() for p in row.build().parameters()) / 1e6
        agrees = "=" if round(params, 1) == row.params else f"{params - row.params:+.1f}"
        lines.append(f"{f'DMF-XXS, Table {row.table}, {row.name}':<44}{row.params:>6.1f}{params:>12.3f}  {agrees}")
    return "\n".join(lines)
