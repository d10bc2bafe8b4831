"""How fast one client may go: control frames are counted, and turns come to an end.

Under gevent a read that finds bytes waiting returns at once and lets nobody else run, so a client
that sends without a pause would have the worker for itself. It gets turns instead; between them its
bytes wait in TCP, which slows it down.
"""

from __future__ import annotations

import time

TURN_SECONDS = 0.001  # of work; a frame that was begun is finished
PAUSE_SECONDS = 0.001  # after a turn, and as long again for every BYTES_PER_PAUSE in it
BYTES_PER_PAUSE = 32768


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
        self.begin()

    def begin(self) -> None:
        """Others have just had their turn."""
        self._bytes = 0
        self._began_at = time.monotonic()

    def worked(self, size: int) -> None:
        """A frame of so many bytes was dealt with; at the end of the turn, pause."""
        self._bytes += size
        if time.monotonic() - self._began_at >= TURN_SECONDS:
            # A sleep of zero would come back before the loop has looked at other sockets.
            time.sleep(PAUSE_SECONDS * (1 + self._bytes // BYTES_PER_PAUSE))
            self.begin()
