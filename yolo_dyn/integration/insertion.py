"""Plug-and-play: put a registered layer before each input of the head of any Ultralytics model YAML."""

from pathlib import Path
from typing import Any

import yaml
from ultralytics.utils import LOGGER

from yolo_dyn import registry
from yolo_dyn.errors import MissingFileError, YoloDynError
from yolo_dyn.integration.api import detection_heads, stock_yaml
from yolo_dyn.integration.model_yaml import check_parts
from yolo_dyn.integration.rows import Row
from yolo_dyn.layers.protocol import declares_channels
from yolo_dyn.output.arguments import checked
from yolo_dyn.output.files import bundled_folder, bundled_names, check_new, write_text


@checked
def insert(model: str, layer: str, out: str | None = None, exist_ok: bool = False, **arguments: Any) -> Path:
    """Write the YAML of a model with a layer before each input of its detection head.

    Args:
        model: a stock model YAML by bare name, with or without its scale letter, or a path.
        layer: YAML name of a registered layer that keeps the channels.
        out: the file to write; ``<model>-<layer>.yaml`` in the working folder by default.
        exist_ok: replace a file that exists.
        **arguments: the layer's own, written into its rows.

    Returns:
        The file that was written.

    Raises:
        YoloDynError: for an unknown layer or argument, a YAML without such a head, or a file that exists.
    """
    source = stock_yaml(model)
    text = insert_rows(yaml.safe_load(source.read_text(encoding="utf-8")), layer, arguments, name=source.name)
    file = Path(out or f"{source.stem}-{layer.lower()}.yaml")
    check_new(file, exist_ok)
    if not file.parent.is_dir():
        raise MissingFileError(f"the folder {file.parent} of out={file} does not exist")
    write_text(file, text, "out")
    if file.name in bundled_names() and not file.resolve().is_relative_to(bundled_folder("models_yaml").resolve()):
        LOGGER.warning(f"from its folder, {file} is read in place of the YAML of that name that comes with the package")
    return file


def insert_rows(
    model: dict[str, Any], layer: str, arguments: dict[str, Any] | None = None, name: str = "model.yaml"
) -> str:
    """Return the text of a model YAML with a layer before each input of its detection head.

    The rows go after the last row of the neck. So all rows of the backbone and the neck keep their numbers, and with
    them the names by which the weights of a stock checkpoint are found.

    Args:
        model: the YAML's content.
        layer: YAML name of a registered layer that keeps the channels.
        arguments: the layer's own keyword arguments.
        name: of the YAML, for messages and the header comment.

    Raises:
        YoloDynError: for an unknown layer or argument, or a YAML without such a head.
    """
    arguments = arguments or {}
    registry.require(layer, "convolution", "module")
    check_parts(model, name)
    rows = [*model["backbone"], *model["head"]]
    heads = detection_heads()
    if not rows or rows[-1][2] not in heads:
        found = f"its last row is {rows[-1][2]}" if rows else "it has no rows"
        raise YoloDynError(f"{name} has no head to insert before: {found}; accepted: {', '.join(heads)}")
    *body, (sources, repeats, head, head_args) = rows
    inserted = []
    for source in sources:
        index = source % len(body)
        row = [index, 1, layer, [_channels(rows, index, name), *([arguments] if arguments else [])]]
        inserted.append(row)
        Row.read(row, len(body), name, model.get("nc")).build(64, 64)  # raises for arguments that do not fit the layer
    numbers = list(range(len(body), len(body) + len(inserted)))
    backbone = model["backbone"]
    neck = [*body[len(backbone) :], *inserted, [numbers, repeats, head, head_args]]
    return _write({**model, "backbone": backbone, "head": neck}, layer, arguments, name)


def _channels(rows: list[Any], index: int, name: str) -> Any:
    """The unscaled output channels of a row, which stand in its arguments or in those of a row that it passes on."""
    source, _, module, args = rows[index]
    if module in ("nn.Upsample", "nn.Identity"):
        return _channels(rows, source + index if source < 0 else source, name)
    kind = registry.get(module)
    declares = kind is not None and declares_channels(kind)  # its first argument may be anything
    if declares or not args or not isinstance(args[0], int) or isinstance(args[0], bool):
        raise YoloDynError(
            f"{name}, row {index} ({module}): an input of the head whose channels do not stand in its row"
        )
    return args[0]


def _write(model: dict[str, Any], layer: str, arguments: dict[str, Any], name: str) -> str:
    head = model["head"][-1][2]
    command = " ".join([f"yolo-dyn insert model={name} layer={layer}", *(f"{k}={v}" for k, v in arguments.items())])
    lines = [f"# {Path(name).stem} with {layer} before each input of {head}. Written by", f"#   {command}"]
    if model.get("scales"):
        scales = "".join(model["scales"])
        lines.append(f"# The name that a command is given chooses the scale: one of {scales} after the version number.")
    lines.append("")
    for key, value in model.items():
        if key == "scales":
            lines.append("scales: # [depth, width, max_channels]")
            lines += [f"  {scale}: {_flow(numbers)}" for scale, numbers in value.items()]
        elif key not in ("backbone", "head"):
            lines.append(f"{key}: {_flow(value)}")
    index = 0
    for section in ("backbone", "head"):
        lines += ["", f"{section}: # [from, repeats, module, arguments]"]
        for row in model[section]:
            lines.append(f"  - {_flow(row)} # {index}")
            index += 1
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """A value on one line, as YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("...\n").strip()
