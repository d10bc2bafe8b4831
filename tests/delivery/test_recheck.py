"""Rounds that ask about open connections: prompt, cheap, and never fatal by mistake."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from flask_e2emsg.delivery import recheck
from flask_e2emsg.delivery.hub import Hub
from flask_e2emsg.delivery.pump import Pump
from flask_e2emsg.delivery.recheck import Rechecker
from flask_e2emsg.store.accounts import Party
from tests.delivery.fakes import BOB, DEADLINE_SECONDS, pump
from tests.servers import wait_until


class Host:
    """Whom the host does not want any more, and whom it was asked about."""

    def __init__(self) -> None:
        self.unwanted: set[str] = set()
        self.is_down = False
        self.is_slow = False
        self.asked: list[str] = []
        self.asked_again = threading.Event()

    def may_stay(self, one: Pump) -> bool:
        self.asked.append(one.owner.user_id)
        self.asked_again.set()
        if self.is_slow:
            spend(0.002)
        if self.is_down:
            raise RuntimeError("a fault of the host")
        return one.owner.user_id not in self.unwanted


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
def start(host: Host, hub: Hub) -> Callable[[], Rechecker]:
    def run() -> Rechecker:
        rechecker = Rechecker(hub, host.may_stay, lambda: True)
        rechecker.ensure_running()
        return rechecker

    return run


def connect(hub: Hub, owner: Party = BOB) -> Pump:
    one = pump(owner=owner)
    hub.add(one)
    return one


def wait_for_close(one: Pump, seconds: float = DEADLINE_SECONDS) -> None:
    wait_until(lambda: one.close_code is not None, seconds, lambda: "still open")
    assert one.close_code == 4401


def test_who_is_unwanted_is_out_within_a_second(
    host: Host, hub: Hub, start: Callable[[], Rechecker]
) -> None:
    bob, carol = connect(hub), connect(hub, Party(3, "carol"))
    start()
    wait_until(lambda: len(host.asked) >= 2, 5, lambda: "nobody was asked about")
    host.unwanted.add("bob")
    wait_for_close(bob, seconds=1)
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


def test_a_host_that_fails_to_answer_ends_nothing_and_is_asked_again(
    host: Host, hub: Hub, start: Callable[[], Rechecker]
) -> None:
    host.is_down = True
    bob = connect(hub)
    start()
    wait_until(lambda: len(host.asked) >= 2, 5, lambda: "asked only once")
    assert bob.close_code is None
    host.is_down, host.unwanted = False, {"bob"}
    wait_for_close(bob)


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
    # A round of 0.1 s is allowed a twentieth of the time.
    assert time.monotonic() - began > 1


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
    # Half a second of work a round: two or three on credit, and then a fifth of the time.
    assert 250 < len(host.asked) <= 5 * 250


def test_a_host_without_questions_is_not_asked(host: Host, hub: Hub) -> None:
    has_questions = threading.Event()

    def answer() -> bool:
        has_questions.set()
        return False

    rechecker = Rechecker(hub, host.may_stay, answer)
    connect(hub)
    rechecker.ensure_running()
    rechecker.look_at("bob")
    assert has_questions.wait(DEADLINE_SECONDS)
    assert host.asked == []
