"""The errors this package raises about its input: one clear message, never a traceback for the user of a command."""

import difflib
import importlib
import re
from collections.abc import Iterable
from typing import Any


class YoloDynError(ValueError):
    """Bad input. The message names the file, row, key or argument, what was found and what is accepted."""


class MissingFileError(YoloDynError, FileNotFoundError):
    """A file that was asked for and is not there."""


def own_error(error: BaseException) -> YoloDynError | None:
    """Return our error if it is `error` or a cause of it: Ultralytics wraps what goes wrong with a data set."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, YoloDynError):
        cause = cause.__cause__
    return cause


def input_error(error: BaseException) -> Exception | None:
    """Return `own_error`, else an error of the operating system, which names the file; None for any other."""
    return own_error(error) or (error if isinstance(error, OSError) else None)


def first_line(error: BaseException) -> str:
    """What an error says, without what it explains further down, and without colours."""
    return re.sub(r"\x1b\[\d*m", "", str(error)).strip().partition("\n")[0]


def without_traceback(error: YoloDynError) -> str:
    """What an error says, without the traceback that a worker of torch's data loader puts before it."""
    return re.sub(r"(?s)^Caught \w+ in DataLoader worker.*\n[\w.]+Error: ", "", str(error)).strip()


def needed(module: str, purpose: str, requirement: str) -> Any:
    """Import a module that not every installation has.

    Raises:
        YoloDynError: if it cannot be imported, naming what needs it and what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise YoloDynError(f"{purpose} needs {module}: pip install {requirement}") from error


def nearest(found: str, accepted: Iterable[str]) -> str:
    """Return ``"; did you mean 'X'?"`` for the accepted word closest to `found`, or an empty string."""
    by_case = {word.lower(): word for word in accepted}
    close = difflib.get_close_matches(found.lower(), by_case, n=1, cutoff=0.7)
    return f"; did you mean {by_case[close[0]]!r}?" if close else ""
