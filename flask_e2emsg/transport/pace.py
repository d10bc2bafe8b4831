"""How fast one client may go: control frames are counted, and turns come to an end.

A client that sends without a pause would have the worker for itself. It gets turns instead; between
them its bytes wait in TCP, which slows it down.
"""

from __future__ import annotations

import time

TURN_SECONDS = 0.001  # of work; a frame that was begun is finished


class Bucket:
    """So many at once, so many a second in the long run, on the monotonic clock."""

    __slots__ = ("_burst", "_filled_at", "_left", "_per_second")

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._filled_at = time.monotonic()

    def take(self) -> bool:
        """Whether one more is within the bounds."""
        now = time.monotonic()
        filled = self._left + (now - self._filled_at) * self._per_second
        self._left = min(filled, self._burst)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
