"""Worker processes that do not outlive the one that they work for."""

import functools
import multiprocessing
import os
import threading
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
