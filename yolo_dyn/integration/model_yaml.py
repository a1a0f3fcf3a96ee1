"""A model YAML as a whole: what it must have before its rows are read."""

import numbers
from typing import Any

from yolo_dyn import registry
from yolo_dyn.errors import YoloDynError, nearest


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
    nc = d.get("nc")
    if nc is not None and not (isinstance(nc, numbers.Integral) and int(nc) > 0):
        raise YoloDynError(f"{file}: nc must be a positive integer, got {nc!r}")


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
