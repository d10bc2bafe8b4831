"""A worker that is told to stop says goodbye to its sockets (docs/protocol.md 5)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People, Person
from tests.servers import GunicornServer

USERS, SOCKETS_PER_USER = 20, 10
THREADS = 250
GOODBYE_SECONDS = 5.0


@pytest.fixture
def server(request: pytest.FixtureRequest, hosting: Hosting) -> Iterator[GunicornServer]:
    """A gunicorn with the settings that ship with the extension, its workers gevent or gthread."""
    with GunicornServer(
        env=hosting.environment("sqlite"),
        log_path=hosting.log_path(),
        config=hosting.configuration(),
        worker_class=getattr(request, "param", "gevent"),
        threads=THREADS,
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _quiet_log(server: GunicornServer) -> Iterator[None]:
    """No traceback may come from us; gunicorn's own, of a connection it takes too late, may."""
    yield
    assert "/flask_e2emsg/" not in server.log(), server.log()[-4000:]


def assert_all_hear_1012(people: list[Person], began: float) -> None:
    clients = [client for person in people for client in person.clients]
    assert len(clients) == USERS * SOCKETS_PER_USER
    for client in clients:
        client.expect_close(1012)
    assert time.monotonic() - began < GOODBYE_SECONDS


def crowd(people: People) -> list[Person]:
    users = [people.new() for _ in range(USERS)]
    for user in users:
        for _ in range(SOCKETS_PER_USER):
            user.connect()
    return users


@pytest.mark.parametrize("server", ["gevent", "gthread"], indirect=True)
def test_sigterm_closes_200_sockets_with_1012(server: GunicornServer, people: People) -> None:
    users = crowd(people)
    began = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    assert_all_hear_1012(users, began)


def test_sighup_closes_them_and_a_new_worker_takes_over(
    server: GunicornServer, people: People
) -> None:
    users = crowd(people)
    alice, bob = users[0].enrol(), users[1].enrol()
    stored = alice.clients[0].store(bob.id)["id"]
    began = time.monotonic()
    os.kill(server.pid, signal.SIGHUP)
    assert_all_hear_1012(users, began)
    assert [frame["id"] for frame in bob.reconnect().drain()] == [stored]
