"""How fast one client may go: control frames are counted, and turns come to an end.

Under gevent a read that finds bytes waiting returns at once and lets nobody else run, so a client
that sends without a pause would have the worker for itself. It gets turns instead; between them its
bytes wait in TCP, which slows it down.
"""

from __future__ import annotations

import time

TURN_UNITS = 16  # of work in a turn; a frame is one, and one more for each BYTES_PER_UNIT
BYTES_PER_UNIT = 512
PAUSE_SECONDS = 0.001  # after a turn
REST_SECONDS = 0.0001  # a wait for bytes of this length was a pause already


class Bucket:
    """So many at once, so many a second in the long run, on the monotonic clock."""

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


class Turn:
    """One client's turn, on the thread that reads its frames."""

    def __init__(self) -> None:
        self._done = 0

    def waited(self, seconds: float) -> None:
        """The client let us wait for its bytes, so others had their turn."""
        if seconds >= REST_SECONDS:
            self._done = 0

    def worked(self, size: int) -> None:
        """A frame of so many bytes was dealt with; at the end of the turn, pause."""
        self._done += 1 + size // BYTES_PER_UNIT
        if self._done >= TURN_UNITS:
            # A sleep of zero would come back before the loop has looked at other sockets.
            time.sleep(PAUSE_SECONDS * self._done / TURN_UNITS)
            self._done = 0
