"""Counts in the database, for limits that hold over all workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from flask_e2emsg.protocol.values import now
from flask_e2emsg.store.counters import DatabaseStorage
from flask_e2emsg.store.models import counters
from flask_e2emsg.store.purge import purge
from tests.store.process import Process

MINUTE = 60


@pytest.fixture
def storage(store: Process) -> DatabaseStorage:
    return DatabaseStorage(store.database)


def end_windows(store: Process) -> None:
    store.execute(sa.update(counters).values(expires_at=now() - timedelta(seconds=1)))


def test_workers_count_together(
    storage: DatabaseStorage, another_process: Callable[[], Process]
) -> None:
    other = DatabaseStorage(another_process().database)
    assert [storage.incr("alice", MINUTE), other.incr("alice", MINUTE, 5)] == [1, 6]
    assert storage.incr("bob", MINUTE) == 1
    assert (storage.get("alice"), other.get("bob"), other.get("carol")) == (6, 1, 0)


def test_nothing_is_lost_when_many_count_at_once(
    storage: DatabaseStorage, another_process: Callable[[], Process]
) -> None:
    both = [storage, DatabaseStorage(another_process().database)]
    with ThreadPoolExecutor(10) as threads:
        seen = list(threads.map(lambda n: both[n % 2].incr("alice", MINUTE, 3), range(30)))
    assert sorted(seen) == list(range(3, 93, 3))


def test_a_window_ends_when_it_began_to_and_the_next_begins_anew(
    store: Process, storage: DatabaseStorage
) -> None:
    storage.incr("alice", MINUTE)
    end = storage.get_expiry("alice")
    assert 50 < end - time.time() <= MINUTE
    storage.incr("alice", MINUTE)
    assert storage.get_expiry("alice") == end
    end_windows(store)
    assert storage.get("alice") == 0
    assert storage.incr("alice", MINUTE, 2) == 2
    assert storage.get_expiry("alice") > time.time() + 50


def test_counts_can_be_forgotten(storage: DatabaseStorage) -> None:
    for key in ("alice", "bob"):
        storage.incr(key, MINUTE)
    storage.clear("alice")
    assert (storage.get("alice"), storage.get("bob")) == (0, 1)
    assert storage.reset() == 1
    assert storage.get("bob") == 0
    assert storage.check()


def test_whose_count_it_is_stands_nowhere(store: Process, storage: DatabaseStorage) -> None:
    storage.incr("limit of alice", MINUTE)
    with store.database.read() as connection:
        assert b"alice" not in connection.scalars(sa.select(counters.c.digest)).one()


def test_ended_windows_are_purged(store: Process, storage: DatabaseStorage) -> None:
    storage.incr("alice", MINUTE)
    end_windows(store)
    storage.incr("bob", MINUTE)
    purge(store.database, None)
    assert store.count(counters) == 1
