"""Buckets and turns, on a clock that only moves when it is told to."""

from __future__ import annotations

import pytest

from flask_e2emsg.transport import pace
from flask_e2emsg.transport.pace import BYTES_PER_PAUSE, TURN_SECONDS, Bucket, Turn


class Clock:
    """A monotonic clock, and the pauses that were made on it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.pauses.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    # Only there: threads that other tests have left go by the real one.
    monkeypatch.setattr(pace, "time", fake)
    return fake


def test_a_full_bucket_gives_its_burst_and_then_nothing(clock: Clock) -> None:
    bucket = Bucket(5, 10.0)
    assert [bucket.take() for _ in range(7)] == [True] * 5 + [False] * 2


def test_a_bucket_fills_again_at_its_rate(clock: Clock) -> None:
    bucket = Bucket(5, 10.0)
    while bucket.take():
        pass
    clock.now += 0.3001
    assert [bucket.take() for _ in range(5)] == [True] * 3 + [False] * 2


def test_a_bucket_holds_no_more_than_its_burst_however_long_nobody_takes(clock: Clock) -> None:
    bucket = Bucket(5, 10.0)
    clock.now += 1_000_000
    assert [bucket.take() for _ in range(7)] == [True] * 5 + [False] * 2


def test_who_keeps_to_the_rate_is_never_refused(clock: Clock) -> None:
    bucket = Bucket(5, 10.0)
    for _ in range(1000):
        clock.now += 0.1001
        assert bucket.take()


def test_a_turn_ends_after_so_much_work(clock: Clock) -> None:
    turn = Turn()
    for _ in range(100):
        clock.now += TURN_SECONDS / 9.5
        turn.worked(20)
    assert len(clock.pauses) == 10


def test_a_turn_of_large_frames_is_followed_by_a_longer_pause(clock: Clock) -> None:
    turn = Turn()
    for size in (100, 4 * BYTES_PER_PAUSE, 100):
        clock.now += 1.01 * TURN_SECONDS
        turn.worked(size)
    short, long, short_again = clock.pauses
    assert long == pytest.approx(5 * short)
    assert short_again == short


def test_a_client_that_lets_others_run_is_never_paused(clock: Clock) -> None:
    turn = Turn()
    for _ in range(100):
        clock.now += 1.0
        turn.begin()
        clock.now += TURN_SECONDS / 2
        turn.worked(BYTES_PER_PAUSE)
    assert clock.pauses == []
