"""Slots of live connections: never more than the cap, on however many workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from flask_e2emsg.errors import TooManyConnections, Unavailable
from flask_e2emsg.protocol.values import now
from flask_e2emsg.store.accounts import MailboxState, Party
from flask_e2emsg.store.database import Database
from flask_e2emsg.store.leases import FORGET_SECONDS, LEASE_SECONDS, Leases
from flask_e2emsg.store.models import connections, workers
from flask_e2emsg.store.purge import purge
from flask_e2emsg.store.slots import Arrival
from flask_e2emsg.store.times import aware
from tests.servers import wait_until
from tests.store.process import Process

ALICE, BOB = "alice", "bob"
CAP = 3
DEADLINE_SECONDS = 10.0


@pytest.fixture
def people(store: Process) -> dict[str, int]:
    """The accounts of alice and bob."""
    return {user_id: store.user(user_id).account_id for user_id in (ALICE, BOB)}


@pytest.fixture
def worker(store: Process, people: dict[str, int]) -> Leases:
    return Leases(store.database, CAP)


@pytest.fixture
def other_worker(another_process: Callable[[], Process]) -> Leases:
    return Leases(another_process().database, CAP)


def come(worker: Leases, *users: str) -> list[UUID | None]:
    """The connections of those who come together; None for who is not let in."""
    arrivals = [Arrival(user_id, uuid4()) for user_id in users]
    outcomes = worker.admit(arrivals)
    assert all(isinstance(one, MailboxState | TooManyConnections) for one in outcomes)
    return [
        arrival.connection_id if isinstance(outcome, MailboxState) else None
        for arrival, outcome in zip(arrivals, outcomes, strict=True)
    ]


def fill(worker: Leases, user_id: str = ALICE, count: int = CAP) -> list[UUID]:
    taken = [one for _ in range(count) for one in come(worker, user_id) if one is not None]
    assert len(taken) == count
    return taken


def is_full(worker: Leases, user_id: str = ALICE) -> bool:
    [taken] = come(worker, user_id)
    if taken is not None:
        give_back(worker, taken)
    return taken is None


def give_back(worker: Leases, *connection_ids: UUID) -> None:
    for connection_id in connection_ids:
        worker.give_back(connection_id)
    worker.settle()


def let_pass(store: Process, seconds: float) -> None:
    """Make every lease as old as if nobody had renewed it for so long."""
    ends = now() + timedelta(seconds=LEASE_SECONDS - seconds)
    store.execute(sa.update(workers).values(expires_at=ends))


def test_a_user_has_so_many_slots_over_all_workers(worker: Leases, other_worker: Leases) -> None:
    fill(worker, count=2)
    fill(other_worker, count=1)
    assert is_full(worker)
    assert is_full(other_worker)
    assert not is_full(worker, BOB)


def test_of_many_who_come_at_once_to_two_workers_just_the_cap_gets_in(
    worker: Leases, other_worker: Leases
) -> None:
    def let_in(number: int) -> int:
        mine = (worker, other_worker)[number % 2]
        return sum(one is not None for one in come(mine, *[ALICE, BOB] * (1 + number % 3)))

    with ThreadPoolExecutor(20) as threads:
        assert sum(threads.map(let_in, range(20))) == 2 * CAP
    assert is_full(worker)
    assert is_full(other_worker, BOB)


def test_of_many_who_come_together_each_user_gets_the_cap(worker: Leases) -> None:
    let_in = come(worker, *[ALICE, BOB] * (2 * CAP), ALICE)
    for places in (let_in[0::2], let_in[1::2]):
        assert sum(one is not None for one in places) == CAP


def test_who_comes_learns_where_its_mailbox_stands(
    store: Process, worker: Leases, alice: Party, bob: Party
) -> None:
    for _ in range(3):
        store.send(alice, bob)
    store.ack(bob, 2)
    [hers, his, nobodys] = worker.admit(
        [Arrival(user_id, uuid4()) for user_id in (ALICE, BOB, "nobody")]
    )
    assert (hers, his, nobodys) == (store.state(alice), store.state(bob), None)


def test_workers_that_let_in_and_free_many_at_once_do_not_get_in_each_others_way(
    worker: Leases, other_worker: Leases
) -> None:
    def churn(mine: Leases) -> None:
        for _ in range(40):
            taken = come(mine, *[ALICE, BOB] * CAP)
            give_back(mine, *[one for one in taken if one is not None])

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(churn, one) for one in (worker, other_worker) * 2]:
            done.result()
    fill(worker)
    fill(other_worker, BOB)


def test_a_worker_that_began_a_moment_ago_is_not_taken_for_dead(
    postgresql_url: str, connect_to: Callable[[str], Engine]
) -> None:
    ours, beginning = Process(connect_to(postgresql_url)), connect_to(postgresql_url)
    alice = ours.user(ALICE)
    worker = Leases(ours.database, CAP)
    worker.renew()
    with ThreadPoolExecutor(1) as threads, beginning.begin() as transaction:
        theirs = uuid4()
        lease = {"id": theirs, "expires_at": now() + timedelta(seconds=LEASE_SECONDS)}
        transaction.execute(sa.insert(workers), lease)
        place = {"account_id": alice.account_id, "worker_id": theirs}
        rows = [{**place, "slot": slot, "id": uuid4()} for slot in range(CAP)]
        transaction.execute(sa.insert(connections), rows)
        # What this has begun with knows nothing of that worker, but has to wait for its rows.
        coming = threads.submit(come, worker, ALICE)
        wait_until(lambda: somebody_waits(ours), DEADLINE_SECONDS, lambda: "nobody waits")
        transaction.commit()
        assert coming.result(DEADLINE_SECONDS) == [None]
    assert set(rows_of(ours)) == {row["id"] for row in rows}
    ours.database.dispose()


def somebody_waits(store: Process) -> bool:
    """Whether a transaction waits for the end of another one."""
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with store.database.read() as connection:
        return bool(connection.scalar(waiting))


def test_a_slot_that_is_given_back_is_free(worker: Leases, other_worker: Leases) -> None:
    taken = fill(worker)
    give_back(worker, taken[1], taken[1])
    fill(other_worker, count=1)
    assert is_full(worker)


def test_who_comes_back_at_once_finds_the_slot_that_was_given_back(worker: Leases) -> None:
    for connection_id in fill(worker):
        worker.give_back(connection_id)
    fill(worker)
    assert is_full(worker)


def test_giving_back_late_frees_nobody_elses_slot(
    store: Process, worker: Leases, other_worker: Leases
) -> None:
    old = fill(worker)
    let_pass(store, LEASE_SECONDS + 1)
    fill(other_worker)
    give_back(worker, *old)
    assert is_full(other_worker)


def test_the_slots_of_a_worker_that_died_are_free_after_its_lease(
    store: Process, worker: Leases, other_worker: Leases
) -> None:
    fill(worker)
    let_pass(store, LEASE_SECONDS - 2)
    assert is_full(other_worker)
    let_pass(store, LEASE_SECONDS + 1)
    assert not is_full(other_worker)


def test_a_worker_that_lives_keeps_its_slots(
    store: Process, worker: Leases, other_worker: Leases
) -> None:
    fill(worker)
    let_pass(store, LEASE_SECONDS - 2)
    worker.renew()
    with store.database.read() as connection:
        ends = aware(connection.scalars(sa.select(workers.c.expires_at)).one())
    assert ends > now() + timedelta(seconds=LEASE_SECONDS - 2)
    assert is_full(other_worker)


@pytest.mark.parametrize("seconds", [LEASE_SECONDS + 1, 2 * FORGET_SECONDS])
def test_a_worker_that_passed_for_dead_gets_its_slots_back(
    store: Process, worker: Leases, other_worker: Leases, seconds: float
) -> None:
    fill(worker)
    let_pass(store, seconds)
    purge(store.database, None)
    worker.renew()
    assert is_full(other_worker)


def test_after_a_crash_of_the_database_a_worker_registers_again(
    store: Process, worker: Leases, other_worker: Leases
) -> None:
    fill(worker)
    for table in (connections, workers):  # as PostgreSQL empties tables that have no log
        store.execute(sa.delete(table))
    worker.renew()
    assert is_full(other_worker)


def test_a_worker_that_resigns_frees_all_its_slots(worker: Leases, other_worker: Leases) -> None:
    taken = fill(worker)
    worker.resign()
    fill(other_worker)
    give_back(worker, taken[0])
    worker.renew()
    assert is_full(other_worker)


def test_an_end_reaches_every_live_connection_of_the_user_and_no_other(
    worker: Leases, other_worker: Leases, people: dict[str, int]
) -> None:
    here, there, others = fill(worker, count=1), fill(other_worker, count=2), fill(worker, BOB)
    assert worker.end_all_of(people[ALICE], 4401) == 3
    assert worker.wanted_ends() == dict.fromkeys(here, 4401)
    assert other_worker.wanted_ends() == dict.fromkeys(there, 4401)
    assert not set(others) & worker.wanted_ends().keys()


def test_who_comes_after_an_end_is_not_ended(worker: Leases, people: dict[str, int]) -> None:
    for connection_id in fill(worker):
        worker.end_all_of(people[ALICE], 4401)
        give_back(worker, connection_id)
    fill(worker)
    assert worker.wanted_ends() == {}


def test_a_slot_that_a_dead_worker_was_told_to_end_is_taken_without_the_end(
    store: Process, worker: Leases, other_worker: Leases, people: dict[str, int]
) -> None:
    fill(worker)
    worker.end_all_of(people[ALICE], 4401)
    let_pass(store, LEASE_SECONDS + 1)
    fill(other_worker)
    assert other_worker.wanted_ends() == {}


def test_what_could_not_be_given_back_is_given_back_later(
    worker: Leases, other_worker: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = fill(worker)
    worker.give_back(taken[0])
    with monkeypatch.context() as away:
        for way in ("write", "ask"):
            away.setattr(Database, way, refuse)
        with pytest.raises(Unavailable):
            worker.settle()
    assert is_full(other_worker)
    worker.renew()
    assert not is_full(other_worker)


def refuse(_database: Database, *_: object) -> Callable[[], None]:
    raise Unavailable


def rows_of(store: Process) -> list[UUID]:
    with store.database.read() as connection:
        return sorted(connection.scalars(sa.select(connections.c.id)), key=str)


def test_a_row_that_nobody_holds_is_freed_by_the_next_renewal(
    store: Process, worker: Leases, other_worker: Leases
) -> None:
    fill(worker)
    with worker._lock:
        worker._held.clear()  # as when the answer to a commit is lost
    assert is_full(other_worker)
    worker.renew()
    assert not is_full(other_worker)


def test_freeing_that_is_interrupted_is_done_by_the_next_renewal(
    store: Process, worker: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = fill(worker)
    for connection_id in taken:
        worker.give_back(connection_id)
    with monkeypatch.context() as away:
        away.setattr(Database, "write", refuse)
        with pytest.raises(Unavailable):
            worker.renew()
    worker.renew()
    assert rows_of(store) == []
    fill(worker)


def test_a_connection_whose_row_is_gone_is_registered_again(store: Process, worker: Leases) -> None:
    taken = fill(worker)
    store.execute(sa.delete(connections).where(connections.c.id == taken[0]))
    worker.renew()
    assert rows_of(store) == sorted(taken, key=str)


def test_a_slot_that_was_taken_over_is_replaced_by_another(
    store: Process, worker: Leases, other_worker: Leases
) -> None:
    [mine] = fill(worker, count=1)
    let_pass(store, LEASE_SECONDS + 1)
    theirs = fill(other_worker, count=2)
    worker.renew()
    assert rows_of(store) == sorted([mine, *theirs], key=str)
    assert worker.wanted_ends() == {}


def test_without_another_slot_the_connection_shall_come_again(
    store: Process, worker: Leases, other_worker: Leases
) -> None:
    [mine] = fill(worker, count=1)
    let_pass(store, LEASE_SECONDS + 1)
    fill(other_worker)
    worker.renew()
    assert worker.wanted_ends() == {mine: 1012}
    worker.give_back(mine)
    assert worker.wanted_ends() == {}


def test_a_worker_that_was_stopped_for_long_keeps_the_cap(
    store: Process, worker: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(worker)
    let_pass(store, LEASE_SECONDS + 1)
    later = time.monotonic() + LEASE_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert is_full(worker)
    assert len(rows_of(store)) == CAP


def test_a_lease_of_a_time_when_the_clock_was_ahead_holds_nothing(
    store: Process, worker: Leases, other_worker: Leases
) -> None:
    fill(worker)
    let_pass(store, -3600)
    assert not is_full(other_worker)


def test_nothing_is_left_of_workers_that_are_long_dead(store: Process, worker: Leases) -> None:
    fill(worker)
    purge(store.database, None)
    assert (store.count(connections), store.count(workers)) == (CAP, 1)
    let_pass(store, LEASE_SECONDS + FORGET_SECONDS + 1)
    purge(store.database, None)
    assert (store.count(connections), store.count(workers)) == (0, 0)


def test_what_a_worker_holds_is_known_to_the_others(worker: Leases, other_worker: Leases) -> None:
    come(worker, ALICE, ALICE, BOB)
    assert (other_worker.held_elsewhere(ALICE), other_worker.held_elsewhere(BOB)) == (2, 1)
    assert other_worker.all_elsewhere() == {ALICE: 2, BOB: 1}
    assert worker.held_elsewhere(ALICE) == worker.held_elsewhere("nobody") == 0
    assert worker.all_elsewhere() == {}
    come(other_worker, BOB)
    assert worker.all_elsewhere() == {BOB: 1}
    assert (worker.workers_elsewhere(), other_worker.workers_elsewhere()) == (1, 1)


def test_what_a_dead_worker_held_is_nobodys(
    worker: Leases, other_worker: Leases, store: Process
) -> None:
    come(worker, ALICE)
    other_worker.renew()
    store.execute(sa.update(workers).values(expires_at=now() - timedelta(seconds=1)))
    assert other_worker.held_elsewhere(ALICE) == 0
    assert other_worker.all_elsewhere() == {}
    assert other_worker.workers_elsewhere() == 0


def test_what_was_given_back_is_nobodys(worker: Leases, other_worker: Leases) -> None:
    [connection_id] = come(worker, ALICE)
    assert connection_id is not None
    worker.give_back(connection_id)
    worker.settle()
    assert other_worker.held_elsewhere(ALICE) == 0
