"""Tasks on gevent's loop: soon, once for all who ask, never twice at a time, whatever others do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial

import gevent
import gevent.event
import pytest

from flask_e2emsg.transport.greenlets import IDLE_WORKERS, GreenletReactor, GreenletTask

DEADLINE_SECONDS = 10.0
READABLE = 1
Doorbell = Callable[[Callable[[], None]], Callable[[], None]]


@pytest.fixture
def reactor() -> GreenletReactor:
    return GreenletReactor()


def eventually(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(DEADLINE_SECONDS):
        while not condition():
            gevent.sleep(0.001)


def test_a_task_is_done_once_for_all_who_ask_before_it_begins(reactor: GreenletReactor) -> None:
    done: list[int] = []
    task = GreenletTask(reactor, lambda: done.append(1))
    for _ in range(5):
        task.set()
    assert done == []  # Nobody who asks does it.
    eventually(lambda: done == [1])
    task.set()
    eventually(lambda: done == [1, 1])


def test_who_asks_while_it_is_done_has_it_done_again_afterwards(reactor: GreenletReactor) -> None:
    go_on, running, most = gevent.event.Event(), [0], [0]
    times = [0]

    def work() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        times[0] += 1
        go_on.wait()
        running[0] -= 1

    task = GreenletTask(reactor, work)
    task.set()
    eventually(lambda: running == [1])
    for _ in range(3):
        task.set()
    gevent.sleep(0.01)
    assert times == [1]
    go_on.set()
    eventually(lambda: times == [2])
    assert most == [1]


@pytest.fixture
def doorbell(reactor: GreenletReactor) -> Iterator[Doorbell]:
    """Has the loop call somebody once, when it has looked at a socket; returns the bell."""
    ears, bell = socket.socketpair()
    watcher = gevent.get_hub().loop.io(ears.fileno(), READABLE)

    def watch(heard: Callable[[], None]) -> Callable[[], None]:
        def hear() -> None:
            watcher.stop()
            heard()

        watcher.start(hear)
        return lambda: bell.sendall(b"!")

    yield watch
    watcher.close()
    ears.close()
    bell.close()


def test_who_asks_for_itself_again_and_again_lets_sockets_be_seen(
    reactor: GreenletReactor, doorbell: Doorbell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_e2emsg.transport.greenlets.PASS_SECONDS", 0.0)
    turns: list[int] = []
    seen_after: list[int] = []
    ring = doorbell(lambda: seen_after.append(len(turns)))

    def work() -> None:
        turns.append(1)
        if len(turns) == 10:
            ring()
        if len(turns) < 1_000:
            task.set()

    task = GreenletTask(reactor, work)
    task.set()
    eventually(lambda: len(turns) == 1_000)
    assert seen_after == [10]


def test_sockets_are_seen_between_many_tasks(
    reactor: GreenletReactor, doorbell: Doorbell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_e2emsg.transport.greenlets.PASS_SECONDS", 0.0)
    done: list[int] = []
    seen_after: list[int] = []
    ring = doorbell(lambda: seen_after.append(len(done)))
    works = [partial(done.append, number) for number in range(100)]
    tasks = [GreenletTask(reactor, work) for work in works[:10]]
    tasks += [GreenletTask(reactor, ring), *(GreenletTask(reactor, work) for work in works[10:])]
    for task in tasks:
        task.set()
    eventually(lambda: len(done) == 100)
    assert seen_after == [10]


def test_tasks_go_on_in_the_same_pass_while_there_is_time(
    reactor: GreenletReactor, doorbell: Doorbell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_e2emsg.transport.greenlets.PASS_SECONDS", DEADLINE_SECONDS)
    done: list[int] = []
    seen_after: list[int] = []
    ring = doorbell(lambda: seen_after.append(len(done)))
    GreenletTask(reactor, ring).set()
    for number in range(100):
        GreenletTask(reactor, partial(done.append, number)).set()
    eventually(lambda: len(seen_after) == 1)
    assert seen_after == [100]


def test_a_task_that_waits_holds_up_nobody(reactor: GreenletReactor) -> None:
    never = gevent.event.Event()
    waiting: list[int] = []
    for number in range(3 * IDLE_WORKERS):

        def wait(number: int = number) -> None:
            waiting.append(number)
            never.wait()

        GreenletTask(reactor, wait).set()
    eventually(lambda: len(waiting) == 3 * IDLE_WORKERS)
    done: list[int] = []
    GreenletTask(reactor, lambda: done.append(1)).set()
    eventually(lambda: done == [1])
    never.set()
    gevent.sleep(0.01)
    GreenletTask(reactor, lambda: done.append(2)).set()
    eventually(lambda: done == [1, 2])


@pytest.mark.parametrize("fault", [RuntimeError, SystemExit, gevent.GreenletExit, MemoryError])
def test_a_task_that_fails_ends_nobody_else(
    reactor: GreenletReactor, fault: type[BaseException]
) -> None:
    def fail() -> None:
        raise fault

    done: list[int] = []
    for work in (fail, lambda: done.append(1)):
        GreenletTask(reactor, work).set()
    eventually(lambda: done == [1])
    GreenletTask(reactor, lambda: done.append(2)).set()
    eventually(lambda: done == [1, 2])


def test_a_task_asks_for_others_and_for_itself(reactor: GreenletReactor) -> None:
    counts = {"first": 0, "second": 0}

    def first() -> None:
        counts["first"] += 1
        tasks[1].set()
        if counts["first"] < 1000:
            tasks[0].set()

    def second() -> None:
        counts["second"] += 1

    tasks = [GreenletTask(reactor, first), GreenletTask(reactor, second)]
    tasks[0].set()
    loops = [0]

    def count_loops() -> None:
        while counts["first"] < 1000:
            loops[0] += 1
            gevent.sleep(0)

    counter = gevent.spawn(count_loops)
    eventually(lambda: counts["first"] == 1000 and counts["second"] >= 1)
    counter.join(DEADLINE_SECONDS)
    assert loops[0] > 100  # The loop had its turn all the time.


def test_the_loop_itself_may_ask(reactor: GreenletReactor) -> None:
    done: list[int] = []
    task = GreenletTask(reactor, lambda: done.append(1))
    task.set()
    eventually(lambda: done == [1])  # There is an idle worker now.
    timer = reactor.timer(0.001)
    timer.start(task.set)
    eventually(lambda: done == [1, 1])
    timer.close()


def test_threads_of_the_host_may_ask(reactor: GreenletReactor) -> None:
    done: list[int] = []
    tasks = [GreenletTask(reactor, partial(done.append, number)) for number in range(100)]

    def ask() -> None:
        for task in tasks:
            task.set()

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: sorted(done) == list(range(100)))
    thread.join(DEADLINE_SECONDS)
