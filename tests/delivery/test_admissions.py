"""Who comes while others are let in waits for the next turn; nobody leaves a slot behind."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from flask_e2emsg.delivery import admissions
from flask_e2emsg.delivery.admissions import Admissions
from flask_e2emsg.errors import TooManyConnections, Unavailable
from flask_e2emsg.store.accounts import MailboxState, Party
from flask_e2emsg.store.leases import Admitted
from flask_e2emsg.store.slots import MOST_AT_ONCE, Arrival
from tests.delivery.fakes import DEADLINE_SECONDS, wait_for
from tests.servers import wait_until

FULL, NOBODY = "full", "nobody"


def mailbox_of(user_id: str) -> MailboxState:
    return MailboxState(Party(1, user_id), "0123456789abcdef", 7, 3, 0)


class Door:
    """A store that records who is let in together, and fails as it is told."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.given_back: list[UUID] = []
        self.failure: Exception | None = None
        self.is_busy = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.admissions = Admissions("test-admissions", self.admit, self.given_back.append)

    def admit(self, arrivals: Sequence[Arrival]) -> list[Admitted]:
        self.batches.append([arrival.user_id for arrival in arrivals])
        self.is_busy.set()
        wait_for(self.may_go_on)
        if self.failure is not None:
            raise self.failure
        special: dict[str, Admitted] = {FULL: TooManyConnections(), NOBODY: None}
        return [special.get(one.user_id, mailbox_of(one.user_id)) for one in arrivals]

    def enter(self, user_id: str, connection_id: UUID | None = None) -> MailboxState | None:
        return self.admissions.enter(Arrival(user_id, connection_id or uuid4()))


@pytest.fixture
def door() -> Door:
    return Door()


def come_while_it_is_busy(
    door: Door, threads: ThreadPoolExecutor, *users: str
) -> list[Future[MailboxState | None]]:
    """Have one user keep the door busy, and the others come meanwhile."""
    door.may_go_on.clear()
    first = threads.submit(door.enter, "first")
    wait_for(door.is_busy)
    others = [threads.submit(door.enter, user_id) for user_id in users]
    waiting = door.admissions._waiting
    wait_until(lambda: len(waiting) == len(users), DEADLINE_SECONDS, lambda: "they do not come")
    return [first, *others]


def test_who_comes_is_told_where_the_mailbox_stands(door: Door) -> None:
    assert door.enter("alice") == mailbox_of("alice")
    assert door.enter(NOBODY) is None
    with pytest.raises(TooManyConnections):
        door.enter(FULL)
    assert door.batches == [["alice"], [NOBODY], [FULL]]


def test_those_who_come_while_others_are_let_in_are_let_in_together(door: Door) -> None:
    users = ["alice", FULL, "bob"]
    with ThreadPoolExecutor(4) as threads:
        coming = come_while_it_is_busy(door, threads, *users)
        door.may_go_on.set()
        found = [one.exception(DEADLINE_SECONDS) or one.result() for one in coming]
    assert [sorted(batch) for batch in door.batches] == [["first"], sorted(users)]
    assert found[:2] == [mailbox_of("first"), mailbox_of("alice")]
    assert isinstance(found[2], TooManyConnections)
    assert found[3] == mailbox_of("bob")


def test_a_crowd_is_let_in_by_turns(door: Door) -> None:
    with ThreadPoolExecutor(MOST_AT_ONCE + 2) as threads:
        coming = come_while_it_is_busy(door, threads, *["alice"] * (MOST_AT_ONCE + 1))
        door.may_go_on.set()
        for one in coming:
            one.result(DEADLINE_SECONDS)
    assert [len(batch) for batch in door.batches] == [1, MOST_AT_ONCE, 1]


def test_when_the_database_fails_all_who_waited_hear_of_it_and_the_next_is_let_in(
    door: Door,
) -> None:
    with ThreadPoolExecutor(3) as threads:
        coming = come_while_it_is_busy(door, threads, "alice", "bob")
        door.failure = Unavailable()
        door.may_go_on.set()
        assert [type(one.exception(DEADLINE_SECONDS)) for one in coming] == [Unavailable] * 3
    door.failure = None
    assert door.enter("carol") == mailbox_of("carol")
    assert door.given_back == []


def test_who_gives_up_waiting_leaves_no_slot_behind(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admissions, "PATIENCE_SECONDS", 0.05)
    impatient = uuid4()
    door.may_go_on.clear()
    with pytest.raises(Unavailable):
        door.enter("alice", impatient)
    # The slot is taken only now, and nobody is there to give it back.
    before = len(door.given_back)
    door.may_go_on.set()
    wait_until(lambda: len(door.given_back) > before, DEADLINE_SECONDS, lambda: "the slot is lost")
    assert set(door.given_back) == {impatient}
