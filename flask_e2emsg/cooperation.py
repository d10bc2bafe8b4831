"""Waits for the database in the way of the process, and finds out whether that lets others run.

Under gevent a driver that waits in C stops everybody in the process. SQLite's always does, so its
wait for the disk has a thread. psycopg 3 steps aside if it was imported after gevent had patched
the sockets; psycopg2 does only with a callback. What counts is what happens, so it is tried.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Self

import sqlalchemy as sa

from .delivery.thread import quick_lock
from .errors import E2EMsgError
from .store.database import Database, at_once
from .store.libpq import READABLE, Descriptor, Waiting

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


def descriptor(number: int) -> Waiting:
    """What waits for a socket of PostgreSQL's."""
    return _Watched(number) if _is_under_gevent() else Descriptor(number)


class _Watched:
    """A socket on gevent's loop, which numbers events alike. The watcher for reading is kept."""

    def __init__(self, number: int) -> None:
        import gevent

        self._get_hub = gevent.get_hub
        self._number = number
        self._hub: Any = None
        self._to_read: Any = None

    def wait(self, events: int) -> None:
        hub = self._get_hub()
        if events != READABLE:
            with closing(hub.loop.io(self._number, events)) as watcher:
                hub.wait(watcher)
            return
        if hub is not self._hub:
            self.close()
            self._hub, self._to_read = hub, hub.loop.io(self._number, READABLE)
        hub.wait(self._to_read)

    def close(self) -> None:
        if self._to_read is not None:
            self._to_read.close()


def disk() -> Callable[[Callable[[], None]], None]:
    """What does work that waits for the disk, while others in the process go on."""
    return _DiskThread() if _is_under_gevent() else at_once


class _DiskThread:
    """A thread of the system's, which greenlets of one hub wait for.

    It is not among gevent's common ones, which may all wait for names that nobody resolves.
    """

    def __init__(self) -> None:
        from gevent import get_hub
        from gevent.threadpool import ThreadPool

        self._get_hub = get_hub
        self._pool = ThreadPool(1)

    def __call__(self, work: Callable[[], None]) -> None:
        if self._get_hub() is not self._pool.hub:
            work()
            return
        under_way = quick_lock()
        under_way.acquire()

        def run() -> Exception | None:
            # Gevent would write to the log what is raised here.
            try:
                work()
            except Exception as error:
                return error
            finally:
                under_way.release()
            return None

        outcome = self._pool.spawn(run)
        try:
            failure = outcome.get()
        except BaseException:
            # Whoever is ended must not take along what the thread still uses.
            with under_way:
                raise
        if failure is not None:
            raise failure


def _is_under_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))
