"""The only file that touches Ultralytics' internals: it teaches an untouched Ultralytics our layers.

Ultralytics' `parse_model` decides channels by a set that is local to the function. So a registered row is rewritten to
a stock host in a copy of the model dict, the stock parser resolves channels, width and repeats, and the built host is
replaced by the layer. The original dict stays in the model and its checkpoints, so they rebuild wherever this package
is installed.
"""

import contextlib
import copy
import difflib
import functools
import inspect
import logging
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from yolo_dyn import anneal, exporting, files, layers, registry
from yolo_dyn.errors import MissingFileError, YoloDynError, nearest, own_error
from yolo_dyn.rows import Channels, Row, StockRow

VALIDATED = ("8.4.130", "8.4.190")  # the oldest and the newest Ultralytics that the tests pass with


def integrate() -> None:
    """Teach the imported Ultralytics the registered layers. Calling it again changes nothing."""
    import ultralytics.nn.tasks as tasks
    from ultralytics.utils import checks, torch_utils

    _replace(tasks, "parse_model", _parse_model)
    _replace(checks, "check_file", _check_file)
    if _is_validated():
        _replace(tasks, "torch_safe_load", _torch_safe_load)
        _replace(torch_utils, "get_flops", _get_flops)
        _replace(tasks.BaseModel, "load", _load)
        _replace(tasks.BaseModel, "fuse", _fuse)
        _add_callbacks()
    if Path(sys.argv[0]).stem in ("yolo", "ultralytics"):
        sys.excepthook = _excepthook


def _replace(owner: Any, name: str, wrap: Callable[[Callable], Callable]) -> None:
    """Wrap a stock function where it is defined and in every Ultralytics module that has imported it by name."""
    stock = getattr(owner, name)
    if hasattr(stock, "_yolo_dyn"):
        return
    wrapped = functools.wraps(stock)(wrap(stock))
    wrapped._yolo_dyn = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapped)
    for module in [module for key, module in sys.modules.items() if key.split(".")[0] == "ultralytics"]:
        if vars(module).get(name) is stock:
            setattr(module, name, wrapped)


def _add_callbacks() -> None:
    """Trainers and exporters start with a copy of these: from the command, Python, or processes of several GPUs."""
    from ultralytics.utils.callbacks.base import default_callbacks

    for callback in (anneal.on_train_epoch_start, exporting.on_export_start):
        if callback not in default_callbacks[callback.__name__]:
            default_callbacks[callback.__name__].append(callback)


# versions and errors -------------------------------------------------------------------------------------------------


def _is_validated() -> bool:
    from ultralytics import __version__
    from ultralytics.utils.checks import parse_version

    return parse_version(VALIDATED[0]) <= parse_version(__version__) <= parse_version(VALIDATED[1])


def _require_validated() -> None:
    if not _is_validated():
        from ultralytics import __version__

        from yolo_dyn import __version__ as ours

        raise YoloDynError(
            f"yolo-dyn {ours} is validated with ultralytics {VALIDATED[0]} to {VALIDATED[1]}, found {__version__}. "
            f'Install one of them, pip install "ultralytics>={VALIDATED[0]},<={VALIDATED[1]}", or another yolo-dyn'
        )


def _excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """In the stock command, show our errors as one line, without a traceback."""
    ours = own_error(error)
    if ours is not None:
        print(f"yolo-dyn: error: {ours}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


# building from YAML --------------------------------------------------------------------------------------------------


def _parse_model(stock: Callable) -> Callable:
    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True) -> tuple[nn.Sequential, list[int]]:
        rows, converted = _registered_rows(d), _converted_rows(d)
        if not rows and not converted:
            return stock(d, ch, verbose)
        _require_validated()
        return _build(stock, d, ch, verbose, rows, converted)

    return parse_model


def _registered_rows(d: dict[str, Any]) -> list[Row]:
    """The rows that name registered layers. Raises for a name that neither we nor Ultralytics know."""
    import ultralytics.nn.tasks as tasks

    file = str(d.get("yaml_file") or "model dict")
    rows = []
    for index, raw in enumerate([*d["backbone"], *d["head"]]):
        name = raw[2] if isinstance(raw, list) and len(raw) == 4 else None
        if not isinstance(name, str) or name.startswith(("nn.", "torchvision.")):
            continue  # whatever is wrong with it is for the stock parser to say
        stock = hasattr(tasks, name)
        if name in registry.names():
            if stock:
                raise YoloDynError(f"{file}, row {index}: the registered name {name!r} is taken by Ultralytics' {name}")
            rows.append(Row.read(raw, index, file, d.get("nc")))
        elif not stock:
            modules = [
                key for key, value in vars(tasks).items() if inspect.isclass(value) and issubclass(value, nn.Module)
            ]
            known = ", ".join(registry.names())
            hint = nearest(name, [*registry.names(), *modules])
            raise YoloDynError(f"{file}, row {index}: unknown layer {name!r}{hint} (yolo_dyn knows {known})")
    return rows


def _converted_rows(d: dict[str, Any]) -> list[StockRow]:
    """Ultralytics' own rows that ask for a dynamic layer in place of their convolutions."""
    file = str(d.get("yaml_file") or "model dict")
    rows = [StockRow.read(raw, index, file) for index, raw in enumerate([*d["backbone"], *d["head"]])]
    return [row for row in rows if row is not None]


def _build(
    stock: Callable, d: dict[str, Any], ch: int, verbose: bool, rows: list[Row], converted: list[StockRow]
) -> tuple[nn.Sequential, list[int]]:
    """Let the stock parser build hosts in place of the rows, then replace each host by its layer."""
    hosted = {**d, "backbone": copy.deepcopy(d["backbone"]), "head": copy.deepcopy(d["head"])}
    for stock_row in converted:
        arguments = [*hosted["backbone"], *hosted["head"]][stock_row.index][3]
        arguments.pop()  # the keywords, which the stock parser does not know
    inputs = _put_hosts(stock, hosted, ch, rows)
    with _captured_table() as lines:
        model, save = stock(hosted, ch, verbose)
    first = len(lines) - len(model)  # the table ends with one line a row
    for stock_row in converted:
        host = model[stock_row.index]
        stock_row.convert(host)
        host.np = sum(p.numel() for p in host.parameters())
        if verbose:
            lines[first + stock_row.index] += f" {stock_row.options_text}"
    for row in rows:
        host = model[row.index]
        if row.declares_channels:
            layer = row.build(inputs[row.index], 0)
        else:
            convs: list[Any] = list(host) if isinstance(host, nn.Sequential) else [host]
            layer = row.build(convs[0].conv.in_channels, convs[0].conv.out_channels, len(convs))
        layer.i, layer.f = row.index, row.source  # type: ignore[assignment]
        layer.type = f"{row.layer.__module__}.{row.layer.__qualname__}"  # type: ignore[assignment]
        layer.np = sum(p.numel() for p in layer.parameters())  # type: ignore[assignment]
        model[row.index] = layer
        sources = row.source if isinstance(row.source, list) else [row.source]
        save = sorted({*save, *(f % row.index for f in sources if f != -1)})
        if verbose:
            args = [*row.args, row.options] if row.options else row.args
            lines[first + row.index] = (
                f"{row.index:>3}{row.source!s:>20}{row.repeats:>3}{layer.np:10.0f}  {layer.type:<45}{args!s:<30}"
            )
    _log(lines)
    return model, save


def _put_hosts(stock: Callable, hosted: dict[str, Any], ch: int, rows: list[Row]) -> dict[int, Channels]:
    """Put a stock row in the place of each of ours; return the input channels of those that declare their output."""
    inputs: dict[int, Channels] = {}
    declared: dict[int, Channels] = {}
    for row in rows:
        if row.declares_channels:
            inputs[row.index] = _input_channels(stock, hosted, ch, row, declared)
            c2 = declared[row.index] = row.out_channels(inputs[row.index])
            host = [-1, 1, "Index", [c2 if isinstance(c2, int) else sum(c2), 0]]  # its channels are taken as they are
        else:
            host = [row.source, row.repeats, "Conv", [row.args[0]]]  # its channels are scaled by the width
        in_backbone = row.index < len(hosted["backbone"])
        section, at = ("backbone", row.index) if in_backbone else ("head", row.index - len(hosted["backbone"]))
        hosted[section][at] = host
    _refuse_several_maps(hosted, [row for row in rows if not row.declares_channels], declared)
    return inputs


def _refuse_several_maps(hosted: dict[str, Any], ours: list[Row], declared: dict[int, Channels]) -> None:
    """Raise where a row that takes a map reads a row that yields several."""
    several = {index for index, channels in declared.items() if isinstance(channels, list)}
    names = {row.index: row.name for row in ours}
    for index, raw in enumerate([*hosted["backbone"], *hosted["head"]]):
        if index in declared or raw[2] == "Index":
            continue
        sources = {f if f >= 0 else index + f for f in (raw[0] if isinstance(raw[0], list) else [raw[0]])}
        for source in sources & several:
            where = f"{hosted.get('yaml_file') or 'model dict'}, row {index} ({names.get(index, raw[2])})"
            raise YoloDynError(
                f"{where}: reads row {source}, which yields several maps; take one by a row [{source}, 1, Feature, [0]]"
            )


def _input_channels(stock: Callable, d: dict[str, Any], ch: int, row: Row, declared: dict[int, Channels]) -> Channels:
    """How many channels reach a row: as earlier rows have declared, or by asking the stock parser.

    It is asked by building what comes before the row, without storage, and probes.
    """
    sources = row.source if isinstance(row.source, list) else [row.source]
    sources = [f + row.index if f < 0 and row.index else f for f in sources]
    if set(sources) <= set(declared):
        known: list[Any] = [declared[f] for f in sources]
        return known if isinstance(row.source, list) else known[0]
    before = [*d["backbone"], *d["head"]][: row.index]
    scale = {"scale": d.get("scale") or next(iter(d["scales"]))} if d.get("scales") else {}  # or it warns, once a row
    probes = [[f, 1, "Conv", [8]] for f in sources]
    with torch.device("meta"), _captured_table():
        model, _ = stock({**d, **scale, "backbone": copy.deepcopy(before), "head": probes}, ch, False)
    channels = [probe.conv.in_channels for probe in model[row.index :]]
    return channels if isinstance(row.source, list) else channels[0]


@contextlib.contextmanager
def _captured_table() -> Iterator[list[str]]:
    """Hold back what the stock parser logs as information, to correct it before it is shown."""
    from ultralytics.utils import LOGGER

    lines: list[str] = []

    def hold(record: logging.LogRecord) -> bool:
        if record.levelno == logging.INFO:
            lines.append(record.getMessage())
        return record.levelno != logging.INFO

    LOGGER.addFilter(hold)
    try:
        yield lines
    except BaseException:
        LOGGER.removeFilter(hold)
        _log(lines)
        raise
    finally:
        LOGGER.removeFilter(hold)


def _log(lines: list[str]) -> None:
    from ultralytics.utils import LOGGER

    for line in lines:
        LOGGER.info(line)


# files, checkpoints, weights -----------------------------------------------------------------------------------------


def _check_file(stock: Callable) -> Callable:
    def check_file(file: str | Path, *args: Any, **kwargs: Any) -> Any:
        try:
            found = stock(file, *args, **kwargs)
        except FileNotFoundError as error:
            ours = files.find_yaml(file)
            if ours is None and Path(file).suffix in (".yaml", ".yml"):
                names = files.bundled_names()
                hint = nearest(str(file), names)
                raise MissingFileError(f"{error}{hint} (yolo_dyn brings {', '.join(names)})") from error
            if ours is None:
                raise
            return str(ours)
        return found or str(files.find_yaml(file) or "") or found

    return check_file


def _torch_safe_load(stock: Callable) -> Callable:
    def torch_safe_load(*args: Any, **kwargs: Any) -> Any:
        if hasattr(torch.serialization, "add_safe_globals"):  # only a restricted load asks for them
            own = [
                kind for module in vars(layers).values() if inspect.ismodule(module) for kind in vars(module).values()
            ]
            own = [kind for kind in own if inspect.isclass(kind) and issubclass(kind, nn.Module)]
            torch.serialization.add_safe_globals([*own, *registry.all_layers().values()])
        return stock(*args, **kwargs)

    return torch_safe_load


def _load(stock: Callable) -> Callable:
    def load(self: nn.Module, weights: Any, *args: Any, **kwargs: Any) -> Any:
        source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
        if _has_registered(self) or _has_registered(source):
            _require_validated()
            weights = _aligned(source, self)
            anneal.copy_temperatures(weights, self)
        return stock(self, weights, *args, **kwargs)

    return load


def _aligned(source: nn.Module, target: nn.Module) -> nn.Module:
    """Renumber the rows of `source` like the same rows of `target`, which has rows inserted or left out.

    Weights are matched by name, and the row's number is part of it: inserting rows before the head moves the head.
    """
    if not isinstance(getattr(source, "model", None), nn.Sequential):
        return source
    kinds = [[row.type for row in model.model] for model in (source, target)]  # type: ignore[union-attr]
    blocks = difflib.SequenceMatcher(None, kinds[0], kinds[1], autojunk=False).get_matching_blocks()
    number = {block.a + k: block.b + k for block in blocks for k in range(block.size)}
    rows = OrderedDict((str(number.get(i, f"unmatched{i}")), row) for i, row in enumerate(source.model))  # type: ignore
    aligned = copy.copy(source)
    aligned._modules = {**source._modules, "model": nn.Sequential(rows)}
    return aligned


# fusing and counting -------------------------------------------------------------------------------------------------


def _has_registered(model: Any) -> bool:
    return isinstance(model, nn.Module) and bool(registry.in_model(model))


def _fuse(stock: Callable) -> Callable:
    from ultralytics.nn.modules import Conv

    def fuse(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        for block in [module for module in self.modules() if isinstance(module, Conv) and hasattr(module, "bn")]:
            if isinstance(block.conv, registry.CONVOLUTIONS):  # the stock folding would take it for an nn.Conv2d
                block.conv.fuse(bn=block.bn)  # type: ignore[operator]
                del block.bn
                block.forward = block.forward_fuse  # type: ignore[method-assign]
        for layer in registry.in_model(self):  # an outer layer comes before the layers inside it, and folds them
            fold = getattr(layer, "fuse", None)
            if callable(fold):
                fold()
        return stock(self, *args, **kwargs)  # afterwards, since it logs the summary of the fused model

    return fuse


def _get_flops(stock: Callable) -> Callable:
    def get_flops(model: nn.Module, imgsz: int | list[int] = 640) -> float:
        if not _has_registered(model):
            return stock(model, imgsz)
        from ultralytics.utils.torch_utils import unwrap_model

        model = unwrap_model(model)
        size = imgsz if isinstance(imgsz, (list, tuple)) else (imgsz, imgsz)
        p = next(model.parameters())
        image = torch.empty((1, image_channels(model), *size), device=p.device, dtype=p.dtype)
        try:
            return _thop_gflops(model, image)
        except Exception:  # like the stock function: a summary without this number is better than none
            return 0.0

    return get_flops


def image_channels(model: nn.Module) -> int:
    """Channels of the images a model takes; its first parameter tells where it was not built from a YAML."""
    return getattr(model, "yaml", {}).get("channels", next(model.parameters()).shape[1])


def _thop_gflops(model: nn.Module, image: torch.Tensor) -> float:
    """Count with Ultralytics' own counter, and let it see functional convolutions.

    thop sees an ``nn.Conv2d``, but not the functional convolution of a dynamic layer. As the stock function calls it,
    it also extrapolates from a small image, which is wrong for a layer whose mixing costs the same at any size.
    """
    import thop
    from thop.profile import functional_hooks

    functional_hooks[F.conv2d] = lambda args, kwargs, y: y.numel() * args[1][0].numel()
    try:
        return thop.profile(model, inputs=[image], verbose=False)[0] * 2 / 1e9
    finally:
        del functional_hooks[F.conv2d]
