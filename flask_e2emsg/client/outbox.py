"""Sealed messages that the server has not answered for, in the order of writing.

A message leaves only when it was accepted or finally refused. `tried` ones may be stored on the
server: their bytes stay as they are, so that the same id has one content.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .chain import Link
from .database import Database

_COLUMNS = "place, id, recipient, conversation_id, expires_in, envelope, n, hash, tried"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One sealed message."""

    place: int
    id: str
    recipient: str
    conversation_id: str | None
    expires_in: int | None  # seconds
    envelope: bytes = field(repr=False)
    n: int
    hash: bytes = field(repr=False)
    tried: bool

    @property
    def link(self) -> Link:
        """Its place in the chain."""
        return Link(self.n, self.hash)


class Outbox:
    """The table of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(
        self,
        message_id: str,
        recipient: str,
        conversation_id: str | None,
        expires_in: int | None,
        envelope: bytes,
        link: Link,
        *,
        tried: bool,
    ) -> None:
        """Keep one, durably; `tried` if it goes out at once."""
        with self._database.transaction():
            self._database.run(
                "INSERT INTO outbox (id, recipient, conversation_id, expires_in, envelope, n, hash,"
                " tried) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(message_id, recipient, conversation_id, expires_in),
                    *(envelope, link.n, link.hash, tried),
                ),
            )

    def get(self, message_id: str) -> Outgoing | None:
        """The one of this id, if it still waits."""
        found = self._of("id = ?", message_id)
        return found[0] if found else None

    def to(self, recipient: str) -> list[Outgoing]:
        """All for a recipient, the oldest first."""
        return self._of("recipient = ?", recipient)

    def first(self, recipient: str) -> Outgoing | None:
        """The next one for a recipient."""
        found = self._of("recipient = ?", recipient, "LIMIT 1")
        return found[0] if found else None

    def last(self, recipient: str) -> Outgoing | None:
        """The newest one for a recipient."""
        row = self._database.row(
            f"SELECT {_COLUMNS} FROM outbox WHERE recipient = ? ORDER BY place DESC LIMIT 1",
            (recipient,),
        )
        return None if row is None else Outgoing(*row)

    def recipients(self) -> list[str]:
        """Everybody for whom something waits."""
        rows = self._database.rows("SELECT DISTINCT recipient FROM outbox")
        return [recipient for (recipient,) in rows]

    def mark_tried(self, message_id: str, tried: bool) -> None:
        """Note whether the server may have stored it."""
        with self._database.transaction():
            self._database.run("UPDATE outbox SET tried = ? WHERE id = ?", (tried, message_id))

    def reseal(self, message_id: str, envelope: bytes, link: Link) -> None:
        """Other bytes under the same id. Commits are the caller's."""
        self._database.run(
            "UPDATE outbox SET envelope = ?, n = ?, hash = ? WHERE id = ?",
            (envelope, link.n, link.hash, message_id),
        )

    def remove(self, message_id: str) -> None:
        """Forget one. Commits are the caller's."""
        self._database.run("DELETE FROM outbox WHERE id = ?", (message_id,))

    def _of(self, condition: str, value: str, limit: str = "") -> list[Outgoing]:
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM outbox WHERE {condition} ORDER BY place {limit}", (value,)
        )
        return [Outgoing(*row) for row in rows]
