"""On SQLite a commit waits for the disk: who does that, and how, is for the process to say."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.pool import StaticPool

from flask_e2emsg.errors import Unavailable
from flask_e2emsg.store.accounts import new_account
from flask_e2emsg.store.database import FEW_ROWS, Database
from flask_e2emsg.store.models import Base, accounts
from tests.servers import run_once

Work = Callable[[], None]
MANY = FEW_ROWS + 1


@pytest.fixture
def engine(sqlite_url: str, connect_to: Callable[[str], Engine]) -> Engine:
    return connect_to(sqlite_url)


def stored(engine: Engine) -> int:
    """How many accounts there are for everybody else."""
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(accounts)) or 0


def add(database: Database, name: str, count: int = MANY) -> None:
    users = [new_account(f"{name} {number}") for number in range(count)]
    with database.write() as connection:
        connection.execute(sa.insert(accounts), users)


def rename_all(database: Database) -> None:
    with database.write_directly() as cursor:
        cursor.execute("UPDATE e2emsg_accounts SET user_id = user_id || '!'")


def test_only_the_commit_of_all_that_was_written_is_waited_for(engine: Engine) -> None:
    seen = []

    def disk(work: Work) -> None:
        before = stored(engine)
        work()
        seen.append((before, stored(engine)))

    database = Database(engine, wait_for_disk=disk)
    add(database, "alice")
    rename_all(database)
    with database.together():
        add(database, "bob", 2)
        rename_all(database)
        add(database, "carol", 3)
    assert seen == [(0, MANY), (MANY, MANY), (MANY, MANY + 5)]
    database.dispose()


def test_what_is_quickly_done_is_done_at_once(engine: Engine) -> None:
    database = Database(engine, wait_for_disk=lambda _work: pytest.fail("it is not worth it"))
    for name in ("alice", "bob"):
        add(database, name, FEW_ROWS // 2)
    rename_all(database)
    assert stored(engine) == FEW_ROWS
    database.dispose()


@pytest.mark.parametrize("write", [lambda database: add(database, "bob"), rename_all])
def test_what_the_disk_does_not_take_is_not_there(
    sqlite_url: str, write: Callable[[Database], None]
) -> None:
    engine, is_full = sa.create_engine(sqlite_url, pool_reset_on_return=None), [False]

    def disk(work: Work) -> None:
        if is_full[0]:
            raise sqlite3.OperationalError("disk I/O error")
        work()

    database = Database(engine, wait_for_disk=disk)
    add(database, "alice")
    is_full[0] = True
    with pytest.raises(Unavailable):
        write(database)
    is_full[0] = False
    add(database, "carol")
    with engine.connect() as connection:
        names = connection.scalars(sa.select(accounts.c.user_id)).all()
    assert {name.split()[0] for name in names if "!" not in name} == {"alice", "carol"}
    assert len(names) == 2 * MANY
    database.dispose()
    engine.dispose()


def test_connections_that_keep_to_one_thread_are_committed_there(sqlite_url: str) -> None:
    engine = sa.create_engine(sqlite_url, connect_args={"check_same_thread": True})
    with ThreadPoolExecutor(1) as pool:
        database = Database(engine, wait_for_disk=lambda work: pool.submit(work).result())
        add(database, "alice")
        rename_all(database)
    assert stored(engine) == MANY
    database.dispose()
    engine.dispose()


def test_nobody_waits_for_a_database_in_memory() -> None:
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    database = Database(engine, wait_for_disk=lambda _work: pytest.fail("there is no disk"))
    add(database, "alice")
    rename_all(database)
    assert stored(engine) == MANY
    engine.dispose()


def test_under_gevent_others_go_on_meanwhile() -> None:
    run_once("gevent.monkey", "--module", "tests.store.disk", env={})
