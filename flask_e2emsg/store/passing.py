"""Units of work on rows about living processes: slots, leases, counters of limits.

After a crash of the machine they mean nothing, so nobody waits until they are on the disk. On
PostgreSQL their tables have no log; on SQLite, where a commit that waits for the disk stops every
greenlet, they have a connection of their own, which is in the same line as all other writers.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from .database import Database


def passing(database: Database, host_engine: Engine) -> Database:
    """The database for rows that may be lost when the machine crashes, with it or on its own."""
    has_file = database.is_sqlite and not database._shared
    return _Passing(database, host_engine) if has_file else database


class _Passing(Database):
    """Commits are in order and whole, but get to the disk with the next one of `database`."""

    def __init__(self, database: Database, host_engine: Engine) -> None:
        super().__init__(host_engine)
        self._writer = database._writer
        sa.event.listen(self._engine.pool, "connect", _need_not_wait)


def _need_not_wait(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()
