"""The live connections of a process: who is there, who hears what, and who never lingers."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from flask_e2emsg.delivery.hub import Hub
from flask_e2emsg.errors import Draining, Overloaded, TooManyConnections
from flask_e2emsg.store.accounts import Party
from tests.delivery.fakes import (
    ALICE,
    BOB,
    DEADLINE_SECONDS,
    Log,
    Watched,
    by_user,
    entries,
    positions,
    pump,
    take_all,
)


@pytest.fixture
def hub() -> Hub:
    return Hub(max_connections_per_user=3, max_connections=100)


def live(hub: Hub, owner: Party = BOB, log: Log | None = None) -> Watched:
    """A connection that is registered, started and up to date."""
    one = pump(log, owner=owner)
    hub.add(one)
    one.start(0, 0, 100)
    take_all(one)
    one.stirred.clear()
    return one


def test_a_connection_is_there_from_add_to_remove(hub: Hub) -> None:
    one = live(hub)
    assert (hub.of("bob"), hub.all(), hub.users()) == ((one,), [one], ["bob"])
    assert hub.remove(one)
    assert (hub.of("bob"), hub.all(), hub.users()) == ((), [], [])


def test_a_second_removal_says_so(hub: Hub) -> None:
    one = live(hub)
    hub.remove(one)
    assert not hub.remove(one)
    assert not hub.remove(pump())


def test_a_late_removal_does_not_hit_the_successor(hub: Hub) -> None:
    old = live(hub)
    new = live(hub)
    hub.remove(old)
    hub.remove(old)
    assert hub.of("bob") == (new,)


def test_removing_is_by_identity_whatever_the_order(hub: Hub) -> None:
    dice = random.Random(1)
    for _ in range(1000):
        old = live(hub)
        steps: list[Callable[[], object]] = [partial(hub.remove, old)] * 2
        steps.insert(dice.randrange(3), partial(live, hub))
        for step in steps:
            step()
        [new] = hub.of("bob")
        assert new is not old
        hub.remove(new)


def test_over_the_cap_nobody_is_added(hub: Hub) -> None:
    connections = [live(hub) for _ in range(3)]
    with pytest.raises(TooManyConnections):
        hub.add(pump())
    assert hub.of("bob") == tuple(connections)
    live(hub, ALICE)


def test_whoever_leaves_makes_room_under_the_cap(hub: Hub) -> None:
    first, *_ = [live(hub) for _ in range(3)]
    hub.remove(first)
    live(hub)
    with pytest.raises(TooManyConnections):
        hub.add(pump())


def test_of_all_users_together_no_more_are_added_than_there_is_room() -> None:
    hub = Hub(max_connections_per_user=2, max_connections=3)
    first, *_ = [live(hub), live(hub), live(hub, ALICE)]
    with pytest.raises(Overloaded):
        hub.add(pump(owner=ALICE))
    hub.remove(first)
    hub.remove(first)
    live(hub, ALICE)
    with pytest.raises(Overloaded):
        hub.add(pump())


def test_whoever_waits_takes_room_as_well() -> None:
    hub = Hub(max_connections_per_user=3, max_connections=2)
    live(hub)
    with hub.waiting("alice", 1):
        with pytest.raises(Overloaded):
            hub.add(pump())
        with pytest.raises(Overloaded), hub.waiting("bob", 2):
            raise AssertionError("there was room")
    live(hub)


def test_a_user_waits_as_often_as_it_may_have_connections(hub: Hub) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(hub.waiting("bob", 2))
        with pytest.raises(TooManyConnections), hub.waiting("bob", 2):
            raise AssertionError("it waits once more")
        stack.enter_context(hub.waiting("alice", 1))
    with hub.waiting("bob", 2):
        live(hub)


def test_a_user_at_the_cap_takes_no_room_from_others() -> None:
    hub = Hub(max_connections_per_user=1, max_connections=2)
    live(hub)
    with pytest.raises(TooManyConnections):
        hub.add(pump())
    live(hub, ALICE)


def test_of_many_at_once_exactly_the_cap_gets_in(hub: Hub) -> None:
    together = threading.Barrier(20)

    def knock(_: int) -> bool:
        one = pump()
        together.wait(DEADLINE_SECONDS)
        try:
            hub.add(one)
        except TooManyConnections:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(knock, range(20))) == 3


def test_draining_closes_everybody_and_lets_nobody_in(hub: Hub) -> None:
    connections = [live(hub), live(hub, ALICE)]
    hub.drain()
    assert [one.close_code for one in connections] == [1012, 1012]
    with pytest.raises(Draining):
        hub.add(pump())


def test_draining_wakes_whoever_waits_without_a_connection(hub: Hub) -> None:
    with hub.waiting("bob", 2) as first, hub.waiting("bob", 2) as second:
        hub.drain()
        assert first.is_set()
        assert second.is_set()
        assert hub.is_draining


def test_new_entries_reach_all_connections_of_their_owner_and_nobody_else(hub: Hub) -> None:
    mine, other, hers = live(hub), live(hub), live(hub, ALICE)
    hub.publish(by_user(BOB, entries(1, 2)))
    assert positions(take_all(mine)) == positions(take_all(other)) == [1, 2]
    assert not hers.stirred.is_set()


def test_whoever_waits_without_a_connection_is_woken(hub: Hub) -> None:
    with hub.waiting("bob", 2) as grown, hub.waiting("alice", 1) as hers:
        hub.publish(by_user(BOB, entries(1, 1)))
        assert grown.is_set()
        assert not hers.is_set()
    hub.publish(by_user(BOB, entries(2, 2)))


def test_one_who_stops_waiting_leaves_the_others_waiting(hub: Hub) -> None:
    with hub.waiting("bob", 2) as patient:
        with hub.waiting("bob", 2):
            pass
        hub.publish(by_user(BOB, entries(1, 1)))
        assert patient.is_set()
    assert swept_accounts(hub) == []


def swept_accounts(hub: Hub) -> list[int]:
    """The accounts that a sweep asks about."""
    asked: list[int] = []

    def heads(ids: list[int]) -> dict[int, int]:
        asked.extend(ids)
        return {}

    hub.sweep(heads)
    return asked


def test_a_sweep_asks_once_for_each_mailbox_that_matters_here(hub: Hub) -> None:
    live(hub), live(hub), live(hub, ALICE)
    with hub.waiting("carol", 3):
        assert swept_accounts(hub) == [1, 2, 3]
    assert swept_accounts(hub) == [1, 2]


def test_a_sweep_finds_what_no_wake_up_told_of(hub: Hub) -> None:
    behind = live(hub, log=Log(*entries(1, 5)))
    up_to_date = live(hub, ALICE)
    hub.sweep(lambda _ids: {BOB.account_id: 5, ALICE.account_id: 0})
    assert positions(take_all(behind)) == [1, 2, 3, 4, 5]
    assert not up_to_date.stirred.is_set()


def test_a_sweep_wakes_those_who_wait_without_a_connection(hub: Hub) -> None:
    with hub.waiting("bob", 2) as grown:
        hub.sweep(lambda _ids: {BOB.account_id: 1})
        assert grown.is_set()


@pytest.fixture
def _busy_threads() -> Iterator[None]:
    """Threads take turns as often as they can, so that they meet in the middle of things."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_busy_threads")
def test_looking_around_goes_on_while_others_come_and_go() -> None:
    hub = Hub(max_connections_per_user=1000, max_connections=1000)
    people = [Party(number, f"user {number}") for number in range(500)]
    residents = [live(hub, party) for party in people[100:]]
    stopped = threading.Event()
    failures: list[BaseException] = []

    def churn(seed: int) -> None:
        dice = random.Random(seed)
        while not stopped.is_set():
            one = pump(owner=dice.choice(people[:100]))
            hub.add(one)
            hub.of(one.owner.user_id)
            assert hub.remove(one)

    def look() -> None:
        while not stopped.is_set():
            for _ in range(50):
                assert len(hub.all()) >= len(residents)
                assert len(hub.users()) >= len(residents)
            hub.publish({party.user_id: entries(1, 1) for party in people})
            hub.sweep(lambda ids: dict.fromkeys(ids, 1))

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)
            stopped.set()

    work: list[Callable[[], None]] = [partial(churn, seed) for seed in range(6)]
    threads = [threading.Thread(target=guarded, args=(one,)) for one in [*work, look, look]]
    for thread in threads:
        thread.start()
    for _ in range(500):
        one = pump(owner=people[0])
        hub.add(one)
        hub.remove(one)
    stopped.set()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
    assert not failures
    assert hub.all() == residents


def test_who_hears_that_a_mailbox_has_grown_reads_it(hub: Hub) -> None:
    log = Log(*entries(1, 3))
    bobs, alices = live(hub, BOB, log), live(hub, ALICE)
    hub.reach("bob", 3)
    assert (bobs.stirred.is_set(), alices.stirred.is_set()) == (True, False)
    assert positions(take_all(bobs)) == [1, 2, 3]


def test_who_waits_for_mail_is_woken_when_the_mailbox_is_said_to_have_grown(hub: Hub) -> None:
    with hub.waiting("bob", 2) as bobs, hub.waiting("alice", 1) as alices:
        hub.reach("bob", 3)
        assert (bobs.is_set(), alices.is_set()) == (True, False)


def test_what_is_told_to_a_user_reaches_all_of_its_connections(hub: Hub) -> None:
    bobs, alices = [live(hub), live(hub)], live(hub, ALICE)
    assert hub.tell("bob", b"frame") == 2
    assert hub.tell("nobody", b"frame") == 0
    assert [one.take_replies() for one in bobs] == [[b"frame"], [b"frame"]]
    assert alices.take_replies() == []
