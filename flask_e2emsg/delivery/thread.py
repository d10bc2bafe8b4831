"""A thread that starts when it is first needed, so that a process which forks later has none."""

from __future__ import annotations

import threading
from collections.abc import Callable


class LazyThread:
    """A daemon thread with a name and one thing to do."""

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
