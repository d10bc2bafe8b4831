"""A short E2EMSG_HEARTBEAT_SECONDS: silence ends a connection with 4408 (docs/protocol.md 5)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest
from websockets.frames import Opcode

from flask_e2emsg.transport.evented import LINGER_SECONDS
from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People, Person
from tests.acceptance.probed_host import PROBED, ask
from tests.acceptance.raw import RawClient
from tests.servers import GunicornServer, wait_until
from tests.transport.peers import frame

HEARTBEAT = 2
LATE_SECONDS = 1.0  # by how much a busy machine may be late
CONNECTIONS = 20
HOUR = 3600


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[GunicornServer]:
    env = hosting.environment("sqlite", E2EMSG_HEARTBEAT_SECONDS=HEARTBEAT)
    with GunicornServer(PROBED, env=env, log_path=hosting.log_path()) as running:
        yield running


def descriptors(server: GunicornServer) -> int:
    (pid,) = server.worker_pids()
    return int(psutil.Process(pid).num_fds())


def test_hello_names_the_heartbeat(alice: Person) -> None:
    assert alice.connect().hello["heartbeat"] == HEARTBEAT


def test_a_client_that_answers_no_ping_is_closed_with_4408(alice: Person) -> None:
    with RawClient(alice) as client:
        client.round_trip()
        began = time.monotonic()
        assert client.ending() == 4408
        lasted = time.monotonic() - began
        assert Opcode.PING in [one.opcode for one in client.peer.frames]
    assert 2 * HEARTBEAT - LATE_SECONDS < lasted < 2 * HEARTBEAT + LATE_SECONDS


def test_peers_that_vanish_are_gone_after_two_heartbeats_and_a_goodbye_with_their_descriptors(
    server: GunicornServer, people: People
) -> None:
    # Nothing says goodbye, and nothing reads: as if the network had gone away.
    users = [people.new().enrol() for _ in range(CONNECTIONS)]
    with RawClient(users[0]) as first:  # There is a loop from now on, which has some, too.
        first.round_trip()
    wait_until(lambda: ask(server, "connections") == 0, 5, lambda: "the first one stays")
    before = descriptors(server)
    with ExitStack() as stack:
        for user in users:
            stack.enter_context(RawClient(user)).round_trip()
        began = time.monotonic()
        assert ask(server, "connections") == CONNECTIONS
        wait_until(
            lambda: ask(server, "connections") == 0 and descriptors(server) <= before + 2,
            began + 2 * HEARTBEAT + LINGER_SECONDS + LATE_SECONDS - time.monotonic(),
            lambda: f"{ask(server, 'connections')} connections, {descriptors(server)} of {before}",
        )


def test_clients_that_answer_pings_stay_even_when_the_wall_clock_steps(
    server: GunicornServer, alice: Person, bob: Person
) -> None:
    quiet = bob.connect()  # the library answers pings in the background
    with RawClient(alice) as client:
        client.round_trip()
        began = time.monotonic()
        try:
            for step in (-HOUR, -HOUR, HOUR):
                ask(server, f"clock?step={step}")
                client.next_ping()
                client.socket.sendall(frame(Opcode.PONG))
            lasted = time.monotonic() - began
            client.round_trip()
        finally:
            ask(server, "clock?step=0")
    assert 2 * HEARTBEAT < lasted < 3 * HEARTBEAT + LATE_SECONDS
    message_id = alice.connect().store(bob.id)["id"]
    assert quiet.message()["id"] == message_id
