"""PostgreSQL's own publish and subscribe: NOTIFY, and a connection that listens.

A notification holds less than 8,000 bytes, so a longer text travels in pieces, which come in order
and together. It needs a connection of its own, and one that stays: through a pooler in transaction
mode nothing is heard.
"""

from __future__ import annotations

import re
import selectors
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .database import Database

PIECE_BYTES = 7500
MOST_PIECES = 2500
MOST_SENDERS = 64  # whose texts may be under way at the same time

_HEAD = re.compile(r"([0-9]{1,4}) [0-9]{1,9}:")
_NOTIFY = "SELECT pg_notify(%(channel)s, piece) FROM unnest(%(pieces)s::text[]) AS piece"


class NotificationChannel:
    """One channel of a PostgreSQL database. Its name is a plain identifier."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    def publish(self, texts: Sequence[str]) -> None:
        """Give texts to all subscribers, the publisher's own included.

        Raises:
            Unavailable: the database refused.
        """
        pieces = [piece for number, text in enumerate(texts) for piece in _pieces(number, text)]
        with self._database.write_directly() as cursor:
            cursor.execute(_NOTIFY, {"channel": self._name, "pieces": pieces})

    @contextmanager
    def subscribe(self) -> Iterator[_Subscription]:
        """Hear what is published from now on.

        Raises:
            Unavailable: the database refused.
        """
        with (
            self._database.alone() as connection,
            selectors.DefaultSelector() as selector,
        ):
            cursor = connection.cursor()
            cursor.execute(f'LISTEN "{self._name}"')
            cursor.close()
            selector.register(connection.fileno(), selectors.EVENT_READ)
            yield _Subscription(connection, selector)


class _Subscription:
    def __init__(self, connection: Any, selector: selectors.BaseSelector) -> None:
        self._connection = connection
        self._selector = selector
        self._texts = _Texts()

    def receive(self, seconds: float) -> list[str]:
        """What has come, as soon as something has; nothing after so many seconds."""
        if not self._selector.select(seconds):
            return []
        whole = []
        for sender, piece in _arrived(self._connection):
            text = self._texts.add(sender, piece)
            if text is not None:
                whole.append(text)
        return whole


class _Texts:
    """Puts pieces together again."""

    def __init__(self) -> None:
        self._begun: dict[int, list[str]] = {}

    def add(self, sender: int, piece: str) -> str | None:
        """The text that this piece completes, if it does."""
        head = _HEAD.match(piece)
        if head is None:
            return None
        parts = self._begun.pop(sender, [])
        parts.append(piece[head.end() :])
        if int(head[1]) == 0:
            return "".join(parts)
        if len(parts) < MOST_PIECES and len(self._begun) < MOST_SENDERS:
            self._begun[sender] = parts
        return None


def _pieces(number: int, text: str) -> list[str]:
    """Each begins with how many come after it, and the text's number among those published.

    Of equal pieces PostgreSQL would deliver one.
    """
    # A character has up to four bytes.
    size = PIECE_BYTES if text.isascii() else PIECE_BYTES // 4
    parts = [text[start : start + size] for start in range(0, len(text), size)] or [""]
    return [f"{len(parts) - place} {number}:{part}" for place, part in enumerate(parts, start=1)]


def _arrived(connection: Any) -> Iterator[tuple[int, str]]:
    """The pieces that have come, with the process of the database that each came through."""
    if hasattr(connection, "pgconn"):  # psycopg 3
        connection.pgconn.consume_input()
        while (notify := connection.pgconn.notifies()) is not None:
            yield notify.be_pid, notify.extra.decode(errors="replace")
    else:
        connection.poll()
        while connection.notifies:
            notify = connection.notifies.pop(0)
            yield notify.pid, notify.payload
