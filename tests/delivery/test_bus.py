"""Hints between processes: who hears what, what nobody waits for, and what is not believed."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from flask_e2emsg.delivery import bus as bus_module
from flask_e2emsg.delivery.bus import MAX_NOTE_BYTES, MAX_NOTES, Bus
from flask_e2emsg.delivery.seal import Seal
from tests.delivery.fakes import DEADLINE_SECONDS
from tests.servers import wait_until

SEAL = Seal(b"a secret")


class Air:
    """A channel in this process, which can fail, and stand still."""

    def __init__(self) -> None:
        self.ears: list[queue.Queue[str]] = []
        self.published: list[list[str]] = []
        self.is_down = False
        self.attempts = 0
        self.subscriptions = 0
        self.may_pass = threading.Event()
        self.may_pass.set()

    def publish(self, texts: Sequence[str]) -> None:
        self.attempts += 1
        if self.is_down:
            raise ConnectionError("down")
        self.may_pass.wait(DEADLINE_SECONDS)
        self.published.append(list(texts))
        for ear in list(self.ears):
            for text in texts:
                ear.put(text)

    @contextmanager
    def subscribe(self) -> Iterator[Ear]:
        if self.is_down:
            raise ConnectionError("down")
        ear = Ear(self)
        self.subscriptions += 1
        self.ears.append(ear.heard)
        try:
            yield ear
        finally:
            self.ears.remove(ear.heard)


class Ear:
    def __init__(self, air: Air) -> None:
        self._air = air
        self.heard: queue.Queue[str] = queue.Queue()

    def receive(self, seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._air.is_down:
                raise ConnectionError("down")
            try:
                return [self.heard.get(timeout=0.005)]
            except queue.Empty:
                continue
        return []


class Heard:
    """Notes what it was asked to act on."""

    def __init__(self) -> None:
        self.heads: list[tuple[str, int]] = []
        self.frames: list[tuple[str, bytes]] = []
        self.doubts: list[str | None] = []
        self.times_missed = 0

    def grown(self, user_id: str, seq: int) -> None:
        self.heads.append((user_id, seq))

    def told(self, user_id: str, frame: bytes) -> None:
        self.frames.append((user_id, frame))

    def doubted(self, user_id: str | None) -> None:
        self.doubts.append(user_id)

    def missed(self) -> None:
        self.times_missed += 1


class Station:
    """A bus, and what it has heard."""

    def __init__(self, air: Air | None, seal: Seal = SEAL) -> None:
        self.heard = Heard()
        self.bus = Bus(air, seal, self.heard)


Tune = Callable[..., Station]


@pytest.fixture
def air() -> Air:
    return Air()


@pytest.fixture
def tune(air: Air) -> Iterator[Tune]:
    """Makes stations that listen, and ends them."""
    stations: list[Station] = []

    def make(seal: Seal = SEAL) -> Station:
        station = Station(air, seal)
        before = len(air.ears)
        stations.append(station)
        station.bus.ensure_listening()
        eventually(lambda: len(air.ears) > before)
        return station

    yield make
    for station in stations:
        station.bus.stop()


@pytest.fixture
def pair(tune: Tune) -> tuple[Station, Station]:
    """Two that know of each other."""
    one, other = tune(), tune()
    eventually(lambda: not one.bus.is_alone and len(other.bus._peers) == 1)
    eventually(lambda: len(one.bus._peers) == 1)
    return one, other


def eventually(condition: Callable[[], bool]) -> None:
    wait_until(condition, DEADLINE_SECONDS, lambda: "it never happens")


def test_what_one_says_the_other_hears_and_acts_on(pair: tuple[Station, Station]) -> None:
    one, other = pair
    missed_before = other.heard.times_missed
    one.bus.grown({"bob": 7, "böb": 8})
    one.bus.told("bob", b'{"type":"typing"}')
    one.bus.doubted("bob")
    one.bus.doubted(None)
    one.bus.ended()
    eventually(lambda: other.heard.times_missed == missed_before + 1)
    eventually(lambda: sorted(other.heard.heads) == [("bob", 7), ("böb", 8)])
    assert other.heard.frames == [("bob", b'{"type":"typing"}')]
    assert other.heard.doubts == ["bob", None]


def test_nobody_acts_on_what_it_says_itself(pair: tuple[Station, Station]) -> None:
    one, other = pair
    one.bus.grown({"bob": 7})
    eventually(lambda: other.heard.heads == [("bob", 7)])
    assert one.heard.heads == []


def test_who_is_alone_keeps_it_to_itself(
    air: Air, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "SHYNESS_SECONDS", 0.05)
    one = tune()
    eventually(lambda: one.bus.is_alone)
    one.bus.grown({"bob": 7})
    one.bus.told("bob", b"{}")
    one.bus.flush(DEADLINE_SECONDS)
    assert not any("bob" in text for texts in air.published for text in texts)


def test_who_was_alone_speaks_when_somebody_comes_who_is_told_to_look(
    tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "SHYNESS_SECONDS", 0.05)
    one = tune()
    eventually(lambda: one.bus.is_alone)
    other = tune()
    # Once when it subscribes, and once more when the first one speaks to it from then on.
    eventually(lambda: other.heard.times_missed == 2)
    one.bus.grown({"bob": 7})
    eventually(lambda: other.heard.heads == [("bob", 7)])


def test_who_has_not_heard_yet_whether_it_is_alone_speaks(air: Air) -> None:
    task = Station(air)
    task.bus.told("bob", b"{}")
    task.bus.flush(DEADLINE_SECONDS)
    assert len(air.published) == 1


def test_who_only_speaks_is_nobody_to_speak_to(
    air: Air, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "SHYNESS_SECONDS", 0.05)
    one, task = tune(), Station(air)
    eventually(lambda: one.bus.is_alone)
    task.bus.told("bob", b"{}")
    eventually(lambda: one.heard.frames == [("bob", b"{}")])
    assert one.bus.is_alone
    assert one.heard.times_missed == 1


def test_who_has_just_subscribed_waits_for_answers_before_it_believes_to_be_alone(
    tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "SHYNESS_SECONDS", 3600)
    one = tune()
    one.bus.flush(DEADLINE_SECONDS)
    assert not one.bus.is_alone


def test_who_falls_silent_is_forgotten(
    pair: tuple[Station, Station], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    other.bus.stop()
    monkeypatch.setattr(bus_module, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(bus_module, "SHYNESS_SECONDS", 0.0)
    eventually(lambda: one.bus.is_alone)


def test_telling_waits_for_nobody_and_only_the_newest_position_is_kept(
    air: Air, pair: tuple[Station, Station]
) -> None:
    one, other = pair
    one.bus.flush(DEADLINE_SECONDS)
    air.may_pass.clear()
    one.bus.doubted("first")  # it is on its way, and stands still
    eventually(lambda: not one.bus._notes)
    began = time.monotonic()
    for seq in range(1, 10_001):
        one.bus.grown({"bob": seq, "carol": 1})
    assert time.monotonic() - began < 5
    air.may_pass.set()
    eventually(lambda: len(other.heard.heads) == 2)
    assert sorted(other.heard.heads) == [("bob", 10_000), ("carol", 1)]


def test_what_waits_is_bounded(air: Air, pair: tuple[Station, Station]) -> None:
    one, _ = pair
    one.bus.flush(DEADLINE_SECONDS)
    air.may_pass.clear()
    one.bus.doubted("first")
    eventually(lambda: not one.bus._notes)
    for number in range(2 * MAX_NOTES):
        one.bus.told(f"user {number}", b"{}")
    assert len(one.bus._notes) == MAX_NOTES
    large = b'"' + b"x" * (MAX_NOTE_BYTES // 4) + b'"'
    one.bus._take()
    for _ in range(10):
        one.bus.told("bob", large)
    assert len(one.bus._notes) == 3
    for number in range(3):
        one.bus.grown({f"{number}-{n}": 1 for n in range(bus_module.MAX_HEADS // 2)})
    assert len(one.bus._heads) <= bus_module.MAX_HEADS
    air.may_pass.set()


def test_the_same_doubt_is_said_once(air: Air, pair: tuple[Station, Station]) -> None:
    one, other = pair
    one.bus.flush(DEADLINE_SECONDS)
    air.may_pass.clear()
    one.bus.doubted("first")
    eventually(lambda: not one.bus._notes)
    for _ in range(100):
        one.bus.doubted("bob")
        one.bus.told("bob", b"{}")
    air.may_pass.set()
    eventually(lambda: len(other.heard.frames) == 100)
    assert other.heard.doubts == ["first", "bob"]


def test_equal_frames_travel_as_different_texts(air: Air, pair: tuple[Station, Station]) -> None:
    """PostgreSQL delivers one of equal texts that are published together."""
    one, other = pair
    for _ in range(10):
        one.bus.told("bob", b"{}")
    eventually(lambda: len(other.heard.frames) == 10)
    texts = [text for texts in air.published for text in texts]
    assert len(set(texts)) == len(texts)


def test_while_the_channel_fails_little_is_tried_and_nothing_is_kept(
    air: Air, pair: tuple[Station, Station], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = pair
    caplog.set_level(logging.WARNING, "flask_e2emsg.bus")
    air.is_down = True
    began, attempts, told = time.monotonic(), air.attempts, 0
    while time.monotonic() < began + 0.5:
        told += 1
        one.bus.grown({f"user {told}": 1})
    assert air.attempts - attempts < 20
    air.is_down = False
    eventually(lambda: len(air.ears) == 2)

    def is_heard() -> bool:
        one.bus.grown({"bob": 2})
        return ("bob", 2) in other.heard.heads

    eventually(is_heard)
    assert len(other.heard.heads) < told / 10
    failures = [record.message for record in caplog.records if "failed" in record.message]
    assert 1 <= sum("publishing" in text for text in failures) <= 2
    assert all("ConnectionError" in text and "down" not in text for text in failures)


def test_after_an_interruption_everybody_looks_for_what_was_missed(
    air: Air, pair: tuple[Station, Station]
) -> None:
    _, other = pair
    before = other.heard.times_missed
    air.is_down = True
    eventually(lambda: not air.ears)
    air.is_down = False
    eventually(lambda: other.heard.times_missed > before)


def test_who_does_not_hear_itself_subscribes_anew(
    air: Air, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tune()
    one.bus.flush(DEADLINE_SECONDS)
    before = one.heard.times_missed
    monkeypatch.setattr(bus_module, "HERE_SECONDS", 0.05)
    monkeypatch.setattr(bus_module, "SILENCE_SECONDS", 0.3)
    air.ears.clear()  # the channel has lost its subscribers, and says nothing
    with pytest.MonkeyPatch.context() as deaf:
        deaf.setattr(air, "ears", DeafList())
        eventually(lambda: one.heard.times_missed > before)


class DeafList(list["queue.Queue[str]"]):
    """Subscribers may come and go; nothing reaches them."""

    def __iter__(self) -> Iterator[queue.Queue[str]]:
        return iter(())

    def remove(self, value: object) -> None:
        pass


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0" * 32,
        "0" * 32 + '["someone",1,["grown",{"bob":99}]]',
        "\ud800" * 40,
        "é" * 100,
        SEAL.put_on(""),
        SEAL.put_on("null"),
        SEAL.put_on("[" * 100_000),
        SEAL.put_on('["someone",1,["told","bob"]]'),
        SEAL.put_on('["someone",1,["unheard of","bob"]]'),
        SEAL.put_on('["someone",1,["grown",{"bob":"99"}]]'),
        Seal(b"another secret").put_on('["someone",1,["grown",{"bob":99}]]'),
        SEAL.put_on('["someone",1,["grown",{"bob":99}]]')[:-1] + "}",
        "y" * 1_000_000,
    ],
    ids=lambda text: repr(text)[:60],
)
def test_what_is_not_from_this_deployment_or_makes_no_sense_is_nothing(
    text: str, air: Air, pair: tuple[Station, Station]
) -> None:
    one, other = pair
    air.publish([text])
    one.bus.grown({"bob": 7})
    eventually(lambda: other.heard.heads == [("bob", 7)])
    assert (other.heard.frames, other.heard.doubts) == ([], [])


def test_without_a_channel_it_does_nothing() -> None:
    station = Station(None)
    station.bus.ensure_listening()
    station.bus.grown({"bob": 7})
    station.bus.told("bob", b"{}")
    station.bus.doubted(None)
    station.bus.ended()
    station.bus.flush(0)
    assert (station.bus.is_on, station.bus.is_alone) == (False, True)
    assert (station.bus._heads, list(station.bus._notes)) == ({}, [])


def test_a_listener_that_fails_ends_no_subscription_for_good(
    air: Air, pair: tuple[Station, Station], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair

    def fail(_user_id: str, _seq: int) -> None:
        raise SystemExit

    with monkeypatch.context() as failing:
        failing.setattr(other.heard, "grown", fail)
        before = air.subscriptions
        one.bus.grown({"bob": 1})
        eventually(lambda: air.subscriptions == before + 1)
    eventually(lambda: len(air.ears) == 2)

    def is_heard() -> bool:
        one.bus.grown({"bob": 2})
        return ("bob", 2) in other.heard.heads

    eventually(is_heard)
