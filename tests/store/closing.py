"""A host that closes its in-memory database while threads of ours use it.

`python -m tests.store.closing` does so many times, in a process of its own, since what goes wrong
ends the process.
"""

from __future__ import annotations

import threading

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from flask_e2emsg.errors import Unavailable
from flask_e2emsg.store.database import Database

TIMES = 200
THREADS = 4
USES = 1000


def close_while_it_is_used() -> None:
    """Once."""
    engine = sa.create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    database, ready, refused = Database(engine), threading.Barrier(THREADS + 1), []
    with database.read():
        pass  # There is a connection now.

    def use() -> None:
        ready.wait()
        try:
            for _ in range(USES):
                with database.read() as connection:
                    connection.execute(sa.text("PRAGMA synchronous")).all()
                with database.write_directly() as cursor:
                    cursor.execute("PRAGMA synchronous")
        except Unavailable:
            refused.append(1)

    threads = [threading.Thread(target=use) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    ready.wait()
    engine.dispose()
    for thread in threads:
        thread.join()
    assert len(refused) == THREADS


if __name__ == "__main__":
    for _ in range(TIMES):
        close_while_it_is_used()
