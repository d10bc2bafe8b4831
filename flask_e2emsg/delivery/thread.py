"""Threads that start when they are first needed, and locks for a few steps that never wait."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


def quick_lock() -> threading.Lock:
    """A lock of the system's, also under gevent, whose own costs twenty times as much.

    Nothing that is done while it is held may wait: no other greenlet could let it go.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return threading.Lock()
    lock: threading.Lock = monkey.get_original("_thread", "allocate_lock")()
    return lock


class LazyThread:
    """A daemon thread with a name and one thing to do.

    It does not exist before it is needed, so a process that forks later has none.
    """

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self._name = name
        self._run = run
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ensure_running(self) -> None:
        """Start, if it does not run yet."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()  # If this fails, the next one who needs it tries again.
                self._thread = thread
