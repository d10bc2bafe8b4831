"""Upkeep by the clock, and on demand."""

from __future__ import annotations

import threading
import time

from flask_e2emsg.delivery.background import Ticker
from tests.delivery.fakes import DEADLINE_SECONDS, wait_for
from tests.servers import wait_until


def test_what_is_asked_for_is_done_without_waiting_for_the_clock() -> None:
    done = threading.Event()
    ticker = Ticker("test", 3600, done.set)
    ticker.ensure_running()
    ticker.ask()
    wait_for(done)
    ticker.stop()


def test_who_asks_meanwhile_gets_one_more() -> None:
    times: list[float] = []
    may_end, has_begun = threading.Event(), threading.Event()

    def work() -> None:
        times.append(time.monotonic())
        has_begun.set()
        may_end.wait(DEADLINE_SECONDS)

    ticker = Ticker("test", 3600, work)
    ticker.ensure_running()
    ticker.ask()
    wait_for(has_begun)
    for _ in range(10):
        ticker.ask()
    may_end.set()
    wait_until(lambda: len(times) == 2, DEADLINE_SECONDS, lambda: str(times))
    ticker.stop()
    assert len(times) == 2


def test_the_clock_goes_on_after_a_failure_and_stops_when_told() -> None:
    calls = 0
    stopped_at = None

    def fail() -> None:
        nonlocal calls
        calls += 1
        raise ValueError

    ticker = Ticker("test", 0.01, fail)
    ticker.ensure_running()
    wait_until(lambda: calls > 2, DEADLINE_SECONDS, lambda: str(calls))
    ticker.stop()
    thread = ticker._thread._thread
    assert thread is not None
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    stopped_at = calls
    ticker.ask()
    assert calls == stopped_at
