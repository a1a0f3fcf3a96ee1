"""Plug-and-play: put a registered layer anywhere into a model, or in the place of its convolutions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from ultralytics.utils import LOGGER

from yolo_dyn import registry
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import places, replacing, trained
from yolo_dyn.integration.api import stock_yaml
from yolo_dyn.integration.model_yaml import check_parts
from yolo_dyn.integration.places import Plan
from yolo_dyn.integration.rows import Row
from yolo_dyn.output.arguments import Names, checked
from yolo_dyn.output.files import bundled_folder, bundled_names, check_folder, check_new, is_yaml, write_text

if TYPE_CHECKING:
    from ultralytics import YOLO


@checked
def insert(
    model: str,
    layer: str,
    out: str | None = None,
    exist_ok: bool = False,
    at: Names | None = None,
    replace: Names | None = None,
    rewire: bool = True,
    **arguments: Any,
) -> Path:
    """Put a layer into a model, before each input of its head or elsewhere: write the YAML, and the new checkpoint.

    Args:
        model: a stock model YAML by bare name, with or without its scale letter, or a path; or a trained ``.pt``.
        layer: YAML name of a registered layer, which keeps the channels where it is inserted.
        out: the YAML to write; ``<model>-<layer>.yaml`` in the working folder by default. The checkpoint of a
            checkpoint has its name, and ends in ``.pt``.
        exist_ok: replace files that exist.
        at: where: head (before each of its inputs, the default), backbone_end, p2 to p7 (after the last row whose map
            is 1/4 to 1/128 of the image), numbers of rows, or names of modules such as C2f (after each).
        replace: in place of inserting, let the layer replace the convolutions larger than 1x1 of these rows: their
            numbers or the names of their modules, all_3x3 for all rows before the head, or first_3x3 for the first one
            of each of their blocks.
        rewire: let rows that read a chosen row by its number read the inserted layer instead.
        **arguments: the layer's own, written into its rows. ``gate=zero`` or ``gate=scalar`` lets an inserted layer
            start as if it were not there. It is the default for a checkpoint; ``gate=none`` goes without.

    Returns:
        The checkpoint that was written, of a checkpoint; else the YAML.

    Raises:
        YoloDynError: for an unknown layer, place or argument, a layer that cannot stand there, a checkpoint that is
            fused, or a file that exists.
    """
    at, replace = _names(at), _names(replace)
    if at is not None and replace is not None:
        raise YoloDynError(f"at is for layers that are inserted, not for replace={','.join(replace)}")
    from_checkpoint = Path(model).suffix == ".pt"
    if from_checkpoint:
        source = trained.opened(model)
        trained.check_unfused(source, model)
        content, name = trained.content(source), Path(model).name
        if replace is None:
            arguments = {"gate": "zero", **arguments}
    else:
        file = stock_yaml(model)
        content, name = yaml.safe_load(file.read_text(encoding="utf-8")), file.name
    text = insert_rows(content, layer, arguments, name, at, replace, rewire)
    written = Path(out or f"{Path(name).stem}-{layer.lower()}.yaml")
    if not is_yaml(written):
        raise YoloDynError(f"out must name a YAML file, got {str(written)!r}")
    for made in (written, *([written.with_suffix(".pt")] if from_checkpoint else [])):
        check_new(made, exist_ok)
    check_folder(written)
    if from_checkpoint:
        trained.transfer(source, yaml.safe_load(text), written, static=replace is not None)
    write_text(written, text, "out")
    if not from_checkpoint and _shadows(written):
        LOGGER.warning(
            f"from its folder, {written} is read in place of the YAML of that name that comes with the package"
        )
    return written.with_suffix(".pt") if from_checkpoint else written


def equip(model: str, layer: str, out: str | None = None, exist_ok: bool = False, **arguments: Any) -> "YOLO":
    """Put a layer into a model, as `insert` does, and open it: ``equip("yolo11n.pt", "SGDM").train(data="coco.yaml")``.

    Args:
        model: a trained ``.pt``, or a model YAML with its scale letter.
        layer: YAML name of a registered layer.
        out: the YAML to write, as in `insert`.
        exist_ok: replace files that exist.
        **arguments: all else that `insert` takes.

    Raises:
        YoloDynError: as `insert` does.
    """
    from ultralytics import YOLO

    written = insert(model, layer, out=out, exist_ok=exist_ok, **arguments)
    if written.suffix == ".pt" or out:
        return YOLO(written)
    return YOLO(f"{Path(model).stem}-{layer.lower()}.yaml")  # with its scale, which is read from the name


def insert_rows(
    model: dict[str, Any],
    layer: str,
    arguments: dict[str, Any] | None = None,
    name: str = "model.yaml",
    at: Sequence[str] | None = None,
    replace: Sequence[str] | None = None,
    rewire: bool = True,
) -> str:
    """Return the text of a model YAML with a layer in it; by default, before each input of its detection head.

    Args:
        model: the YAML's content.
        layer: YAML name of a registered layer; one that keeps the channels, unless it replaces convolutions.
        arguments: the layer's own keyword arguments.
        name: of the YAML, for messages and the header comment.
        at, replace, rewire: see `insert`.

    Raises:
        YoloDynError: for an unknown layer, argument or place.
    """
    arguments = arguments or {}
    check_parts(model, name)
    if replace is not None:
        registry.require(layer, "convolution")
        plan = replacing.planned(model, layer, replace, arguments, name)
        did, keys = f"{layer} in {_listed(replace)}", {"replace": ",".join(replace)}
    else:
        registry.require(layer, "convolution", "module")
        plan = places.planned(model, at or ["head"], name)
        if plan.after:
            places.put_in(plan, layer, arguments, rewire)
        if plan.at_head:
            places.put_before_head(plan, layer, arguments)
        for index, row in enumerate(plan.rows):  # raises for arguments that do not fit the layer
            if row[2] == layer:
                Row.read(row, index, name, model.get("nc")).build(64, 64)
        did = f"{layer} before each input of {plan.head[2]}" if plan.at_head else f"{layer} after {_listed(at or [])}"
        keys = {} if at is None else {"at": ",".join(map(str, at))}
        if plan.after:
            did += "; what read the row before it by number reads " + ("it" if rewire else "that row still")
            keys |= {} if rewire else {"rewire": "False"}
    command = f"yolo-dyn insert model={name} layer={layer}"
    words = " ".join([command, *(f"{key}={value}" for key, value in {**keys, **arguments}.items())])
    return _text(model, plan, f"{Path(name).stem} with {did}", words)


def _names(given: list[str] | str | None) -> list[str] | None:
    """A list, of Python's callers too, who may write one name or several with commas."""
    return given.split(",") if isinstance(given, str) else given


def _listed(places: Sequence[Any]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, places[:-1])), str(places[-1])]))


def _shadows(file: Path) -> bool:
    """Whether a file has the name of one that comes with the package."""
    return file.name in bundled_names() and not file.resolve().is_relative_to(bundled_folder("models_yaml").resolve())


def _text(model: dict[str, Any], plan: Plan, did: str, command: str) -> str:
    """The YAML's text, in the order of the model's own keys, with a row a line and its number behind it."""
    lines = [f"# {did}. Written by", f"#   {command}"]
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
    for section, first, last in (("backbone", 0, plan.backbone), ("head", plan.backbone, len(plan.rows))):
        lines += ["", f"{section}: # [from, repeats, module, arguments]"]
        lines += [f"  - {_flow(plan.rows[index])} # {index}" for index in range(first, last)]
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """A value on one line, as YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("...\n").strip()
