"""Which Ultralytics this package is validated with, and errors as the stock command shows them."""

import sys
from typing import Any

from yolo_dyn.errors import YoloDynError, own_error

VALIDATED = ("8.4.130", "8.4.190")  # the oldest and the newest Ultralytics that the tests pass with


def is_validated() -> bool:
    """Whether the imported Ultralytics lies in the validated range."""
    from ultralytics import __version__
    from ultralytics.utils.checks import parse_version

    return parse_version(VALIDATED[0]) <= parse_version(__version__) <= parse_version(VALIDATED[1])


def require_validated() -> None:
    """Raise YoloDynError, with what to install, if the imported Ultralytics lies outside the range."""
    if not is_validated():
        from ultralytics import __version__

        from yolo_dyn import __version__ as ours

        raise YoloDynError(
            f"yolo-dyn {ours} is validated with ultralytics {VALIDATED[0]} to {VALIDATED[1]}, found {__version__}. "
            f'Install one of them, pip install "ultralytics>={VALIDATED[0]},<={VALIDATED[1]}", or another yolo-dyn'
        )


def excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """In the stock command, show our errors as one line, without a traceback."""
    ours = own_error(error)
    if ours is not None:
        print(f"yolo-dyn: error: {ours}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
