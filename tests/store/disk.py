"""Waiting for the disk under gevent.

`python -m gevent.monkey --module tests.store.disk`, in a process of its own because gevent must
patch the standard library before anything is imported. What goes wrong ends it with a traceback.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time

import gevent
import pytest
from gevent.monkey import get_original

from flask_e2emsg import cooperation

DISK_SECONDS = 0.03
PATIENCE_SECONDS = 10.0
TICK_SECONDS = 0.01
WAITERS = 3

wait_in_c = get_original("time", "sleep")
start_thread = get_original("_thread", "start_new_thread")
Lock = get_original("_thread", "allocate_lock")


def others_go_on() -> None:
    """Whoever waits for the disk lets the others run, and waits until it is done."""
    turns, done = [0], []

    def tick() -> None:
        while True:
            turns[0] += 1
            gevent.sleep(TICK_SECONDS)

    def work() -> None:
        ends_at = time.monotonic() + PATIENCE_SECONDS
        while turns[0] <= 3 and time.monotonic() < ends_at:
            wait_in_c(TICK_SECONDS)
        done.append(turns[0])

    others = gevent.spawn(tick)
    cooperation.disk()(work)
    others.kill()
    assert done
    assert done[0] > 3, done


def one_thing_is_done_at_a_time() -> None:
    """All that is asked for is done, one thing after the other."""
    disk, under_way, done = cooperation.disk(), [], []

    def work() -> None:
        under_way.append(threading.get_ident())
        wait_in_c(DISK_SECONDS)
        done.append(list(under_way))
        under_way.clear()

    gevent.joinall([gevent.spawn(disk, work) for _ in range(WAITERS)], raise_error=True)
    assert [len(them) for them in done] == [1] * WAITERS


def what_fails_is_raised_here_and_nowhere_told() -> None:
    """The error comes to the one who asked, and no traceback into the log."""

    def work() -> None:
        raise ValueError("the disk is full")

    with contextlib.redirect_stderr(io.StringIO()) as told, pytest.raises(ValueError, match="full"):
        cooperation.disk()(work)
    assert told.getvalue() == ""


def who_is_ended_waits_for_what_is_under_way() -> None:
    """A greenlet that is killed leaves nothing behind that still uses its connection."""
    done: list[bool] = []
    has_begun, may_end = Lock(), Lock()
    has_begun.acquire()
    may_end.acquire()

    def work() -> None:
        has_begun.release()
        may_end.acquire()
        done.append(True)

    def let_it_end() -> None:
        wait_in_c(TICK_SECONDS)
        may_end.release()

    def ended() -> bool:
        try:
            cooperation.disk()(work)
        except gevent.GreenletExit:
            return bool(done)
        return False

    waiting = gevent.spawn(ended)
    while not has_begun.acquire(False):
        gevent.sleep(TICK_SECONDS)
    waiting.kill(block=False)
    start_thread(let_it_end, ())
    assert waiting.get(timeout=PATIENCE_SECONDS) is True


def another_thread_does_it_itself() -> None:
    """A thread of the host's, which has no loop that runs, is not left waiting for ours."""
    disk, threads, ended = cooperation.disk(), [], Lock()

    def ask() -> None:
        disk(lambda: threads.append(threading.get_ident()))
        threads.append(threading.get_ident())
        ended.release()

    ended.acquire()
    start_thread(ask, ())
    assert ended.acquire(True, PATIENCE_SECONDS)
    assert len(set(threads)) == 1


def main() -> None:
    """Play all of it."""
    others_go_on()
    one_thing_is_done_at_a_time()
    what_fails_is_raised_here_and_nowhere_told()
    who_is_ended_waits_for_what_is_under_way()
    another_thread_does_it_itself()


if __name__ == "__main__":
    main()
