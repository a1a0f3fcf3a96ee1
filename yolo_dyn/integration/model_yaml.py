"""A model YAML as a whole: what it must have before its rows are read."""

import numbers
from typing import Annotated, Any

from yolo_dyn import registry
from yolo_dyn.errors import YoloDynError, nearest
from yolo_dyn.output.arguments import Range, lacks

Repeats = Annotated[int, Range(1, 1000, what="an integer ")]  # more would build for hours


def asks_for_ours(d: Any) -> bool:
    """Whether a row of a model YAML, whatever else it may be, names a registered layer or a dynamic convolution."""
    parts = [d.get(part) for part in ("backbone", "head")] if isinstance(d, dict) else []
    for raw in (row for part in parts if isinstance(part, list) for row in part if isinstance(row, list)):
        names = [word for word in raw if isinstance(word, str)]
        options = raw[-1][-1] if raw and isinstance(raw[-1], list) and raw[-1] else None
        if set(names) & set(registry.names()) or (isinstance(options, dict) and "dynamic" in options):
            return True
    return False


def check_parts(d: dict[str, Any], file: str) -> None:
    """Check that a model YAML has the parts and rows of one, which the stock parser takes for granted.

    Raises:
        YoloDynError: naming the file, the row, and what is accepted.
    """
    for part in ("backbone", "head"):
        if not isinstance(d.get(part), list):
            raise YoloDynError(
                f"{file}: {part} must be a list of rows [from, repeats, Name, [...]], got {d.get(part)!r}"
            )
    for index, raw in enumerate([*d["backbone"], *d["head"]]):
        if not (isinstance(raw, list) and len(raw) == 4 and isinstance(raw[2], str)):
            raise YoloDynError(f"{file}, row {index}: must be [from, repeats, Name, [...]], got {raw!r}")
        _check_place(raw, index, f"{file}, row {index} ({raw[2]})")
    nc = d.get("nc")
    if nc is not None and not (isinstance(nc, numbers.Integral) and int(nc) > 0):
        raise YoloDynError(f"{file}: nc must be a positive integer, got {nc!r}")


def _check_place(raw: list[Any], index: int, place: str) -> None:
    """Check what a row reads, and how often it stands there."""
    read, repeats, _, arguments = raw
    sources = read if isinstance(read, list) else [read]
    if not sources or not all(not lacks(f, int) and -max(index, 1) <= f < index for f in sources):
        raise YoloDynError(f"{place}: from {read!r} names no earlier row")
    if reason := lacks(repeats, Repeats):
        raise YoloDynError(f"{place}: repeats must be {reason}, got {repeats!r}")
    if not isinstance(arguments, list):
        raise YoloDynError(f"{place}: arguments must be a list [c2, ...], got {arguments!r}")


def smallest(d: dict[str, Any]) -> dict[str, Any]:
    """A model YAML with the first of its scales chosen if none is: the stock parser would warn, and take it too."""
    return {**d, "scale": d.get("scale") or next(iter(d["scales"]))} if d.get("scales") else d


def checked_defaults(d: dict[str, Any], file: str) -> dict[str, dict[str, Any]]:
    """The `defaults:` of a model YAML: keyword arguments for all its rows of a registered layer, ``{Name: {...}}``.

    Raises:
        YoloDynError: if they are no such mapping, or name what no row can take them for.
    """
    defaults = d.get("defaults") or {}
    if not isinstance(defaults, dict) or not all(isinstance(options, dict) for options in defaults.values()):
        raise YoloDynError(
            f"{file}: defaults must map layers to keyword arguments, {{Name: {{...}}}}, got {defaults!r}"
        )
    rows = {str(raw[2]) for raw in [*d["backbone"], *d["head"]]}
    ours = sorted(rows.intersection(registry.names()))
    for name in defaults:
        if name not in ours:
            raise YoloDynError(
                f"{file}: defaults names {name!r}{nearest(str(name), ours)}; registered layers in its rows: "
                f"{', '.join(ours) or 'none'}"
            )
    return defaults
