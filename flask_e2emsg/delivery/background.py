"""Threads beside the main path: the sweep that finds lost wake-ups, and what hosts are told.

Neither holds anything up: a sweep that fails is done again, and when more happens than the host's
callbacks take in, the oldest news is dropped and counted in the log.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

logger = logging.getLogger("flask_e2emsg.background")

MAX_NEWS = 10_000


class Ticker:
    """Calls something again and again, from when it is first needed."""

    def __init__(self, name: str, seconds: float, action: Callable[[], object]) -> None:
        self._name = name
        self._seconds = seconds
        self._action = action
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def ensure_running(self) -> None:
        """Start, if it does not run yet."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Do not begin another round."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                self._action()
            except Exception as error:
                # Texts of database errors may quote values, so name only the kind.
                logger.warning("%s failed: %s", self._name, type(error).__name__)


class Notifier:
    """Runs a host's callbacks one after the other, away from whoever has the news."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._news: queue.Queue[Callable[[], object]] = queue.Queue(MAX_NEWS)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def tell(self, callback: Callable[[], object]) -> None:
        """Have it called soon. Never waits."""
        if self._thread is None:
            self._start()
        try:
            self._news.put_nowait(callback)
        except queue.Full:
            logger.warning("the host's callbacks are too slow: news was dropped")

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            callback = self._news.get()
            try:
                callback()
            except Exception:
                logger.exception("a callback of the host failed")
