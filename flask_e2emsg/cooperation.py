"""Finds out whether waiting for PostgreSQL lets other greenlets run.

Under gevent a driver that waits in C stops everybody in the process. psycopg 3 steps aside if it
was imported after gevent had patched the sockets; psycopg2 does only with a callback. What counts
is what happens, so it is tried.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Self

import sqlalchemy as sa

from .errors import E2EMsgError
from .store.database import Database

logger = logging.getLogger("flask_e2emsg.cooperation")

WAIT_SECONDS = 0.05
TICK_SECONDS = 0.002
ATTEMPTS = 3  # a busy machine may take the processor away for once


def try_in_background(database: Database) -> None:
    """Log an error, with the cure, if this process has greenlets and the driver stops them all."""
    if not database.is_sqlite and _is_under_gevent():
        threading.Thread(target=_try, args=(database,), name="e2emsg-driver", daemon=True).start()


def _try(database: Database) -> None:
    try:
        if any(_others_ran_while_waiting(database) for _ in range(ATTEMPTS)):
            logger.info("the database driver (%s) lets others run", database.driver)
            return
    except (E2EMsgError, sa.exc.SQLAlchemyError) as error:
        logger.warning("the database driver was not tested: %s", type(error).__name__)
        return
    logger.error(
        "THE DATABASE DRIVER (%s) BLOCKS THIS WHOLE WORKER: while one request waits for "
        "PostgreSQL, no other request and no socket gets a turn. Use psycopg 3 "
        "(`postgresql+psycopg://`), and let it be imported after gevent has patched the worker: "
        "without --preload (preload_app = False), and not in gunicorn's configuration file.",
        database.driver,
    )


def _others_ran_while_waiting(database: Database) -> bool:
    with database.read() as connection, _Ticks() as ticks:
        before = ticks.count
        connection.execute(sa.text("SELECT pg_sleep(:seconds)"), {"seconds": WAIT_SECONDS})
        return ticks.count > before


class _Ticks:
    """A greenlet that counts how often it gets a turn."""

    def __init__(self) -> None:
        self.count = 0
        self._ended = threading.Event()
        self._started = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name="e2emsg-ticks", daemon=True).start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _run(self) -> None:
        self._started.set()
        while not self._ended.is_set():
            time.sleep(TICK_SECONDS)
            self.count += 1


def _is_under_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))
