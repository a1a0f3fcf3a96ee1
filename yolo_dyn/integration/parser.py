"""Building models from YAML: rows that name registered layers, and stock rows that ask for a dynamic convolution.

Ultralytics' `parse_model` decides channels by a set that is local to the function. So a registered row is rewritten to
a stock host in a copy of the model dict, the stock parser resolves channels, width and repeats, and the built host is
replaced by the layer. The original dict stays in the model and its checkpoints, so they rebuild wherever this package
is installed.
"""

import contextlib
import copy
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import nn

from yolo_dyn import registry
from yolo_dyn.errors import YoloDynError, first_line, nearest
from yolo_dyn.integration import compat, probes
from yolo_dyn.integration.model_yaml import asks_for_ours, check_parts, checked_defaults, smallest
from yolo_dyn.integration.rows import Channels, Row, StockRow
from yolo_dyn.layers.protocol import HasNote, seal


def parse_model(stock: Callable) -> Callable:
    """Wrap the stock parser: it builds what it knows, we build the rest."""
    from ultralytics.nn.modules.conv import Conv

    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True, *args: Any, **kwargs: Any) -> Any:
        def build(d: dict[str, Any], ch: int, verbose: bool) -> Any:
            return stock(d, ch, verbose, *args, **kwargs)  # with what a later version may hand over too

        if not asks_for_ours(d) and probes.is_untested():
            return build(d, ch, verbose)  # it may have forms of rows that are unknown here
        file = str(d.get("yaml_file") or "model dict")
        check_parts(d, file)
        rows, converted = _registered_rows(d), _converted_rows(d)
        hosted = {**d, "backbone": copy.deepcopy(d["backbone"]), "head": copy.deepcopy(d["head"])}
        activation = Conv.default_act
        try:
            if not rows and not converted:
                return build(d, ch, verbose)
            probes.require()
            return _build(build, hosted, ch, verbose, rows, converted)
        except YoloDynError:
            raise
        except Exception as error:  # as many kinds as there are modules
            place = f"{file}{_failing_row(build, hosted, ch)}"
            raise YoloDynError(f"{place} cannot be built: {type(error).__name__}: {first_line(error)}") from error
        finally:
            Conv.default_act = activation  # the stock parser leaves that of a YAML it fails at

    return parse_model


def _failing_row(stock: Callable, d: dict[str, Any], ch: int) -> str:
    """Which row the stock parser fails at, building ever more of them, without storage; empty if it is none."""
    rows = [*d["backbone"], *d["head"]]
    for count in range(len(rows) + 1):
        try:
            with torch.device("meta"), _captured_table():
                stock({**d, "backbone": copy.deepcopy(rows[:count]), "head": []}, ch, False)
        except Exception:  # the one that is to be found again
            return f", row {count - 1} ({rows[count - 1][2]})" if count else ""
    return ""


def _registered_rows(d: dict[str, Any]) -> list[Row]:
    """The rows that name registered layers. Raises for a name that neither we nor Ultralytics know."""
    import ultralytics.nn.tasks as tasks

    file = str(d.get("yaml_file") or "model dict")
    rows, defaults = [], checked_defaults(d, file)
    for index, raw in enumerate([*d["backbone"], *d["head"]]):
        name = raw[2]
        if name.startswith(("nn.", "torchvision.")):
            continue
        stock = getattr(tasks, name, None)
        if name in registry.names():
            if stock not in (None, registry.get(name)):
                raise YoloDynError(f"{file}, row {index}: the registered name {name!r} is taken by Ultralytics' {name}")
            rows.append(Row.read(raw, index, file, d.get("nc"), defaults.get(name)))
        elif stock is None:
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
    stock: Callable, hosted: dict[str, Any], ch: int, verbose: bool, rows: list[Row], converted: list[StockRow]
) -> tuple[nn.Sequential, list[int]]:
    """Put hosts in the place of the rows, let the stock parser build them, then replace each by its layer."""
    for stock_row in converted:
        arguments = [*hosted["backbone"], *hosted["head"]][stock_row.index][3]
        arguments.pop()  # the keywords, which the stock parser does not know
    inputs = _put_hosts(stock, hosted, ch, rows)
    with _captured_table() as lines:
        model, save = stock(hosted, ch, verbose)
    first = len(lines) - len(model)  # the table ends with one line a row
    for stock_row in converted:
        stock_row.convert(model[stock_row.index])
    for row in rows:
        model[row.index] = _layer_for(model[row.index], row, inputs)
    _seal(model, str(hosted.get("yaml_file") or "model dict"))
    for stock_row in converted:
        model[stock_row.index].np = sum(p.numel() for p in model[stock_row.index].parameters())
        if verbose:
            lines[first + stock_row.index] += f" {stock_row.options_text}"
    for row in rows:
        layer = model[row.index]
        layer.np = sum(p.numel() for p in layer.parameters())
        sources = row.source if isinstance(row.source, list) else [row.source]
        save = sorted({*save, *(f % row.index for f in sources if f != -1)})
        if verbose:
            args = [*row.args, row.options] if row.options else row.args
            lines[first + row.index] = (
                f"{row.index:>3}{row.source!s:>20}{row.repeats:>3}{layer.np:10.0f}  {layer.type:<45}{args!s:<30}"
                f"{_note(layer)}"
            )
    _log(lines)
    return model, save


def _note(layer: nn.Module) -> str:
    """What a layer, or the first of several in a row, has to say of itself beside its arguments."""
    first = layer[0] if isinstance(layer, nn.Sequential) else layer
    return f"  {first.log_note()}" if isinstance(first, HasNote) else ""


def _layer_for(host: nn.Module, row: Row, inputs: dict[int, Channels]) -> nn.Module:
    """Build the layer that takes the place of a host, with what the stock parser notes on each of its modules."""
    if row.declares_channels:
        layer = row.build(inputs[row.index], 0)
    elif row.keeps_channels:
        layer = row.build(inputs[row.index], cast("int", inputs[row.index]), row.repeats)
    else:
        convs: list[Any] = list(host) if isinstance(host, nn.Sequential) else [host]
        layer = row.build(convs[0].conv.in_channels, convs[0].conv.out_channels, len(convs))
    layer.i, layer.f = row.index, row.source  # type: ignore[assignment]
    layer.type = f"{row.layer.__module__}.{row.layer.__qualname__}"  # type: ignore[assignment]
    return layer


def _seal(model: nn.Module, file: str) -> None:
    """Let the rows that share parameters find one another. Raises for those that do not fit together."""
    try:
        seal(model)
    except ValueError as error:
        raise YoloDynError(f"{file}: {error}") from error


def _put_hosts(stock: Callable, hosted: dict[str, Any], ch: int, rows: list[Row]) -> dict[int, Channels]:
    """Put a stock row in the place of each of ours; return the input channels of those that declare their output."""
    inputs: dict[int, Channels] = {}
    declared: dict[int, Channels] = {}
    for row in rows:
        if row.declares_channels:
            inputs[row.index] = _input_channels(stock, hosted, ch, row, declared)
            c2 = declared[row.index] = row.out_channels(inputs[row.index])
            host = compat.host_of_channels(c2 if isinstance(c2, int) else sum(c2))
        elif row.keeps_channels:
            c2 = inputs[row.index] = declared[row.index] = _input_channels(stock, hosted, ch, row, declared)
            if not isinstance(c2, int):
                raise row.error(f"reads row {row.source}, which yields several maps")
            host = compat.host_of_channels(c2)
        else:
            host = [row.source, row.repeats, "Conv", [row.args[0]]]  # its channels are scaled by the width
        in_backbone = row.index < len(hosted["backbone"])
        section, at = ("backbone", row.index) if in_backbone else ("head", row.index - len(hosted["backbone"]))
        hosted[section][at] = host
    _refuse_several_maps(hosted, rows, declared)
    return inputs


def _refuse_several_maps(hosted: dict[str, Any], rows: list[Row], declared: dict[int, Channels]) -> None:
    """Raise if a row that takes a map reads a row that yields several."""
    several = {index for index, channels in declared.items() if isinstance(channels, list)}
    names = {row.index: row.name for row in rows}
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
    probes = [[f, 1, "Conv", [8]] for f in sources]
    with torch.device("meta"), _captured_table():
        model, _ = stock({**smallest(d), "backbone": copy.deepcopy(before), "head": probes}, ch, False)
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
