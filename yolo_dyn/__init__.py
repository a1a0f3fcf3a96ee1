"""Dynamic convolution for Ultralytics YOLO: install it beside Ultralytics, and the stock commands know its layers.

Importing this package does not import torch: it only installs the start-up hook (see `startup.py`). The public names
below are imported when they are first used.
"""

from yolo_dyn import startup

TYPE_CHECKING = False  # type checkers take it for typing's own, whose import would cost more than the whole start-up
if TYPE_CHECKING:
    from yolo_dyn.conversion import convert as convert
    from yolo_dyn.errors import YoloDynError as YoloDynError
    from yolo_dyn.integration import integrate as integrate
    from yolo_dyn.integration.insertion import equip as equip
    from yolo_dyn.integration.insertion import insert as insert
    from yolo_dyn.registry import register as register

__version__ = "0.1.0"

_PUBLIC = {
    "YoloDynError": "yolo_dyn.errors",
    "convert": "yolo_dyn.conversion",
    "equip": "yolo_dyn.integration.insertion",
    "insert": "yolo_dyn.integration.insertion",
    "integrate": "yolo_dyn.integration",
    "register": "yolo_dyn.registry",
}

__all__ = ["YoloDynError", "convert", "equip", "insert", "integrate", "register"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


startup.install()
