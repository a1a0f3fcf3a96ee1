"""Worker processes that do not outlive the one that they work for."""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """End this process as soon as the one that started it ends; calling it again changes nothing.

    A killed parent says nothing to its workers, which would wait for it: for ever, or for the rest of their queue.
    """
    _watch(os.getpid())


@functools.cache
def _watch(process: int) -> None:
    """Once in each process, and in a forked one anew, which inherits the cache but not the thread."""
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Let processes that are started inside, by this thread, not hear Ctrl-C, which reaches all of a terminal.

    They inherit the mask from their first moment on, so none of them prints a traceback. The process that started them
    hears it, and ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def without_leak_warnings() -> None:
    """Start the process that removes what ended processes leave of their semaphores, without its warning of them.

    It is started once and lives as long as this one: to Ctrl-C it would add two lines of no use after the last.
    """
    if os.name == "posix":  # elsewhere there is none
        from multiprocessing import resource_tracker

        sys.warnoptions.append("ignore:resource_tracker")  # which it inherits
        try:
            resource_tracker.ensure_running()
        finally:
            sys.warnoptions.pop()


@contextlib.contextmanager
def ended_by_errors() -> Iterator[None]:
    """End the processes that were started inside if it is left by an error, lest somebody wait for their work."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
