"""Buckets, on a clock that only moves when it is told to."""

from __future__ import annotations

import pytest

from flask_e2emsg.transport import pace
from flask_e2emsg.transport.pace import Bucket


class Clock:
    """A monotonic clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


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
