"""The client's file: one SQLite database, held by one process, used by all of its threads.

Guarantees: what a `transaction` has written is on the disk when it ends. `lazily` writes along with
whoever commits next, or `flush`: for what may be done again after a crash.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import StoreInUse

SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS own_keys (
    place INTEGER PRIMARY KEY AUTOINCREMENT, kid BLOB UNIQUE NOT NULL, wrapped BLOB NOT NULL,
    made_here INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS pins (
    place INTEGER PRIMARY KEY AUTOINCREMENT, contact TEXT NOT NULL, public_key BLOB NOT NULL,
    UNIQUE (contact, public_key));
CREATE TABLE IF NOT EXISTS offers (contact TEXT PRIMARY KEY, public_key BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chains (
    direction TEXT NOT NULL, contact TEXT NOT NULL, kid BLOB NOT NULL, n INTEGER NOT NULL,
    hash BLOB NOT NULL, PRIMARY KEY (direction, contact, kid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    place INTEGER PRIMARY KEY AUTOINCREMENT, epoch TEXT NOT NULL, seq INTEGER, id TEXT UNIQUE,
    contact TEXT, frame TEXT NOT NULL, state TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS entries_open ON entries (state, place) WHERE state != 'told';
CREATE TABLE IF NOT EXISTS outbox (
    place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, recipient TEXT NOT NULL,
    conversation_id TEXT, expires_in INTEGER, envelope BLOB NOT NULL, n INTEGER NOT NULL,
    hash BLOB NOT NULL, tried INTEGER NOT NULL);
"""


class Database:
    """The open file. A lock guards it: no call on the network is made under it.

    Raises:
        StoreInUse: another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        self._connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
        except sqlite3.OperationalError as error:
            self._connection.close()
            if "locked" in str(error):
                raise StoreInUse from None
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("BEGIN IMMEDIATE")  # takes the lock, which is kept until the end
        run("COMMIT")
        self._connection.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written, durably, or nothing of it."""
        with self._lock:
            self._begin()
            self._depth += 1
            try:
                yield
            except BaseException:
                self._rollback()
                raise
            finally:
                self._depth -= 1
            if not self._depth:
                self.flush()

    @contextmanager
    def lazily(self) -> Iterator[None]:
        """Everything inside is written by the next commit."""
        with self._lock:
            self._begin()
            yield

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN")

    def _rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run one statement; how many rows it changed."""
        with self._lock:
            return self._connection.execute(statement, values).rowcount

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows."""
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def row(self, statement: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row."""
        with self._lock:
            found: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
            return found

    def close(self) -> None:
        """Write what waits and let go of the file. Again: nothing."""
        with self._lock, suppress(sqlite3.ProgrammingError):
            self.flush()
            self._connection.close()
