"""A database that came back has left dead connections in the pool, and nobody who asks sees one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from flask_e2emsg.store.accounts import Accounts, Party
from flask_e2emsg.store.counters import DatabaseStorage
from flask_e2emsg.store.database import CONCURRENT_READS
from tests.store.process import Process

QUESTIONS: dict[str, Callable[[Process, Party], object]] = {
    "who somebody is": lambda store, me: Accounts(store.database).find(me.user_id),
    "who several are": lambda store, me: Accounts(store.database).look_up({me.user_id}),
    "the state of a mailbox": lambda store, me: store.accounts.state(me.user_id),
    "how far mailboxes reach": lambda store, me: store.accounts.heads([me.account_id]),
    "what waits": lambda store, me: store.accounts.waiting(me, me, 10),
    "a key": lambda store, me: store.accounts.public_key(me.user_id),
    "entries": lambda store, me: store.mailboxes.entries_after(me, 0, 10),
    "a count": lambda store, me: DatabaseStorage(store.database).incr("lost", 60),
    "the end of a window": lambda store, me: DatabaseStorage(store.database).get_expiry("lost"),
}


@pytest.fixture
def store_url(postgresql_url: str) -> str:
    return postgresql_url


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_on_a_dead_connection_is_asked_again(
    store: Process, alice: Party, store_url: str, connect_to: Callable[[str], Engine], question: str
) -> None:
    _fill_pool(store)
    _kill_everybody(connect_to(store_url))
    QUESTIONS[question](store, alice)


def _fill_pool(store: Process) -> None:
    together = Barrier(CONCURRENT_READS)

    def hold(_: int) -> None:
        with store.database.read() as connection:
            connection.execute(sa.text("SELECT 1"))
            together.wait(10)

    with ThreadPoolExecutor(CONCURRENT_READS) as pool:
        list(pool.map(hold, range(CONCURRENT_READS)))


def _kill_everybody(engine: Engine) -> None:
    kill = sa.text(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with engine.connect() as connection:
        assert (connection.scalar(kill) or 0) >= CONCURRENT_READS
