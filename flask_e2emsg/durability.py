"""Whether the database keeps what it has committed, as far as its settings tell.

A client forgets what was accepted. Each process looks once, at its start where the server says so,
else before its first message; it logs what can be lost and the cure, and where the host insists
(`E2EMSG_REQUIRE_DURABILITY`) it takes no message then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.pool import StaticPool

from .errors import E2EMsgError, Unavailable
from .store.database import Database, asked_again

logger = logging.getLogger("flask_e2emsg.durability")

_FAST_BUT_LOSSY = {
    "fsync": "fsync = off: a crash of the machine can destroy the database. Set it to on.",
    "full_page_writes": (
        "full_page_writes = off: a crash of the machine can destroy pages. Set it to on."
    ),
    "synchronous_commit": (
        "synchronous_commit = off: a crash of the server loses messages that were accepted. "
        "Set it to on, at least for this database or role."
    ),
}
_SQLITE_FULL, _SQLITE_EXTRA = 2, 3


class Durability:
    """What is known of one process's database."""

    def __init__(self, database: Database, is_required: bool) -> None:
        self._database = database
        self._is_required = is_required
        self._is_durable: bool | None = None  # None: the database was not asked, or did not answer
        self._looking = threading.Lock()

    def insist(self) -> None:
        """Let nothing be accepted that can be lost, if the host wants it so.

        Raises:
            Unavailable: the settings are weak, or the database does not tell them.
        """
        if self._is_durable is None:
            self.look()
        if self._is_required and not self._is_durable:
            raise Unavailable

    def look_in_background(self) -> None:
        """Look without holding up the start of a worker."""
        threading.Thread(target=self.look, name="e2emsg-durability", daemon=True).start()

    def look(self) -> None:
        """Find out what the settings are, and log what is wrong with them; once."""
        # Who does not insist need not stand in line for a database that is away.
        if not self._looking.acquire(blocking=self._is_required):
            return
        try:
            if self._is_durable is None:
                self._find_out()
        except (E2EMsgError, sa.exc.SQLAlchemyError) as error:
            logger.debug("the settings of the database are not known: %s", type(error).__name__)
        finally:
            self._looking.release()

    def _find_out(self) -> None:
        found = self._ask()
        for text in found:
            self._log(text)
        self._is_durable = not found

    @asked_again
    def _ask(self) -> list[str]:
        with self._database.read() as connection:
            return list(weaknesses(connection))

    def _log(self, text: str) -> None:
        if self._is_required:
            logger.error("NO MESSAGE IS ACCEPTED, as E2EMSG_REQUIRE_DURABILITY wants it: %s", text)
        else:
            logger.warning("%s", text)


def weaknesses(connection: Connection) -> Iterator[str]:
    """What can be lost after its commit, and the cure, by the settings of this connection."""
    if connection.dialect.name == "sqlite":
        yield from _of_sqlite(connection)
    else:
        yield from of_postgresql(lambda name: connection.scalar(sa.text(f"SHOW {name}")))


def of_postgresql(show: Callable[[str], object]) -> Iterator[str]:
    """The same, by what PostgreSQL shows of its settings."""
    for name, text in _FAST_BUT_LOSSY.items():
        if show(name) == "off":
            yield f"PostgreSQL has {text}"


def _of_sqlite(connection: Connection) -> Iterator[str]:
    """As our own connections have it, which set it themselves."""
    if isinstance(connection.engine.pool, StaticPool):
        yield (
            "The database is in memory: every message is gone when the process ends, and other "
            "processes do not see it. Name a file, or PostgreSQL."
        )
    if connection.scalar(sa.text("PRAGMA synchronous")) not in (_SQLITE_FULL, _SQLITE_EXTRA):
        yield (
            "SQLite's synchronous is below FULL: a power cut loses messages that were accepted. "
            "Take the `PRAGMA synchronous` out of your own code."
        )
