"""Lines to PostgreSQL under gevent.

`python -m gevent.monkey --module tests.store.greenlets URL`, in a process of its own because gevent
must patch the standard library before anything is imported. What goes wrong ends it with a
traceback.
"""

from __future__ import annotations

import sys
import time

import gevent
import sqlalchemy as sa

from flask_e2emsg import cooperation
from flask_e2emsg.store import libpq
from flask_e2emsg.store.database import Database

TOGETHER = 4
SLEEP_SECONDS = 0.3
LARGE = 32 * 1024 * 1024  # more than sockets hold, so that it has to wait for room


def ask_together(database: Database) -> None:
    """Who asks waits on the loop, and others ask meanwhile."""
    began = time.monotonic()
    sleep = f"SELECT pg_sleep({SLEEP_SECONDS})::text"
    asking = [gevent.spawn(database.ask, sleep, {}) for _ in range(TOGETHER)]
    gevent.joinall(asking, raise_error=True)
    assert time.monotonic() - began < (TOGETHER - 1) * SLEEP_SECONDS


def write_much(database: Database) -> None:
    """A statement that the socket does not take at once arrives whole."""
    [(size,)] = database.ask("SELECT length(%(text)s::text)", {"text": "x" * LARGE})
    assert size == LARGE


def main() -> None:
    """Play both, where nothing but the loop can be waited for."""
    engine = sa.create_engine(sys.argv[1])
    database = Database(engine, cooperation.descriptor)
    vars(libpq).pop("select")
    ask_together(database)
    write_much(database)


if __name__ == "__main__":
    main()
