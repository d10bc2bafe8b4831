"""Events that are stored nowhere, and the bell that rings when entries were stored."""

from __future__ import annotations

import threading
import time
from collections import deque

from . import events

MAX_NEWS = 10_000  # what waits for an application that does not ask; the oldest goes first


class News:
    """The queue of one client. Safe for several threads."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._events: deque[events.Event] = deque(maxlen=MAX_NEWS)
        self._stored = True  # entries may wait from the last time
        self._closed = False

    def add(self, event: events.Event) -> None:
        """Tell the application."""
        with self._condition:
            self._events.append(event)
            self._condition.notify_all()

    def wake(self) -> None:
        """Entries were stored."""
        with self._condition:
            self._stored = True
            self._condition.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def take(self) -> events.Event | None:
        """The oldest event."""
        with self._condition:
            return self._events.popleft() if self._events else None

    def has_stored(self) -> bool:
        """Whether entries were stored since the last time that somebody asked."""
        with self._condition:
            stored, self._stored = self._stored, False
            return stored

    def wait(self, deadline: float | None) -> bool:
        """Wait for something; False: the time is over, or the client is closed."""
        with self._condition:
            while not self._events and not self._stored:
                left = None if deadline is None else deadline - time.monotonic()
                if self._closed or (left is not None and left <= 0):
                    return False
                self._condition.wait(left)
            return True
