"""Files and checkpoints: bundled YAMLs are found by name, restricted loading knows our layers, weights move by row."""

import copy
import difflib
import inspect
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from yaml import YAMLError

from yolo_dyn import layers, registry
from yolo_dyn.errors import MissingFileError, YoloDynError, first_line, nearest
from yolo_dyn.integration import annealing, probes, warm_start
from yolo_dyn.integration.model_yaml import asks_for_ours, check_parts
from yolo_dyn.layers.protocol import RemembersOptions
from yolo_dyn.output import files


def check_file(stock: Callable) -> Callable:
    """Wrap the stock search for files: if it finds none, the YAMLs that this package brings are asked."""

    def check_file(file: str | Path, *args: Any, **kwargs: Any) -> Any:
        try:
            found = stock(file, *args, **kwargs)
        except FileNotFoundError as error:
            ours = files.find_yaml(file)
            if ours is None and files.is_yaml(file):
                names = files.bundled_names()
                hint = nearest(str(file), names)
                raise MissingFileError(f"{error}{hint} (yolo_dyn brings {', '.join(names)})") from error
            if ours is None:
                raise
            return str(ours)
        return found or str(files.find_yaml(file) or "") or found

    return check_file


def yaml_model_load(stock: Callable) -> Callable:
    """Wrap the stock reading of model YAMLs: its parts are checked, since the stock models look into them at once.

    What a name says about a backbone (`files.variant`) goes to its row.
    """

    def yaml_model_load(path: str | Path) -> dict[str, Any]:
        try:
            d = stock(path)
        except YoloDynError:
            raise
        except (ValueError, TypeError, AttributeError, YAMLError) as error:  # of a file that is no YAML, or no mapping
            told = first_line(error)
            ours = told if isinstance(error, ValueError) else f"{path} is not a valid YAML mapping: {told}"
            raise YoloDynError(ours) from error
        if asks_for_ours(d):
            probes.require()
        elif probes.is_untested():
            return d
        check_parts(d, str(path))
        options, found = files.variant(Path(path).name)[1], files.find_yaml(path)
        if options and found and found.name != Path(path).name:
            given = d.get("defaults") or {}
            d["defaults"] = {**given, "TorchvisionBackbone": {**given.get("TorchvisionBackbone", {}), **options}}
        return d

    return yaml_model_load


def torch_safe_load(stock: Callable) -> Callable:
    """Wrap the stock loading of checkpoints: a restricted load accepts our layers; earlier defaults get named."""

    def torch_safe_load(*args: Any, **kwargs: Any) -> Any:
        if hasattr(torch.serialization, "add_safe_globals"):  # only a restricted load asks for them
            registered = registry.all_layers().values()  # which imports their files, and the parts that are in them
            own = [
                kind for module in vars(layers).values() if inspect.ismodule(module) for kind in vars(module).values()
            ]
            own = [kind for kind in own if inspect.isclass(kind) and issubclass(kind, nn.Module)]
            torch.serialization.add_safe_globals([*own, *registered])
        found = stock(*args, **kwargs)
        checkpoint = found[0] if isinstance(found, tuple) else found
        for key in ("model", "ema") if isinstance(checkpoint, dict) else ():
            if isinstance(checkpoint.get(key), nn.Module) and registry.in_model(checkpoint[key]):
                probes.require()
            if isinstance(getattr(checkpoint.get(key), "yaml", None), dict):
                name_earlier_defaults(checkpoint[key])
        return found

    return torch_safe_load


def name_earlier_defaults(model: nn.Module) -> None:
    """Write into a model's YAML what its layers were built with if a row names nothing and the default has changed.

    Training goes on from a checkpoint with a model built anew from its YAML: it must be the same model.
    """
    content: Any = model.yaml
    if not isinstance(model.model, nn.Sequential) or not {"backbone", "head"} <= content.keys():
        return
    content = {**content, "backbone": copy.deepcopy(content["backbone"]), "head": copy.deepcopy(content["head"])}
    for raw, row in zip([*content["backbone"], *content["head"]], model.model, strict=False):
        options = _unnamed_options(row)
        arguments = raw[3]
        named = arguments[-1] if arguments and isinstance(arguments[-1], dict) else {}
        if options and (raw[2] in registry.names() or "dynamic" in named):
            raw[3] = [*(arguments[:-1] if named else arguments), {**options, **named}]
    model.yaml = content


def _unnamed_options(row: nn.Module) -> dict[str, Any]:
    """What the layers of a row say of their options."""
    options: dict[str, Any] = {}
    for module in row.modules():
        options |= module.unnamed_options() if isinstance(module, RemembersOptions) else {}
    return options


def load(stock: Callable) -> Callable:
    """Wrap the stock transfer of weights: rows are matched though rows were inserted before them."""

    def load(self: nn.Module, weights: Any, *args: Any, **kwargs: Any) -> Any:
        source = (weights.get("ema") or weights.get("model")) if isinstance(weights, dict) else weights
        if isinstance(source, nn.Module) and (registry.in_model(self) or registry.in_model(source)):
            probes.require()
            weights = aligned(source, self)
            annealing.copy_temperatures(weights, self)
            moved = stock(self, weights, *args, **kwargs)
            warm_start.log_start(*warm_start.start_from_static(weights, self))
            return moved
        return stock(self, weights, *args, **kwargs)

    return load


def aligned(source: nn.Module, target: nn.Module) -> nn.Module:
    """Renumber the rows of `source` like the same rows of `target`, which has rows inserted, replaced or left out.

    Weights are matched by name, and the row's number is part of it: inserting rows before the head moves the head.
    """
    if not isinstance(getattr(source, "model", None), nn.Sequential):
        return source
    old: Any = source.model
    new: Any = target.model
    kinds = [[row.type for row in rows] for rows in (old, new)]
    steps = difflib.SequenceMatcher(None, kinds[0], kinds[1], autojunk=False).get_opcodes()
    number = {
        first + k: of + k
        for step, first, last, of, end in steps
        for k in range(last - first)
        if step == "equal" or (last - first == end - of and registry.in_model(new[of + k]))  # in its place
    }
    rows = OrderedDict((str(number.get(i, f"unmatched{i}")), row) for i, row in enumerate(old))
    aligned = copy.copy(source)
    aligned._modules = {**source._modules, "model": nn.Sequential(rows)}
    return aligned
