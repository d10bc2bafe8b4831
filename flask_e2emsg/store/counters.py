"""What is used up of a limit, counted in the database and so over all workers.

A storage for the `limits` package, as its own for Redis are; windows are fixed. What is counted
stands in the table as a SHA-256 only.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from limits.storage import Storage
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import E2EMsgError
from ..protocol.values import now
from .database import Database, asked_again
from .models import counters
from .times import aware, database_clock


class DatabaseStorage(Storage):
    """Counters of one database."""

    STORAGE_SCHEME = None

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._now = database_clock(database.is_sqlite)
        self._counting: dict[int, sa.Executable] = {}  # statements by the length of a window
        self._insert: Any = sqlite.insert if database.is_sqlite else postgresql.insert

    @property
    def base_exceptions(self) -> type[Exception]:
        """What a database that refuses raises."""
        return E2EMsgError

    @asked_again
    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count `amount` more in the present window, of `expiry` seconds if it begins now."""
        statement = self._counting.get(expiry)
        if statement is None:
            statement = self._counting[expiry] = self._count_in_windows_of(expiry)
        with self._database.write() as connection:
            used: int = connection.scalar(statement, {"key": _digest(key), "amount": amount})
        return used

    def _count_in_windows_of(self, seconds: int) -> sa.Executable:
        end = database_clock(self._database.is_sqlite, seconds)
        key: sa.BindParameter[bytes] = sa.bindparam("key")
        amount: sa.BindParameter[int] = sa.bindparam("amount")
        new = self._insert(counters).values(digest=key, used=amount, expires_at=end)
        # A window that ends later than any can is of a time when the clock was wrong.
        is_over = (counters.c.expires_at <= self._now) | (counters.c.expires_at > end)
        statement: sa.Executable = new.on_conflict_do_update(
            index_elements=[counters.c.digest],
            set_={
                "used": sa.case(
                    (is_over, new.excluded.used), else_=counters.c.used + new.excluded.used
                ),
                "expires_at": sa.case(
                    (is_over, new.excluded.expires_at), else_=counters.c.expires_at
                ),
            },
        ).returning(counters.c.used)
        return statement

    def get(self, key: str) -> int:
        """How much is used up in the present window."""
        used = sa.select(counters.c.used).where(
            counters.c.digest == _digest(key), counters.c.expires_at > self._now
        )
        with self._database.read() as connection:
            return connection.scalar(used) or 0

    @asked_again
    def get_expiry(self, key: str) -> float:
        """When the window ends, in seconds since 1970; the present if there is none."""
        end = sa.select(counters.c.expires_at).where(counters.c.digest == _digest(key))
        with self._database.read() as connection:
            moment = connection.scalar(end)
        return (now() if moment is None else aware(moment)).timestamp()

    def check(self) -> bool:
        """Whether the database answers."""
        with self._database.read() as connection:
            return connection.scalar(sa.select(sa.literal(1))) == 1

    def reset(self) -> int | None:
        """Forget everything that was counted; how many counters that were."""
        with self._database.write() as connection:
            return connection.execute(sa.delete(counters)).rowcount

    def clear(self, key: str) -> None:
        """Forget what was counted of one thing."""
        with self._database.write() as connection:
            connection.execute(sa.delete(counters).where(counters.c.digest == _digest(key)))


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
