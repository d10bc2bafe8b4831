"""Threads beside the main path: upkeep by the clock or on demand, and what hosts are told.

Neither holds anything up: a sweep that fails is done again, and when more happens than the host's
callbacks take in, the newest news is dropped, and the log says so.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from .thread import LazyThread

logger = logging.getLogger("flask_e2emsg.background")

MAX_NEWS = 10_000


class Ticker:
    """Calls something again and again, from when it is first needed until it is stopped."""

    def __init__(self, name: str, seconds: float, action: Callable[[], object]) -> None:
        self._name = name
        self._seconds = seconds
        self._action = action
        self._asked = threading.Event()
        self._is_stopped = False
        self._thread = LazyThread(name, self._run)

    def ensure_running(self) -> None:
        """Start, if it does not run yet."""
        self._thread.ensure_running()

    def ask(self) -> None:
        """Have it called now, if it runs: once for all who ask meanwhile. Never waits."""
        self._asked.set()

    def stop(self) -> None:
        """Call it no more. Does not wait for a call that is under way."""
        self._is_stopped = True
        self._asked.set()

    def _run(self) -> None:
        while True:
            self._asked.wait(self._seconds)
            self._asked.clear()
            if self._is_stopped:
                return
            try:
                self._action()
            except Exception as error:
                # Texts of database errors may quote values, so name only the kind.
                logger.warning("%s failed: %s", self._name, type(error).__name__)


class Soon:
    """Calls something a moment after somebody asks for it, once for all who ask meanwhile."""

    def __init__(self, name: str, seconds: float, action: Callable[[], object]) -> None:
        self._name = name
        self._seconds = seconds
        self._action = action
        self._asked = threading.Event()
        self._is_stopped = False
        self._thread = LazyThread(name, self._run)

    def ask(self) -> None:
        """Have it called soon. Never waits."""
        self._thread.ensure_running()
        self._asked.set()

    def stop(self) -> None:
        """Call it no more."""
        self._is_stopped = True
        self._asked.set()

    def _run(self) -> None:
        while not self._is_stopped:
            self._asked.wait()
            time.sleep(self._seconds)
            self._asked.clear()
            try:
                self._action()
            except Exception as error:
                # Texts of database errors may quote values, so name only the kind.
                logger.warning("%s failed: %s", self._name, type(error).__name__)


class Notifier:
    """Runs a host's callbacks one after the other, away from whoever has the news."""

    def __init__(self, name: str) -> None:
        self._news: queue.Queue[Callable[[], object]] = queue.Queue(MAX_NEWS)
        self._thread = LazyThread(name, self._run)

    def tell(self, callback: Callable[[], object]) -> None:
        """Have it called soon. Never waits."""
        self._thread.ensure_running()
        try:
            self._news.put_nowait(callback)
        except queue.Full:
            logger.warning("the host's callbacks are too slow: news was dropped")

    def _run(self) -> None:
        while True:
            callback = self._news.get()
            try:
                callback()
            except BaseException:
                # A host may raise SystemExit too; whoever comes after still wants to be told.
                logger.exception("a callback of the host failed")
