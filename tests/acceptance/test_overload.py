"""A worker with all the sockets that it takes: one more is refused before the 101.

The server still answers everything else at once (docs/protocol.md 2, `overloaded`).
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from flask_e2emsg.capacity import RESERVED_FILES
from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People, Person
from tests.acceptance.rest import HANDSHAKE, Header, RawAnswer, raw_get
from tests.acceptance.swarm import visit
from tests.servers import GunicornServer, WorkerClass, wait_until

SERVED = 40  # connections that the server serves at once
ANSWER_SECONDS = 0.1
FEW_FILES = 200
DEADLINE_SECONDS = 20.0

# A number of the host's, and what is found by itself: 90 % of what each kind of worker serves.
ROOM: dict[str, tuple[WorkerClass, dict[str, object], int]] = {
    "as configured": ("gevent", {"E2EMSG_MAX_CONNECTIONS": 20}, 20),
    "of worker_connections": ("gevent", {}, 36),
    "of worker_connections with threads": ("gthread", {}, 36),
}
THREADS = 10


@pytest.fixture(params=ROOM)
def room(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def few_files() -> Iterator[None]:
    """As in a shell with a low limit of open files, which a server that is started inherits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_FILES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(hosting: Hosting, room: str) -> Iterator[GunicornServer]:
    worker_class, settings, _ = ROOM[room]
    made = GunicornServer(
        env=hosting.environment("sqlite", **settings),
        log_path=hosting.log_path(),
        worker_class=worker_class,
        threads=THREADS,
        config=hosting.configuration(f"worker_connections = {SERVED}"),
    )
    with ExitStack() as stack:
        with few_files():
            running = stack.enter_context(made)
        yield running


def files_of_the_worker(server: GunicornServer) -> int:
    """The soft limit of open files."""
    [worker] = server.worker_pids()
    return int(psutil.Process(worker).rlimit(psutil.RLIMIT_NOFILE)[0])


def ask(person: Person, target: str, headers: Iterable[Header] = ()) -> RawAnswer:
    bearer = ("Authorization", f"Bearer {person.rest.token}")
    return raw_get(person.server.url, target, [*headers, bearer])


def seconds_to_answer(url: str) -> float:
    began = time.monotonic()
    assert visit(url) == 200
    return time.monotonic() - began


def test_one_socket_too_many_is_refused_and_requests_are_answered(
    server: GunicornServer, people: People, room: str
) -> None:
    _, _, most = ROOM[room]
    assert files_of_the_worker(server) >= SERVED + RESERVED_FILES
    late = people.new("late")
    users = [people.new() for _ in range(most // 10 + 1)]
    clients = [users[number // 10].connect() for number in range(most)]
    for _ in range(2):
        refused = ask(late, "/api/ws", HANDSHAKE)
        assert (refused.status, refused.code, refused.after) == (503, "overloaded", b"")
        assert int(refused.headers["retry-after"]) >= 1
    assert ask(late, "/api/sync?wait=5").code == "overloaded"
    assert ask(late, "/api/sync").status == 200
    health = [seconds_to_answer(f"{server.url}/") for _ in range(9)]
    assert statistics.median(health) < ANSWER_SECONDS, health
    clients[0].round_trip()
    clients.pop().close()
    late.reconnect().round_trip()


@pytest.mark.parametrize("room", ["of worker_connections with threads"], indirect=True)
def test_long_polls_leave_threads_for_other_requests(
    server: GunicornServer, people: People
) -> None:
    alice = people.new("alice").enrol()
    hello = alice.connect().hello
    cursor = f"{hello['epoch']}:{hello['head']}"
    most, asked = THREADS * 9 // 10, THREADS + 2
    with ThreadPoolExecutor(asked) as pool:
        polls = [
            pool.submit(ask, alice, f"/api/sync?wait=12&cursor={cursor}") for _ in range(asked)
        ]
        wait_until(
            lambda: sum(poll.done() for poll in polls) == asked - most,
            ANSWER_SECONDS * 100,
            lambda: f"refused are {sum(poll.done() for poll in polls)}",
        )
        assert seconds_to_answer(f"{server.url}/") < ANSWER_SECONDS * 10
        alice.connect().round_trip()
        alice.clients[0].store(alice.id)
        statuses = sorted(poll.result(DEADLINE_SECONDS).status for poll in polls)
        assert statuses == [200] * most + [503] * (asked - most)
