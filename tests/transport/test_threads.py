"""Tasks and sockets on a few threads: soon, once for all who ask, whatever others wait for."""

from __future__ import annotations

import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from flask_e2emsg.transport import threads
from flask_e2emsg.transport.pace import TURN_SECONDS
from flask_e2emsg.transport.reactor import Timer
from flask_e2emsg.transport.threads import (
    FEW_WORKERS,
    MOST_REST_SECONDS,
    MOST_WORKERS,
    ThreadReactor,
)
from tests.servers import wait_until

DEADLINE_SECONDS = 10.0
A_MOMENT = 0.1  # in which nothing may happen


def _of_the_system() -> ThreadReactor:
    return ThreadReactor()


def _without_changes_while_it_waits() -> ThreadReactor:
    """As on systems that know nothing better than `select`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
        return ThreadReactor()


@pytest.fixture(params=[_of_the_system, _without_changes_while_it_waits])
def reactor(request: pytest.FixtureRequest) -> ThreadReactor:
    made: ThreadReactor = request.param()
    return made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def eventually(condition: Callable[[], bool]) -> None:
    wait_until(condition, DEADLINE_SECONDS, lambda: "it did not happen")


def workers(others: set[threading.Thread]) -> int:
    """How many threads for tasks there are that were not there before; those may end meanwhile."""
    return sum(one.name == "e2emsg-tasks" for one in set(threading.enumerate()) - others)


# Tasks.


def test_a_task_is_done_by_others(reactor: ThreadReactor) -> None:
    done: list[str] = []
    reactor.task(lambda: done.append(threading.current_thread().name)).set()
    eventually(lambda: done == ["e2emsg-tasks"])


def test_who_asks_while_it_is_done_has_it_done_again_once(reactor: ThreadReactor) -> None:
    go_on, times, at_once = threading.Event(), [0], [0]

    def work() -> None:
        at_once[0] += 1
        assert at_once == [1]
        times[0] += 1
        go_on.wait(DEADLINE_SECONDS)
        at_once[0] -= 1

    task = reactor.task(work)
    task.set()
    eventually(lambda: times == [1])
    for _ in range(5):
        task.set()
    go_on.set()
    eventually(lambda: times == [2])
    time.sleep(A_MOMENT)
    assert (times, at_once) == ([2], [0])


def test_nothing_that_many_threads_ask_for_is_forgotten(reactor: ThreadReactor) -> None:
    """Each task takes what was there before it was asked for; nothing may be left lying."""
    boxes: list[list[int]] = [[] for _ in range(20)]
    taken: list[list[int]] = [[] for _ in boxes]

    def take(number: int) -> None:
        while boxes[number]:
            taken[number].append(boxes[number].pop(0))

    tasks = [reactor.task(partial(take, number)) for number in range(len(boxes))]

    def put() -> None:
        for one in range(2000):
            boxes[one % len(boxes)].append(one)
            tasks[one % len(boxes)].set()

    putting = [threading.Thread(target=put) for _ in range(4)]
    for thread in putting:
        thread.start()
    for thread in putting:
        thread.join(DEADLINE_SECONDS)
    eventually(lambda: sum(len(one) for one in taken) == 4 * 2000)
    assert not any(boxes)


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_task_that_fails_ends_nobody_else(
    reactor: ThreadReactor, error: type[BaseException]
) -> None:
    done: list[int] = []

    def fail() -> None:
        raise error

    failing = [reactor.task(fail) for _ in range(2 * FEW_WORKERS)]
    for task in failing:
        task.set()
    reactor.task(lambda: done.append(1)).set()
    eventually(lambda: done == [1])
    failing[0].set()
    reactor.task(lambda: done.append(2)).set()
    eventually(lambda: done == [1, 2])


def test_tasks_that_wait_do_not_keep_others_from_being_done(reactor: ThreadReactor) -> None:
    go_on, waiting, done = threading.Event(), [0], []

    def wait() -> None:
        waiting[0] += 1
        go_on.wait(DEADLINE_SECONDS)

    for _ in range(4 * FEW_WORKERS):
        reactor.task(wait).set()
    reactor.task(lambda: done.append(1)).set()
    eventually(lambda: done == [1])
    assert waiting[0] >= FEW_WORKERS
    go_on.set()
    eventually(lambda: waiting == [4 * FEW_WORKERS])


def spin(seconds: float) -> float:
    """Use a processor for so long; the seconds that it took of it."""
    began = time.thread_time()
    while (used := time.thread_time() - began) < seconds:
        pass
    return used


def test_who_takes_all_the_time_it_gets_does_not_get_half_of_it(reactor: ThreadReactor) -> None:
    used = [0.0]

    def work() -> None:
        used[0] += spin(TURN_SECONDS)
        greedy.set()

    greedy, began = reactor.task(work, is_limited=True), time.monotonic()
    greedy.set()
    eventually(lambda: used[0] > 100 * TURN_SECONDS)
    greedy.cancel()
    assert used[0] < (time.monotonic() - began) / 2


def test_who_has_taken_far_too_much_rests_for_a_moment_only(
    reactor: ThreadReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[float] = []
    rests: list[float] = []
    timer = reactor.timer

    def noted(seconds: float) -> Timer:
        rests.append(seconds)
        return timer(seconds)

    def work() -> None:
        if not done:
            spin(5 * MOST_REST_SECONDS)
        done.append(time.monotonic())

    monkeypatch.setattr(reactor, "timer", noted)
    task = reactor.task(work, is_limited=True)
    for times in range(1, 4):
        task.set()
        eventually(partial(_has, done, times))
    assert len(rests) <= 1
    assert max(rests, default=0.0) <= MOST_REST_SECONDS


def test_who_is_not_limited_does_not_rest(reactor: ThreadReactor) -> None:
    began: list[float] = []
    ended: list[float] = []

    def work() -> None:
        began.append(time.monotonic())
        spin(MOST_REST_SECONDS)
        if len(began) < 5:
            task.set()
        ended.append(time.monotonic())

    task = reactor.task(work)
    task.set()
    eventually(partial(_has, ended, 5))
    rests = [later - earlier for earlier, later in zip(ended, began[1:], strict=False)]
    assert min(rests) < MOST_REST_SECONDS / 2


def _has(them: list[float], count: int) -> bool:
    return len(them) == count


def test_many_tasks_that_get_on_are_done_by_few(
    reactor: ThreadReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may stop all of them for a moment, which is not to get on.
    monkeypatch.setattr(threads, "STALL_SECONDS", DEADLINE_SECONDS)
    others, done = set(threading.enumerate()), []
    tasks = [reactor.task(lambda: done.append(1)) for _ in range(5000)]
    for task in tasks:
        task.set()
    eventually(lambda: len(done) == 5000)
    assert workers(others) <= FEW_WORKERS


def test_who_asks_for_many_tasks_hardly_waits_for_those_who_do_them() -> None:
    reactor, done, waits = ThreadReactor(), [], 0

    def work() -> None:
        done.append(sum(range(200)))

    tasks = [reactor.task(work) for _ in range(3000)]
    for _ in range(30):
        done.clear()
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        for task in tasks:
            task.set()
        waits += resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
        eventually(lambda: len(done) == len(tasks))
    assert waits < 30 * len(tasks) / 100, waits


def test_however_many_wait_there_is_a_most_of_threads(
    reactor: ThreadReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "STALL_SECONDS", 0.0001)
    others, go_on, done = set(threading.enumerate()), threading.Event(), []

    def wait() -> None:
        go_on.wait(DEADLINE_SECONDS)
        done.append(1)

    for _ in range(2 * MOST_WORKERS):
        reactor.task(wait).set()
    eventually(lambda: workers(others) == MOST_WORKERS)
    time.sleep(A_MOMENT)
    assert workers(others) == MOST_WORKERS
    go_on.set()
    eventually(lambda: len(done) == 2 * MOST_WORKERS)


def test_threads_that_are_no_longer_needed_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.05)
    others, go_on, done = set(threading.enumerate()), threading.Event(), []
    reactor = ThreadReactor()

    def wait() -> None:
        go_on.wait(DEADLINE_SECONDS)
        done.append(1)

    for _ in range(3 * FEW_WORKERS):
        reactor.task(wait).set()
    eventually(lambda: workers(others) == 3 * FEW_WORKERS)
    go_on.set()
    eventually(lambda: workers(others) == FEW_WORKERS)
    done.clear()
    for _ in range(3 * FEW_WORKERS):
        reactor.task(wait).set()
    eventually(lambda: len(done) == 3 * FEW_WORKERS)


def test_where_no_thread_can_be_started_those_that_run_go_on(
    reactor: ThreadReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    reactor.task(lambda: done.append(0)).set()
    eventually(lambda: done == [0])

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    for number in range(1, 100):
        reactor.task(partial(done.append, number)).set()
    eventually(lambda: sorted(done) == list(range(100)))


# Times.


def test_times_come_in_their_order_and_not_before(reactor: ThreadReactor) -> None:
    began = time.monotonic()
    came: list[tuple[int, float]] = []
    timers = [reactor.timer(seconds) for seconds in (0.3, 0.1, 0.2)]

    def note(number: int) -> None:
        came.append((number, time.monotonic() - began))

    for number, timer in enumerate(timers):
        timer.start(partial(note, number))
    eventually(lambda: len(came) == 3)
    assert [number for number, _ in came] == [1, 2, 0]
    assert all(at >= due for (_, at), due in zip(came, (0.1, 0.2, 0.3), strict=True))


def test_a_time_that_was_closed_does_not_come(reactor: ThreadReactor) -> None:
    came: list[str] = []
    closed, later = reactor.timer(0.05), reactor.timer(0.1)
    closed.start(lambda: came.append("closed"))
    later.start(lambda: came.append("later"))
    closed.close()
    eventually(lambda: came == ["later"])


def test_a_fault_in_a_callback_stops_nobody_else(reactor: ThreadReactor) -> None:
    came: list[int] = []

    def fail() -> None:
        raise SystemExit

    reactor.timer(0.0).start(fail)
    reactor.timer(0.05).start(lambda: came.append(1))
    eventually(lambda: came == [1])


# Sockets.


def test_a_reader_is_told_again_and_again_until_it_stops(
    reactor: ThreadReactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    told, reader = [0], reactor.reader(ours.fileno())

    def tell() -> None:
        told[0] += 1

    reader.start(tell)
    time.sleep(A_MOMENT)
    assert told == [0]
    theirs.send(b"x")
    eventually(lambda: told[0] >= 2)
    reader.stop()
    time.sleep(A_MOMENT)
    before = told[0]
    time.sleep(A_MOMENT)
    assert told[0] == before
    reader.start(tell)
    eventually(lambda: told[0] > before)
    reader.close()


def test_reading_and_writing_are_told_apart(
    reactor: ThreadReactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    reads, writes = threading.Event(), threading.Event()
    reader, writer = reactor.reader(ours.fileno()), reactor.writer(ours.fileno())
    reader.start(reads.set)
    writer.start(writes.set)
    assert writes.wait(DEADLINE_SECONDS)
    assert not reads.is_set()
    writer.stop()
    theirs.send(b"x")
    assert reads.wait(DEADLINE_SECONDS)
    time.sleep(A_MOMENT)
    writes.clear()
    time.sleep(A_MOMENT)
    assert not writes.is_set()
    reader.close()
    writer.close()


def test_what_was_closed_cannot_be_started_and_its_number_may_be_used_again(
    reactor: ThreadReactor,
) -> None:
    ours, theirs = socket.socketpair()
    reader = reactor.reader(ours.fileno())
    reader.start(lambda: None)
    number = ours.fileno()
    reader.close()
    reader.start(lambda: None)
    assert not reader.active
    ours.close()
    theirs.close()
    others = [socket.socketpair() for _ in range(4)]
    [(mine, yours)] = [pair for pair in others if pair[0].fileno() == number][:1] or others[:1]
    told = threading.Event()
    again = reactor.reader(mine.fileno())
    again.start(told.set)
    yours.send(b"x")
    assert told.wait(DEADLINE_SECONDS)
    again.close()
    for one, other in others:
        one.close()
        other.close()


def test_a_socket_that_is_closed_while_it_is_watched_ends_nobody_elses_wait(
    reactor: ThreadReactor,
) -> None:
    ours, theirs = socket.socketpair()
    reader, came = reactor.reader(ours.fileno()), threading.Event()
    reader.start(lambda: None)
    theirs.close()
    ours.close()
    reactor.timer(0.0).start(lambda: None)  # The loop looks at what it knows once more.
    time.sleep(A_MOMENT)
    reader.close()
    reactor.timer(0.0).start(came.set)
    assert came.wait(DEADLINE_SECONDS)


def test_starting_and_stopping_at_the_same_time_loses_nothing(
    reactor: ThreadReactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    """As a connection does it: the loop stops, a task reads and starts again."""
    ours, theirs = pair
    reader, got, count = reactor.reader(ours.fileno()), bytearray(), 20_000

    def read() -> None:
        try:
            got.extend(ours.recv(7))
        except BlockingIOError:
            reader.start(can_read)
        else:
            task.set()

    task = reactor.task(read)

    def can_read() -> None:
        reader.stop()
        task.set()

    reader.start(can_read)
    sent = bytes(number % 251 for number in range(count))
    for at in range(0, count, 13):
        theirs.send(sent[at : at + 13])
    eventually(lambda: len(got) == count)
    assert bytes(got) == sent
    reader.close()
