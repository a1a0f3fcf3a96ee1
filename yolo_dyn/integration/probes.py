"""Whether the installed Ultralytics gives what our layers need of its internals: asked, not read off its version.

`integrate` notes what it could not wrap. The rest is tried on a network of seven rows when the first model with our
layers is built, loaded or fused in a process: a tenth of a second, once, of which users of stock models pay nothing.
If a probe fails, our layers are refused, by one error that names it; stock models go on untouched.
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_dyn.errors import YoloDynError, first_line
from yolo_dyn.integration import compat

TESTED = ("8.3.0", "8.4.190")  # the oldest and the newest Ultralytics that the tests have passed with

_missing: dict[str, str] = {}  # what could not be wrapped, and why
_tried: dict[str, str] = {}  # the result of each probe, empty if it passes; empty until they are run
_running = False


def cannot_wrap(name: str, error: Exception) -> None:
    """Note that a stock function is not there, or not as it is needed."""
    _missing[name] = f"{type(error).__name__}: {first_line(error)}"


def complete() -> bool:
    """Whether all that is wrapped could be."""
    return not _missing


def require() -> None:
    """Run the probes if they have not been run yet in this process.

    Raises:
        YoloDynError: if one fails, naming it, the versions, and what to install.
    """
    if _running:  # the probes build models themselves
        return
    first = not _tried
    compat.fit_layers()
    failed = {name: reason for name, reason in results().items() if reason}
    if failed:
        (name, reason), *others = failed.items()
        more = f" (and {', '.join(name for name, _ in others)})" if others else ""
        raise YoloDynError(
            f"{_versions()} do not fit, our layers cannot be used: the probe {name!r}{more} fails: {reason}. "
            f'Tested versions are {TESTED[0]} to {TESTED[1]}: pip install "ultralytics<={TESTED[1]}", or a newer '
            "yolo-dyn; `yolo-dyn check` prints all probes"
        )
    if first and is_untested():
        from ultralytics.utils import LOGGER

        LOGGER.info(f"{_versions()}: newer than any tested one ({TESTED[1]}), and passes all probes")


def results() -> dict[str, str]:
    """The result of each probe: empty if it passes, else the reason."""
    global _running
    if not _tried:
        _running = True
        try:
            # the same wherever they are asked for; a seeded training goes on as without them
            with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.autocast("cpu", enabled=False):
                _tried.update({name: _result(probe) for name, probe in PROBES.items()})
        finally:
            _running = False
    return {**_missing, **_tried}


def forget() -> None:
    """Have the probes run again when they are asked for next."""
    _tried.clear()


def is_untested() -> bool:
    """Whether the imported Ultralytics is newer than any that the tests have passed with."""
    from ultralytics import __version__
    from ultralytics.utils.checks import parse_version

    return parse_version(__version__) > parse_version(TESTED[1])


def _versions() -> str:
    from ultralytics import __version__

    from yolo_dyn import __version__ as ours

    return f"yolo-dyn {ours} and ultralytics {__version__}"


def _result(probe: Callable[[], None]) -> str:
    try:
        probe()
    except Exception as error:  # as many kinds as Ultralytics may change in
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def _network(*before_head: list[Any]) -> Any:
    """A detector of seven rows: stock ones, ours of each kind, and a stock one with a dynamic convolution."""
    from ultralytics.nn import tasks

    rows = [
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "CBAM", [32]],
        [-1, 1, "C2f", [32, True, {"dynamic": "CondConv"}]],
        [[1, 2], 1, "Concat", [1]],
        [-1, 1, "GlobalTokens", [6, 24]],
        [3, 1, "CondConv", [64, 3, 2]],
    ]
    head = [*before_head, [[3, 5 + len(before_head)], 1, "Detect", ["nc"]]]
    content = {"nc": 2, "scales": {"n": [1.0, 0.5, 1024]}, "scale": "n", "backbone": rows, "head": head}
    return tasks.DetectionModel(copy.deepcopy(content), verbose=False).eval()


def _rows() -> None:
    """Rows of a YAML get the channels, strides and sources that they should."""
    model = _network()
    _expect("rows whose output is kept", list(model.save), [1, 2, 3, 5])
    _expect("strides", [int(stride) for stride in model.stride], [2, 4])
    rows = model.model[:-1]
    layers = ["Conv", "CBAM", "C2f", "Concat", "GlobalTokens", "ConvNormAct"]
    _expect("layers", [type(row).__name__ for row in rows], layers)
    shapes: list[Any] = []
    for row in rows:
        row.register_forward_hook(lambda _, inputs, y: shapes.append(tuple(y.shape[1:])))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    _expect("shapes", shapes, [*[(16, 16, 16)] * 3, (32, 16, 16), (6, 24), (32, 8, 8)])


def _fuses() -> None:
    """Fusing folds every BatchNorm, and changes no output."""
    model = _network()
    with torch.no_grad():
        x = torch.rand(1, 3, 64, 64)
        expected = model(x)[0]
        fused = model.fuse(verbose=False)
        norms = [name for name, module in fused.named_modules() if isinstance(module, nn.BatchNorm2d)]
        _expect("BatchNorms after fusing", norms, [])
        difference = float((fused(x)[0] - expected).abs().max() / expected.abs().max())
    if not difference < 1e-4:
        raise RuntimeError(f"fusing changes the output by {difference:.1e} of its largest value")


def _transfers() -> None:
    """Weights move by row, also if a row stands before the head that was not there."""
    source, target = _network(), _network([-1, 1, "CBAM", [64]])
    target.load(source, verbose=False)
    for row, other in ((0, 0), (2, 2), (5, 5), (6, 7)):
        ours, theirs = source.model[row].state_dict(), target.model[other].state_dict()
        _expect(f"weights of row {row} that moved", [k for k in ours if not torch.equal(ours[k], theirs[k])], [])


def _loads() -> None:
    """A checkpoint comes back as it was saved."""
    from ultralytics.nn import tasks

    model = _network()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.pt")
        torch.save({"model": model}, file)
        found = tasks.torch_safe_load(str(file))
    again = (found[0] if isinstance(found, tuple) else found)["model"]
    _expect("type that is loaded", type(again).__name__, type(model).__name__)
    ours, theirs = model.state_dict(), again.state_dict()
    _expect("weights that changed", [k for k in ours if not torch.equal(ours[k], theirs[k])], [])


def _expect(what: str, found: Any, expected: Any) -> None:
    """Raise RuntimeError if they differ."""
    if found != expected:
        raise RuntimeError(f"{what}: expected {expected}, found {found}")


PROBES: dict[str, Callable[[], None]] = {
    "rows build": _rows,
    "models fuse": _fuses,
    "weights transfer": _transfers,
    "checkpoints load": _loads,
}
