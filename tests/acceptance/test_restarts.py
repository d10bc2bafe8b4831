"""Workers that end while everybody is busy: by SIGHUP, by SIGTERM, at max_requests, by kill -9.

Nothing that was accepted is lost, ordinary requests are answered, and clients are back at once
(docs/protocol.md 4.6 and 5, `1012`).
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.acceptance.conftest import DATABASES, Hosting
from tests.acceptance.outbox import Outbox, assert_all_arrived_once, read_all
from tests.acceptance.people import People, Person
from tests.acceptance.swarm import Residents, Visitors, p99, visit
from tests.servers import GunicornServer, new_listener, run_once, wait_until

RESIDENTS = 20
BACK_SECONDS = 3.0  # of 99 in 100, on a machine that does nothing else
START_SECONDS = 1.0  # of the host's app, on such a machine
RESTARTS, MOST_RESTARTS = 3, 12  # as many as it takes until enough have visited meanwhile
PAUSE_SECONDS = 0.05  # between batches of 20 messages
KILLS = 3
REPLACED_SECONDS = 20.0
GRACE_SECONDS = 8  # what gunicorn gives its workers after SIGTERM


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that outlives the servers on it."""
    with new_listener() as made:
        yield made


@pytest.fixture
def env(hosting: Hosting, request: pytest.FixtureRequest) -> dict[str, str]:
    return hosting.environment(getattr(request, "param", "sqlite"))


@pytest.fixture
def lines() -> list[str]:
    """What a test's gunicorn.conf.py has after the settings that ship."""
    return []


@pytest.fixture
def successor(
    hosting: Hosting, env: dict[str, str], listener: socket.socket
) -> Iterator[GunicornServer]:
    """A master for the same port and database, not started, which outlives everybody's sockets."""
    later = master(hosting, env, listener, [])
    yield later
    later.stop()


@pytest.fixture
def server(
    hosting: Hosting,
    env: dict[str, str],
    listener: socket.socket,
    lines: list[str],
    successor: GunicornServer,
) -> Iterator[GunicornServer]:
    with master(hosting, env, listener, lines) as running:
        yield running


def master(
    hosting: Hosting, env: dict[str, str], listener: socket.socket, lines: list[str]
) -> GunicornServer:
    config = hosting.configuration(*lines)
    return GunicornServer(
        env=env,
        log_path=hosting.log_path(),
        config=config,
        listener=listener,
        arguments=[f"--graceful-timeout={GRACE_SECONDS}"],
    )


@pytest.fixture
def people(server: GunicornServer, _quiet_log: None) -> Iterator[People]:
    with People(server) as crowd:
        yield crowd
        crowd.abandon_the_lost()


@pytest.fixture
def residents(people: People) -> Iterator[Residents]:
    with Residents([people.new("resident") for _ in range(RESIDENTS)]) as crowd:
        crowd.wait_until_all_are_live()
        for one in crowd.all:
            one.arrivals.clear()
        yield crowd


class Patience:
    """How long a client may be away, on a machine that others may use at the same time.

    A new worker has to load the app, so what that takes right now, beside this test, is measured.
    """

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._slowdown = 1.0
        self.seconds()

    def seconds(self) -> float:
        """BACK_SECONDS, longer by as much as starting the app takes longer than it should."""
        began = time.monotonic()
        run_once("tests.acceptance.host", "create", env=self._env)
        self._slowdown = max(self._slowdown, (time.monotonic() - began) / START_SECONDS)
        return BACK_SECONDS * self._slowdown


@pytest.fixture
def patience(env: dict[str, str], residents: Residents) -> Patience:
    return Patience(env)


def wait_until_replaced(server: GunicornServer, old: list[int]) -> None:
    """The workers are others than these, and the old ones are gone."""
    wait_until(
        lambda: bool(now := server.worker_pids()) and not set(old) & set(now),
        REPLACED_SECONDS,
        lambda: f"{server.worker_pids()} after {old}",
    )


def test_sighup_in_turns_on_two_masters_is_noticed_by_nobody_for_long(
    server: GunicornServer,
    successor: GunicornServer,
    residents: Residents,
    alice: Person,
    bob: Person,
    patience: Patience,
) -> None:
    successor.start()
    with Visitors(server.url) as visitors:
        outbox = Outbox(alice, bob)

        def restart() -> None:
            for turn in range(MOST_RESTARTS):
                if turn >= RESTARTS and visitors.answered > 100:
                    return
                one = (server, successor)[turn % 2]
                old = one.worker_pids()
                os.kill(one.pid, signal.SIGHUP)
                wait_until_replaced(one, old)

        outbox.send_during(restart, PAUSE_SECONDS)
        residents.wait_until_all_are_live(arrivals=1)
    assert (visitors.failures, visitors.answered > 100) == ([], True)
    assert {code for one in residents.all for code in one.closed_with} == {1012}
    assert p99(residents.arrivals) < patience.seconds(), residents.arrivals
    assert_all_arrived_once(outbox, read_all(bob))


@pytest.mark.parametrize("env", DATABASES, indirect=True)
def test_sigterm_loses_nothing_and_lets_requests_end(
    server: GunicornServer,
    successor: GunicornServer,
    residents: Residents,
    alice: Person,
    bob: Person,
    carol: Person,
) -> None:
    outbox = Outbox(alice, bob)
    took: list[float] = []

    def replace() -> None:
        began = time.monotonic()
        server.stop()
        took.append(time.monotonic() - began)
        successor.start()

    with ThreadPoolExecutor(2) as pool:
        before = accepted_connections(server)
        slow = pool.submit(visit, f"{server.url}/slow")
        long_poll = pool.submit(carol.rest.get, "/api/sync", wait=30)
        wait_until(lambda: accepted_connections(server) >= before + 2, 5, lambda: "no requests run")
        outbox.send_during(replace, PAUSE_SECONDS)
        residents.wait_until_all_are_live(arrivals=1)
        assert slow.result() == 200
        assert long_poll.result().json["entries"] == []
        assert took[0] < GRACE_SECONDS
        assert {code for one in residents.all for code in one.closed_with} == {1012}
        assert_all_arrived_once(outbox, read_all(bob))


def accepted_connections(server: GunicornServer) -> int:
    """How many connections the workers have taken."""
    return sum(
        connection.status == psutil.CONN_ESTABLISHED
        for pid in server.worker_pids()
        for connection in psutil.Process(pid).net_connections("tcp")
    )


@pytest.mark.parametrize("lines", [["max_requests = 150"]], ids=["max_requests"])
def test_max_requests_warns_at_start_and_closes_with_1012(
    server: GunicornServer, residents: Residents, alice: Person, bob: Person
) -> None:
    assert "max_requests = 150: after so many requests a worker ends" in server.log()
    outbox, old = Outbox(alice, bob), server.worker_pids()
    with Visitors(server.url) as visitors:
        outbox.send_during(lambda: wait_until_replaced(server, old), PAUSE_SECONDS)
        residents.wait_until_all_are_live(arrivals=1)
    assert (visitors.failures, visitors.answered > 50) == ([], True)
    assert {code for one in residents.all for code in one.closed_with} == {1012}
    assert_all_arrived_once(outbox, read_all(bob))


@pytest.mark.parametrize("env", ["postgresql"], indirect=True)
def test_after_a_kill_everybody_is_back_at_once_and_nothing_is_lost(
    server: GunicornServer, residents: Residents, alice: Person, bob: Person, patience: Patience
) -> None:
    outbox = Outbox(alice, bob)
    for kills in range(1, KILLS + 1):
        outbox.send_during(server.kill_worker)
        residents.wait_until_all_are_live(arrivals=kills)
    assert p99(residents.arrivals) < patience.seconds(), residents.arrivals
    assert_all_arrived_once(outbox, read_all(bob))
