"""Rounds that ask about open connections: prompt, cheap, and never fatal by mistake."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import pytest

from flask_e2emsg.delivery import recheck
from flask_e2emsg.delivery.hub import Hub
from flask_e2emsg.delivery.pump import Pump
from flask_e2emsg.delivery.recheck import Rechecker
from flask_e2emsg.store.accounts import Party
from tests.delivery.fakes import BOB, DEADLINE_SECONDS, pump
from tests.servers import wait_until


@dataclass(frozen=True)
class Badge:
    """What a connection was let in with."""

    user_id: str
    number: int

    @property
    def key(self) -> Hashable:
        return self.user_id, self.number


class Host:
    """Whom the host does not want any more, and whom it was asked about."""

    def __init__(self) -> None:
        self.unwanted: set[str] = set()
        self.fault: BaseException | None = None
        self.is_slow = False
        self.asked: list[str] = []
        self.asked_again = threading.Event()

    def may_stay(self, badge: Badge) -> bool:
        self.asked.append(badge.user_id)
        self.asked_again.set()
        if self.is_slow:
            spend(0.002)
        if self.fault is not None:
            raise self.fault
        return badge.user_id not in self.unwanted


def spend(seconds: float) -> None:
    """Keep the processor busy."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def hub() -> Hub:
    return Hub(max_connections_per_user=1000, max_connections=1000)


@pytest.fixture
def make(hub: Hub, host: Host) -> Iterator[Callable[..., Rechecker]]:
    """Makes recheckers, which ask no more when the test has ended."""
    made: list[Rechecker] = []

    def rechecker(
        in_context: Callable[[], AbstractContextManager[None]] = nullcontext,
        has_questions: Callable[[], bool] = lambda: True,
    ) -> Rechecker:
        made.append(Rechecker(hub, host.may_stay, in_context, has_questions))
        return made[-1]

    yield rechecker
    for one in made:
        one.stop()


@pytest.fixture
def start(make: Callable[..., Rechecker]) -> Callable[[], Rechecker]:
    def run() -> Rechecker:
        rechecker = make()
        rechecker.ensure_running()
        return rechecker

    return run


badges = itertools.count()


def connect(hub: Hub, owner: Party = BOB, number: int | None = None) -> Pump:
    """A connection of its own token, or of the token with a number."""
    one = pump(owner=owner)
    one.credential = Badge(owner.user_id, next(badges) if number is None else number)
    hub.add(one)
    return one


def wait_for_close(one: Pump, seconds: float = DEADLINE_SECONDS) -> None:
    wait_until(lambda: one.close_code is not None, seconds, lambda: "still open")
    assert one.close_code == 4401


def test_who_is_unwanted_is_out_within_a_second(
    host: Host, hub: Hub, start: Callable[[], Rechecker]
) -> None:
    carol, seconds = connect(hub, Party(3, "carol")), []
    bobs = [connect(hub, Party(10 + n, f"bob {n}")) for n in range(3)]
    start()
    wait_until(lambda: len(host.asked) >= 4, 5, lambda: "nobody was asked about")
    for bob in bobs:
        began = time.monotonic()
        host.unwanted.add(bob.owner.user_id)
        wait_for_close(bob)
        seconds.append(time.monotonic() - began)
    # Half of it is the time between two rounds, and the machine may hold up one of them.
    assert statistics.median(seconds) < 1
    assert carol.close_code is None


def test_who_is_named_is_asked_about_at_once(
    host: Host, hub: Hub, start: Callable[[], Rechecker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recheck, "SHORTEST_SECONDS", 3600)
    monkeypatch.setattr(recheck, "LONGEST_SECONDS", 3600)
    bob = connect(hub)
    rechecker = start()
    wait_until(lambda: host.asked == ["bob"], 5, lambda: f"asked: {host.asked}")
    host.unwanted.add("bob")
    rechecker.look_at("nobody")
    rechecker.look_at("bob")
    wait_for_close(bob)
    assert len(host.asked) == 2


def test_on_demand_there_is_a_round_without_waiting_for_the_clock(
    host: Host, hub: Hub, start: Callable[[], Rechecker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recheck, "SHORTEST_SECONDS", 3600)
    monkeypatch.setattr(recheck, "LONGEST_SECONDS", 3600)
    bob = connect(hub)
    rechecker = start()
    wait_until(lambda: host.asked == ["bob"], 5, lambda: f"asked: {host.asked}")
    host.unwanted.add("bob")
    rechecker.look_around()
    wait_for_close(bob)


class NotEvenAnException(BaseException):
    """Such as the timeouts of gevent."""


@pytest.mark.parametrize("fault", [RuntimeError("a fault"), NotEvenAnException()])
def test_a_host_that_fails_to_answer_ends_nothing_and_is_asked_again(
    host: Host, hub: Hub, start: Callable[[], Rechecker], fault: BaseException
) -> None:
    host.fault = fault
    bob = connect(hub)
    start()
    wait_until(lambda: len(host.asked) >= 2, 5, lambda: "asked only once")
    assert bob.close_code is None
    host.fault, host.unwanted = None, {"bob"}
    wait_for_close(bob)


def test_a_host_that_does_not_answer_for_long_is_not_trusted_for_ever(
    host: Host, hub: Hub, start: Callable[[], Rechecker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recheck, "PATIENCE_SECONDS", 1.0)
    bob = connect(hub)
    start()
    wait_until(lambda: len(host.asked) >= 2, 5, lambda: "asked only once")
    host.fault, failing_since = RuntimeError("a fault"), time.monotonic()
    wait_until(lambda: bob.close_code is not None, 10, lambda: "still open")
    assert bob.close_code == 1011
    assert time.monotonic() - failing_since >= 0.4


def test_the_connections_of_one_token_are_one_question(
    host: Host, hub: Hub, start: Callable[[], Rechecker]
) -> None:
    mine = [connect(hub, number=7) for _ in range(10)]
    start()
    wait_until(lambda: len(host.asked) >= 3, 5, lambda: "no third round")
    assert len(host.asked) < 10
    host.unwanted.add("bob")
    for one in mine:
        wait_for_close(one)


def test_somebody_who_is_named_all_the_time_keeps_nobody_from_being_asked_about(
    host: Host, hub: Hub, start: Callable[[], Rechecker]
) -> None:
    host.is_slow = True
    for _ in range(10):
        connect(hub)
    carol = connect(hub, Party(3, "carol"))
    rechecker, began = start(), time.monotonic()
    host.unwanted.add("carol")
    while carol.close_code is None and time.monotonic() - began < DEADLINE_SECONDS:
        rechecker.look_at("bob")
        host.asked_again.clear()
        host.asked_again.wait(0.005)
    assert carol.close_code == 4401
    assert time.monotonic() - began < 3


def test_who_is_named_during_a_long_round_need_not_wait_for_its_end(
    host: Host, hub: Hub, start: Callable[[], Rechecker]
) -> None:
    host.is_slow = True
    for number in range(900):
        connect(hub, Party(number, f"user {number}"))
    last = connect(hub, Party(1000, "last"))
    rechecker = start()
    wait_until(lambda: len(host.asked) > 10, 5, lambda: "no round")
    host.unwanted.add("last")
    rechecker.look_at("last")
    wait_for_close(last)
    assert "user 899" not in host.asked


def test_a_host_that_is_slow_is_not_asked_all_the_time(
    host: Host, hub: Hub, start: Callable[[], Rechecker]
) -> None:
    host.is_slow = True
    for _ in range(50):
        connect(hub)
    start()
    wait_until(lambda: len(host.asked) > 50, DEADLINE_SECONDS, lambda: "no second round")
    first = host.asked[:]
    began = time.monotonic()
    wait_until(
        lambda: len(host.asked) >= len(first) + 50, 3 * DEADLINE_SECONDS, lambda: "no third round"
    )
    # A round of 0.1 s is allowed a tenth of the time.
    assert time.monotonic() - began > 0.5


def test_wishes_do_not_make_a_slow_host_be_asked_all_the_time(
    host: Host, hub: Hub, start: Callable[[], Rechecker]
) -> None:
    host.is_slow = True
    for _ in range(250):
        connect(hub)
    rechecker, began = start(), time.monotonic()
    while time.monotonic() - began < 4:
        rechecker.look_around()
        host.asked_again.clear()
        host.asked_again.wait(0.1)
    # Half a second of work a round: two or three on credit, and then three tenths of the time.
    assert 250 < len(host.asked) <= 5 * 250


def test_what_ends_with_a_fault_loses_no_answer(
    host: Host, hub: Hub, make: Callable[..., Rechecker]
) -> None:
    @contextmanager
    def spoiled_at_the_end() -> Iterator[None]:
        yield
        raise RuntimeError("a teardown function misses something")

    rechecker = make(spoiled_at_the_end)
    bob, carol = connect(hub), connect(hub, Party(3, "carol"))
    host.unwanted = {"bob", "carol"}
    rechecker.ensure_running()
    wait_for_close(bob)
    wait_for_close(carol)


def test_a_host_without_questions_is_not_asked(
    host: Host, hub: Hub, make: Callable[..., Rechecker]
) -> None:
    has_questions = threading.Event()

    def answer() -> bool:
        has_questions.set()
        return False

    rechecker = make(has_questions=answer)
    connect(hub)
    rechecker.ensure_running()
    rechecker.look_at("bob")
    assert has_questions.wait(DEADLINE_SECONDS)
    assert host.asked == []
