"""What the papers print of a model that comes with the package: parameters and GFLOPs, out of the study files."""

from decimal import Decimal
from pathlib import Path

from yolo_dyn.study.definition import read_study, studies

Figures = tuple[Decimal, Decimal]  # parameters in millions, GFLOPs


def figures(model: str) -> list[tuple[str, Figures, Figures]]:
    """The tables that hold a model, named like its YAML (yolov8n-sgdm): table, baseline, with the layer.

    The baseline is what the table compares it with. Tables that repeat the figures of an earlier one are left out.
    """
    found: dict[tuple[Figures, Figures], str] = {}
    for study in map(read_study, studies()):
        for name, arm in study.arms.items():
            to = study.compared_to(name)
            if Path(arm.model).stem != model or arm.options or not to:
                continue
            printed = [(each["params"], each["gflops"]) for each in (study.arms[to].paper, arm.paper) if _both(each)]
            if len(printed) == 2:
                found.setdefault((printed[0], printed[1]), study.paper.rpartition(", ")[2])
    return [(table, baseline, own) for (baseline, own), table in found.items()]


def _both(paper: dict[str, Decimal]) -> bool:
    return {"params", "gflops"} <= paper.keys()
