"""Whether the installation fits, or a layer keeps the layer contract (`layers.protocol`), told line by line."""

import importlib
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from yolo_dyn import registry
from yolo_dyn.bench.contract import CHECKS
from yolo_dyn.bench.installation import installation
from yolo_dyn.bench.subject import DoesNotApplyError, Subject
from yolo_dyn.errors import YoloDynError
from yolo_dyn.integration import integrate
from yolo_dyn.integration.rows import layer_named
from yolo_dyn.output.arguments import Names, checked
from yolo_dyn.output.outcome import Outcome

STATES = {True: "holds", False: "FAILS", None: "does not apply"}


@dataclass(frozen=True)
class Finding:
    """One line of the contract; `holds` is None if it does not apply to this layer."""

    what: str
    holds: bool | None
    note: str = ""


@dataclass(frozen=True)
class Contract(Outcome):
    """The findings about a layer."""

    layer: str
    kind: str
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        return all(finding.holds is not False for finding in self.findings)

    def __str__(self) -> str:
        width = max(len(finding.what) for finding in self.findings)
        lines = [f"{self.layer}, a {self.kind}"]
        lines += [f"  {f.what:<{width}}  {STATES[f.holds]}{f.note and f': {f.note}'}" for f in self.findings]
        failed = sum(finding.holds is False for finding in self.findings)
        return "\n".join([*lines, f"{failed} of {len(self.findings)} fail" if failed else "the contract holds"])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@checked
def check(
    layer: str = "", kind: str = "", inputs: Names | None = None, args: list[str] | None = None, **options: Any
) -> Outcome:
    """Check the installation; or with layer=, run the layer contract on that layer: what holds and what fails.

    Args:
        layer: its YAML name; or module and class, ``my_package.layers:MyConv``, which is then registered. Without it,
            versions and the probes of Ultralytics' internals are shown.
        kind: "convolution", "module" or "network" of a layer that is not registered yet.
        inputs: shapes of its inputs without the batch, ``16x9x7`` for a map ``[C, H, W]`` or ``6x32`` for tokens
            ``[M, d]``; one map of 16 channels by default.
        args: positional arguments after the channels.
        **options: keyword arguments of the layer.

    Returns:
        The findings; `ok` if none of them fails. Of an installation: versions, OpenCVs, probes.

    Raises:
        YoloDynError: if there is no such layer, or it cannot be built with these arguments.
    """
    if not layer:
        if kind or inputs or args or options:
            raise YoloDynError("kind, inputs, args and options are of a layer; layer= names none")
        return installation()
    integrate()
    subject = _subject(layer, kind, inputs or ["16x9x7"], args or [], options)
    try:
        subject.build()
    except Exception as error:  # another's constructor may fail in any way
        arguments = [subject.in_channels, *subject.args, subject.options]
        raise YoloDynError(f"{subject.name} cannot be built with {arguments}: {error}") from error
    return Contract(subject.name, subject.kind, [_finding(what, run, subject) for what, run in CHECKS.items()])


def _subject(layer: str, kind: str, inputs: list[str], args: list[str], options: dict[str, Any]) -> Subject:
    import yaml

    name = layer.rpartition(":")[2]
    if ":" in layer:
        module = layer.partition(":")[0]
        try:
            own = getattr(importlib.import_module(module), name)
        except Exception as error:  # another's module may fail in any way
            raise YoloDynError(f"layer={layer} cannot be imported: {error}") from error
        if registry.get(name) is not own or kind:
            registry.register(own, name, kind or None)  # type: ignore[arg-type]
    elif kind:
        raise YoloDynError(f"kind is for a class that is named by its module, package.module:{name}; got layer={layer}")
    try:
        shapes = [tuple(int(size) for size in text.split("x")) for text in inputs]
        if not all(len(shape) in (2, 3) and min(shape) > 0 for shape in shapes):
            raise ValueError
    except ValueError:
        raise YoloDynError(f"inputs must be shapes like 16x9x7 or 6x32, got {','.join(inputs)}") from None
    layer_class = registry.require(name)
    resolved = {key: layer_named(value, YoloDynError) if key == "dynamic" else value for key, value in options.items()}
    layer_kind = registry.kind_of(layer_class)
    assert layer_kind is not None
    return Subject(name, layer_class, layer_kind, shapes, [yaml.safe_load(text) for text in args], resolved)


def _finding(what: str, run: Callable[[Subject], None], subject: Subject) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(subject)
    except DoesNotApplyError as reason:
        return Finding(what, None, str(reason))
    except Exception as error:  # whatever goes wrong is what is to be found
        lines = str(error).strip().splitlines() or [""]
        return Finding(
            what, False, lines[0] if isinstance(error, AssertionError) else f"{type(error).__name__}: {lines[0]}"
        )
    return Finding(what, True)
