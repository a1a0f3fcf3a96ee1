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

import psutil


def end_with_parent() -> None:
    """End this process as soon as the one that started it ends, or when asked to, and all that it has started itself.

    A killed parent says nothing to its workers, which would wait for it: for ever, or for the rest of their queue.
    Calling it again changes nothing.
    """
    _watch(os.getpid())


@functools.cache
def _watch(process: int) -> None:
    """Once in each process, and in a forked one anew, which inherits the cache but not the thread."""
    parent = multiprocessing.parent_process()
    if parent:
        signal.signal(signal.SIGTERM, lambda *_: _end())
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(parent: int) -> None:
    wait([parent])
    _end()


def _end() -> None:
    """End this process, its own workers first: one that is just starting knows of no parent to watch yet."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            child.kill()
    os._exit(1)


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
