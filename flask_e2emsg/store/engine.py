"""The engine of our own: the host's driver, address and options, with a pool beside the host's."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool, QueuePool

from ..errors import Unavailable

LOG_NAME = "e2emsg"  # in the log it is `sqlalchemy.engine.Engine.e2emsg`
LOCK_PATIENCE_SECONDS = 30.0


def own_engine(host_engine: Engine, *, shared: bool) -> Engine:
    """The host's driver, address and options with a pool of our own.

    A host whose requests hold all their connections while they wait for us would otherwise wait
    for itself. Whatever the host lets SQLAlchemy log, of ours it logs neither parameters nor rows.
    """
    pool = host_engine.pool if shared else host_engine.pool.recreate()
    engine = Engine(
        pool, host_engine.dialect, host_engine.url, logging_name=LOG_NAME, hide_parameters=True
    )
    logging.getLogger(f"sqlalchemy.engine.Engine.{LOG_NAME}").addFilter(_shows_no_rows)
    if not shared:
        is_sqlite = engine.dialect.name == "sqlite"
        prepare = _prepare_sqlite if is_sqlite else _commits_by_itself(engine)
        sa.event.listen(pool, "connect", prepare)
    return engine


def capacity(pool: Pool) -> float:
    """How many connections a pool may have."""
    if not isinstance(pool, QueuePool) or pool._max_overflow < 0:
        return math.inf
    return pool.size() + pool._max_overflow


def _shows_no_rows(record: logging.LogRecord) -> bool:
    # At DEBUG SQLAlchemy writes every row that it reads.
    return record.levelno > logging.DEBUG


def _commits_by_itself(engine: Engine) -> Callable[[Any, Any], None]:
    """Once for each connection: as an option of every use it costs more than many a statement."""

    def prepare(connection: Any, _record: Any) -> None:
        engine.dialect.set_isolation_level(connection, "AUTOCOMMIT")
        cursor = connection.cursor()
        # Planning anew what is asked all the time costs as much as doing it.
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        cursor.close()

    return prepare


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not open transactions of its own: BEGIN IMMEDIATE has to come first.
    connection.isolation_level = None
    cursor = connection.cursor()
    # Waiting inside SQLite would stop every greenlet, so wait in Python instead.
    cursor.execute("PRAGMA busy_timeout = 10")
    patiently(lambda: cursor.execute("PRAGMA journal_mode = WAL"))
    cursor.execute("PRAGMA synchronous = FULL")
    # Else what was deleted lies on in the file's free pages.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.close()


def patiently(action: Callable[[], object]) -> None:
    """Do it, waiting while another process has the write lock."""
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    pause = 0.001
    while True:
        try:
            action()
            return
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(pause * 1.5, 0.02)


class LockOfAll:
    """The lock of the connection that an in-memory database has; nobody gets it once that is gone.

    Python crashes where one thread closes SQLite's connection while another one uses it. A host
    that disposes of its engine, as its tests may, does not know what runs in the background.
    """

    def __init__(self, pool: Pool) -> None:
        self._lock = threading.RLock()
        self._is_closed = False
        sa.event.listen(pool, "close", self._close)

    def _close(self, _connection: object, _record: object) -> None:
        with self._lock:
            self._is_closed = True

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._is_closed:
            self._lock.release()
            raise Unavailable

    def __exit__(self, *_: object) -> None:
        self._lock.release()
