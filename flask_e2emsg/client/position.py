"""How far a client has come in its mailbox (docs/protocol.md, 3 `accepted` and 4). No I/O.

──pushed(seq)──▶ everything up to seq has come: what was not pushed is mine, or is no more
──accepted(seq)──▶ an own message has this position; it counts when all below it has come
"""

from __future__ import annotations


class Position:
    """The newest position below which nothing is missing."""

    def __init__(self, start: int) -> None:
        self.seq = start
        self._accepted: set[int] = set()

    def pushed(self, seq: int) -> None:
        """An entry, or the end of the backlog, has come."""
        self.seq = max(self.seq, seq)
        self._accepted = {one for one in self._accepted if one > self.seq}
        self._close_up()

    def accepted(self, seq: int) -> bool:
        """An answer has named a position of mine; whether that moved the newest one."""
        before = self.seq
        if seq > before:
            self._accepted.add(seq)
            self._close_up()
        return self.seq > before

    def _close_up(self) -> None:
        while self.seq + 1 in self._accepted:
            self.seq += 1
            self._accepted.discard(self.seq)
