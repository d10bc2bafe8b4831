"""Where one connection stands in its mailbox: what it was sent, what it acknowledged.

    start ──passed(seqs, through)──▶ position grows, these entries are in flight; what else lies
            before it are own `sent` entries, and entries that are no more
          ──accepted(seq)──▶ the client knows this own position, perhaps before position reaches it
          ──ack(seq)──▶ entries up to seq leave the flight

Holds at most `max_in_flight` numbers, whatever the client does. Not thread-safe: one connection's
lock guards it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from ..errors import BadRequest


class Window:
    """The cursor and the flow control of one connection."""

    __slots__ = (
        "_accepted",
        "_in_flight",
        "_max_in_flight",
        "_promised",
        "_settled",
        "position",
    )

    def __init__(self, start: int, max_in_flight: int) -> None:
        self.position = start  # the newest position sent or skipped here
        self._accepted = start  # the newest own position that an answer has named
        self._promised = start  # the newest position that the client acknowledged
        self._settled = start  # how much of that counted already
        self._max_in_flight = max_in_flight
        self._in_flight: list[int] = []

    @property
    def room(self) -> int:
        """How many more entries may be sent before an ack must come."""
        return self._max_in_flight - len(self._in_flight)

    def passed(self, seqs: Iterable[int], through: int) -> None:
        """Entries go out to the client, in order; it needs nothing else up to `through`."""
        self._in_flight.extend(seqs)
        self.position = max(self.position, through)

    def accepted(self, seq: int) -> None:
        """An `accepted` tells the client that `seq` is its own message."""
        self._accepted = max(self._accepted, seq)

    def ack(self, seq: int) -> int:
        """The position that the client's ack reaches now.

        `accepted` may overtake pushed entries, so an ack may name an own position that is not
        reached here yet: it counts up to `position`, and for the rest when that is reached.

        Raises:
            BadRequest: beyond everything that this connection was told of.
        """
        if seq > max(self.position, self._accepted):
            raise BadRequest("`seq` is beyond the newest position that this connection was sent.")
        self._promised = max(self._promised, seq)
        return self._settle(min(seq, self.position))

    @property
    def has_promised(self) -> bool:
        """Whether an earlier ack waits for position to grow."""
        return self._promised > self._settled

    def promised(self) -> int | None:
        """What an earlier ack reaches now that position has grown; None if nothing new."""
        reached = min(self._promised, self.position)
        return self._settle(reached) if reached > self._settled else None

    def _settle(self, seq: int) -> int:
        del self._in_flight[: bisect_right(self._in_flight, seq)]
        # With nothing in flight, all that lies behind seq here are positions the client needs not.
        self._settled = self.position if not self._in_flight else max(seq, self._settled)
        return self._settled
