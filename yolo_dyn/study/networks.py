"""The networks of a study's arms: their YAML, with the options that an arm gives a layer; built, and counted."""

import copy
import functools
from pathlib import Path
from typing import Any

import torch
import yaml

from yolo_dyn import registry
from yolo_dyn.bench.flops import MultiplyAdds
from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.integration.api import load_model, stock_yaml
from yolo_dyn.output.files import variant, write_text
from yolo_dyn.study.columns import COLUMNS, COUNTED
from yolo_dyn.study.definition import Arm, Study


def model_file(arm: Arm, name: str, folder: Path) -> str:
    """The YAML of an arm's network: its model's, or one written to a folder with the arm's options in its rows.

    Args:
        arm: the arm.
        name: its name, which a written file ends in; the model's name, with the letter of its scale, stands before it.
        folder: for the written file.

    Raises:
        YoloDynError: if the model's YAML is missing, or has no row of a layer that options are for.
    """
    if not arm.options:
        return arm.model
    source, options = stock_yaml(arm.model), dict(arm.options)
    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    if source.name != Path(arm.model).name and (named := variant(Path(arm.model).name)[1]):  # the width, the stem
        options["TorchvisionBackbone"] = {**named, **options.get("TorchvisionBackbone", {})}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{Path(arm.model).stem}-{name}.yaml"
    text = yaml.safe_dump(with_options(content, options, arm.model), sort_keys=False, default_flow_style=None)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        write_text(file, text)  # whole: others may be reading it
    return str(file)


def with_options(content: dict[str, Any], options: dict[str, Any], file: str) -> dict[str, Any]:
    """A model's content with options in all rows of a layer: ``{SGDM: {razor_ratio: 0.25}}``.

    Raises:
        YoloDynError: if no row has the layer.
    """
    content = copy.deepcopy(content)
    rows = [*content["backbone"], *content["head"]]
    for layer, values in options.items():
        chosen = [row for row in rows if row[2] == layer]
        if not chosen:
            names = sorted({row[2] for row in rows})
            raise YoloDynError(f"{file} has no row of {layer!r}{nearest(layer, names)} (it has {', '.join(names)})")
        for row in chosen:
            *arguments, last = row[3] or [None]
            row[3] = [*arguments, {**last, **values}] if isinstance(last, dict) else [*row[3], dict(values)]
    return content


def counts(study: Study, name: str, folder: Path) -> dict[str, float]:
    """What columns say that need no training: parameters, and multiply-adds for one image."""
    counted = [column for column in study.columns if COLUMNS[column].kind == COUNTED]
    if not counted:
        return {}
    arm = study.arms[name]
    found = _module_counts(study, arm) if study.module else {}
    if set(counted) <= set(found):
        return found
    file = model_file(arm, name, folder)
    imgsz = study.imgsz if set(counted) & {"gflops", "madds", "gmadds"} else 0
    params, adds = _numbers(file, stock_yaml(file).read_bytes(), study.task, study.classes, imgsz, study.besides)
    return found | {"params": params / 1e6, "gflops": 2 * adds / 1e9, "madds": adds / 1e6, "gmadds": adds / 1e9}


@functools.lru_cache(maxsize=256)  # a page asks for what the arms before it asked for
def _numbers(file: str, content: bytes, task: str, classes: int, imgsz: int, besides: bool) -> tuple[int, int]:
    """Parameters of a YAML's network, and its multiply-adds for an image of `imgsz`, 0 if that is 0.

    `content` is the file's, so that a changed file is counted anew.
    """
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel("WARNING")  # without the summary that is logged of each network
    try:
        # counting needs no storage; but a detector's head asks for the values of its strides
        with torch.device("cpu" if task == "detect" else "meta"):
            model = load_model(file, classes)
    finally:
        LOGGER.setLevel(level)
    params = sum(p.numel() for p in model.parameters())
    if not imgsz:
        return params, 0
    image = torch.zeros(1, 3, imgsz, imgsz, device=next(model.parameters()).device)
    with torch.no_grad(), MultiplyAdds(besides) as counter:
        model.eval()(image)
    return params, counter.total


def _module_counts(study: Study, arm: Arm) -> dict[str, float]:
    """Of one layer alone, on a map of the shape that the study names, ``[B, C, H, W]``."""
    name, shape = study.module["layer"], study.module["shape"]
    layer = registry.get(name)
    if layer is None or not (arm.options or name.lower() in arm.model):
        return {}
    with torch.device("meta"):
        module = layer(shape[1], shape[1], **arm.options.get(name, {})).eval()
        with torch.no_grad(), MultiplyAdds() as counter:
            module(torch.zeros(shape))
    params = sum(p.numel() for p in module.parameters())
    return {"module_params": params / 1e6, "module_gflops": 2 * counter.total / 1e9}
