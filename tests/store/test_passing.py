"""What may be lost when the machine crashes is not waited for; what may not, is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from flask_e2emsg.store import engine
from flask_e2emsg.store.database import Database
from flask_e2emsg.store.leases import Leases
from flask_e2emsg.store.models import Base, connections
from flask_e2emsg.store.passing import passing
from flask_e2emsg.store.slots import Arrival
from tests.store.process import Process

NORMAL, FULL = 1, 2
CAP = 1000
DEADLINE_SECONDS = 20.0


@pytest.fixture
def host(sqlite_url: str, connect_to: Callable[[str], Engine]) -> Engine:
    return connect_to(sqlite_url)


def synchronous(one: Database) -> object:
    with one.read() as connection:
        return connection.exec_driver_sql("PRAGMA synchronous").scalar()


def test_slots_do_not_wait_for_the_disk_and_messages_do(host: Engine) -> None:
    store = Process(host)
    slots = passing(store.database, host)
    for _ in range(2):
        store.user("alice")
        Leases(slots, CAP).admit([Arrival("alice", uuid4())])
        assert (synchronous(slots), synchronous(store.database)) == (NORMAL, FULL)
    assert store.count(connections) == 2


def test_both_kinds_of_writers_of_a_process_are_in_one_line(
    host: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCK_PATIENCE_SECONDS", 0.0)  # for writers of other processes
    store = Process(host)
    alice, bob = store.user("alice"), store.user("bob")
    worker = Leases(passing(store.database, host), CAP)

    def send() -> None:
        for _ in range(20):
            store.send(alice, bob)

    def come() -> None:
        for _ in range(20):
            worker.admit([Arrival("alice", uuid4())])

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(work) for work in (send, come, send, come)]:
            done.result(DEADLINE_SECONDS)
    assert store.count(connections) == 40
    assert store.positions(bob) == list(range(1, 41))


def test_a_database_in_memory_or_on_a_server_is_used_as_it_is(
    postgresql_url: str, connect_to: Callable[[str], Engine]
) -> None:
    memory = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(memory)
    for host in (memory, connect_to(postgresql_url)):
        whole = Database(host)
        assert passing(whole, host) is whole
        whole.dispose()
    memory.dispose()
