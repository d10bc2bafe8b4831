"""Shares of a limit: never more than the limit in a window, and few questions to the database."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import limits
import pytest
from limits.storage import MemoryStorage

from flask_e2emsg.delivery import limiter
from flask_e2emsg.delivery.limiter import RateLimiter


class Counted(MemoryStorage):
    """The storage of all workers, and how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.questions = 0
        self._turn = threading.Lock()

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        with self._turn:
            self.questions += 1
            return super().incr(key, expiry, amount)


@pytest.fixture
def storage() -> Counted:
    return Counted()


def worker(storage: Counted, rate: str) -> RateLimiter:
    return RateLimiter(storage, limits.parse_many(rate))


def let_through(one: RateLimiter, attempts: int, user_id: str = "alice", count: int = 1) -> int:
    return sum(one.spend(user_id, count) is None for _ in range(attempts))


def test_one_worker_lets_the_whole_limit_through(storage: Counted) -> None:
    assert let_through(worker(storage, "1000/minute"), 1500) == 1000


def test_two_workers_together_let_no_more_through(storage: Counted) -> None:
    one, other = worker(storage, "1000/minute"), worker(storage, "1000/minute")
    passed = sum(let_through(each, 1) for _ in range(1500) for each in (one, other))
    assert passed == 1000


def test_few_sends_ask_the_database(storage: Counted) -> None:
    let_through(worker(storage, "1000/minute"), 5000)
    assert storage.questions <= limiter.SHARES + 10


def test_users_have_limits_of_their_own(storage: Counted) -> None:
    one = worker(storage, "10/minute")
    assert let_through(one, 20, "alice") == let_through(one, 20, "bob") == 10


def test_who_is_refused_learns_how_long_to_wait(storage: Counted) -> None:
    one = worker(storage, "1/minute")
    assert one.spend("alice", 1) is None
    seconds = one.spend("alice", 1)
    assert seconds is not None
    assert 55 < seconds <= 60


def test_the_next_window_begins_anew(storage: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    one = worker(storage, "10/minute")
    assert let_through(one, 20) == 10
    monkeypatch.setattr(time, "monotonic", later(time.monotonic))
    monkeypatch.setattr(time, "time", later(time.time))
    assert let_through(one, 20) == 10


def later(clock: object) -> object:
    assert callable(clock)
    return lambda: clock() + 61


def test_many_at_once_count_as_many(storage: Counted) -> None:
    one = worker(storage, "100/minute")
    assert one.spend("alice", 101) is not None
    assert let_through(one, 1, count=60) == 1
    assert let_through(one, 1, count=60) == 0
    assert let_through(one, 100) == 40


def test_of_several_limits_the_tightest_counts(storage: Counted) -> None:
    assert let_through(worker(storage, "5/second; 1000/hour"), 20) == 5


def test_who_sends_little_through_many_workers_gets_through(storage: Counted) -> None:
    workers = [worker(storage, "1200/minute") for _ in range(24)]
    assert sum(let_through(one, 1) for one in workers for _ in range(20)) == 480


def test_of_several_limits_none_is_exceeded_by_threads() -> None:
    one = worker(SlowToAnswer(), "300/hour; 10000/day")
    with ThreadPoolExecutor(10) as threads:
        passed = sum(threads.map(lambda _: let_through(one, 1, count=256), range(10)))
    assert passed == 1


class SlowToAnswer(Counted):
    """A database that lets others run while it works."""

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        value = super().incr(key, expiry, amount)
        threading.Event().wait(0.01)
        return value


def test_a_clock_that_was_wrong_makes_nobody_wait_longer_than_a_window(
    storage: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "get_expiry", lambda _key: time.time() + 86_400)
    one = worker(storage, "1/minute")
    one.spend("alice", 1)
    seconds = one.spend("alice", 1)
    assert seconds is not None
    assert seconds <= 60


def test_threads_do_not_exceed_the_limit(storage: Counted) -> None:
    one = worker(storage, "400/minute")
    with ThreadPoolExecutor(8) as threads:
        passed = sum(threads.map(lambda _: let_through(one, 100), range(8)))
    assert passed == 400


def test_without_limits_nobody_is_asked(storage: Counted) -> None:
    assert let_through(RateLimiter(storage, []), 10) == 10
    assert storage.questions == 0
