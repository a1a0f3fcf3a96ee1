"""What exporters print, kept in a file instead of between the lines of a command."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ultralytics.utils import LOGGER


@contextlib.contextmanager
def written_to(log: Path) -> Iterator[None]:
    """Send what is printed inside to a file: by Python, by Ultralytics, by C++ libraries and by programs they start."""
    terminals = [handler for handler in LOGGER.handlers if type(handler) is logging.StreamHandler]
    with log.open("w", 1, encoding="utf-8", errors="replace") as file, contextlib.ExitStack() as before:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for handler in terminals:
            before.callback(handler.setStream, handler.setStream(file))
        for number in (1, 2):
            kept = os.dup(number)
            before.callback(os.close, kept)
            before.callback(os.dup2, kept, number)
            os.dup2(file.fileno(), number)
        before.callback(file.flush)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield
