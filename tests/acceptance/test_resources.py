"""What connections leave behind in the worker when they are gone: nothing, however they ended.

Python's collector of garbage is off meanwhile: it would have to look through thousands of others.
"""

from __future__ import annotations

import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.acceptance.cheap_peer import Peer
from tests.acceptance.conftest import Hosting
from tests.acceptance.inside import FAULTS
from tests.acceptance.people import People, Person
from tests.acceptance.rest import HANDSHAKE, RestClient
from tests.acceptance.wire import new_content, new_id
from tests.servers import WORKER_CLASS, GunicornServer, WebServer, wait_until
from tests.transport.peers import frame

HEARTBEAT = 1
DEADLINE_SECONDS = 20.0
PEERS_OF_A_KIND = 50
CROWD = 20
TOLERANCE = 2
CLOSE, TEXT = 0x8, 0x1
OF_THREADS = {"e2emsg-sockets", "e2emsg-tasks"} if WORKER_CLASS == "gthread" else set()

Counts = dict[str, Any]
APP = "tests.acceptance.inside:create_app()"


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[WebServer]:
    env = hosting.environment(
        "sqlite", E2EMSG_HEARTBEAT_SECONDS=HEARTBEAT, E2EMSG_MAX_CONNECTIONS_PER_USER=1000
    )
    with GunicornServer(APP, env=env, log_path=hosting.log_path()) as running:
        assert RestClient(running.url).post("/inside/collector", {"is_on": False}).status == 200
        yield running


@pytest.fixture
def draining_server(hosting: Hosting) -> Iterator[GunicornServer]:
    env = hosting.environment("sqlite")
    with GunicornServer(APP, env=env, log_path=hosting.log_path()) as running:
        yield running


def counts(server: WebServer) -> Counts:
    """What is alive inside the worker."""
    found: Counts = RestClient(server.url).get("/inside").json
    return found


def is_empty(now: Counts) -> bool:
    """Whether there is no connection, nor anything that belonged to one."""
    return now["registry"] == 0 and not any(now["objects"].values())


def is_back_at(before: Counts, now: Counts) -> bool:
    """Whether nothing is left of what came after `before` was counted."""
    same = ("greenlets", "watchers", "descriptors")
    return is_empty(now) and all(now[name] <= before[name] + TOLERANCE for name in same)


@pytest.fixture
def baseline(server: WebServer, alice: Person, bob: Person) -> Counts:
    return rested(server, alice, bob)


def rested(server: WebServer, alice: Person, bob: Person) -> Counts:
    """The worker at rest, when all that starts on demand has started."""
    alice.connect().store(bob.id)
    bob.connect().drain()
    alice.clients[0].close()
    bob.clients[0].close()
    with ThreadPoolExecutor(CROWD) as pool:  # until the database's pools are full
        answers = list(pool.map(lambda _: alice.rest.get("/api/sync").status, range(5 * CROWD)))
    assert answers == [200] * len(answers)
    wait_until(
        lambda: is_empty(counts(server)),
        DEADLINE_SECONDS,
        lambda: f"the worker does not come to rest: {counts(server)}",
    )
    return counts(server)


# The ways to die. Each leaves the client's end as the fault would, until the stack is closed.


def say_goodbye(peer: Peer, held: ExitStack) -> None:
    peer.socket.sendall(frame(CLOSE, struct.pack("!H", 1000)))
    peer.socket.close()


def hang_up(peer: Peer, held: ExitStack) -> None:
    peer.socket.close()


def reset(peer: Peer, held: ExitStack) -> None:
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()


def fall_silent(peer: Peer, held: ExitStack) -> None:
    """What the server sees when the client dies behind a proxy that does not tell."""
    held.callback(peer.socket.close)


def say_goodbye_and_stay(peer: Peer, held: ExitStack) -> None:
    peer.socket.sendall(frame(CLOSE, struct.pack("!H", 1000)))
    held.callback(peer.socket.close)


def talk_nonsense(peer: Peer, held: ExitStack) -> None:
    peer.socket.sendall(random.Random(1).randbytes(4096))
    held.callback(peer.socket.close)


def stop_in_the_middle_of_a_frame(peer: Peer, held: ExitStack) -> None:
    peer.socket.sendall(frame(TEXT, b"x" * 1000)[:500])
    peer.socket.shutdown(socket.SHUT_WR)
    held.callback(peer.socket.close)


def meet_a_fault(peer: Peer, held: ExitStack) -> None:
    fault = random.choice(list(FAULTS))
    peer.send(
        f'{{"type":"send","id":"{new_id()}","to":"somebody","conversation_id":"{fault}",'
        f'"encrypted_content":"{new_content()}"}}'.encode()
    )
    held.callback(peer.socket.close)


@pytest.mark.parametrize(
    "die",
    [
        say_goodbye,
        hang_up,
        reset,
        fall_silent,
        say_goodbye_and_stay,
        talk_nonsense,
        stop_in_the_middle_of_a_frame,
        meet_a_fault,
    ],
    ids=lambda die: die.__name__,
)
def test_nothing_is_left_of_connections_that(
    server: WebServer, baseline: Counts, bob: Person, die: Callable[[Peer, ExitStack], None]
) -> None:
    token, port = bob.token(), _port(server)
    with ExitStack() as held:
        for peer in [Peer(port, token) for _ in range(PEERS_OF_A_KIND)]:
            die(peer, held)
        assert_back_at(server, baseline)


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_nothing_is_left_of_handshakes_that_break_off(
    server: WebServer, baseline: Counts, bob: Person, share: float
) -> None:
    # At 1.0 the request is whole, and nobody is there any more for the 101.
    lines = [f"GET /api/ws?token={bob.token()} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in HANDSHAKE]
    request = "\r\n".join([*lines, "", ""]).encode()
    for _ in range(PEERS_OF_A_KIND // 2):
        with socket.create_connection(("127.0.0.1", _port(server))) as sock:
            sock.sendall(request[: int(len(request) * share)])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert_back_at(server, baseline)


def test_nothing_is_left_of_connections_that_the_database_refuses(
    server: WebServer, baseline: Counts, carol: Person
) -> None:
    # They are registered by then: nothing may be stored unheard between a look and a place.
    assert RestClient(server.url).post("/inside/fail", {"user_id": carol.id}).status == 200
    query = {"token": carol.token()}
    for _ in range(PEERS_OF_A_KIND):
        with pytest.raises(InvalidStatus) as refused:
            carol.connect_with(query=query)
        assert refused.value.response.status_code == 503
    assert_back_at(server, baseline)


def test_nothing_is_left_of_a_client_whose_process_is_stopped(
    server: WebServer, baseline: Counts, bob: Person
) -> None:
    command = [sys.executable, "-m", "tests.acceptance.bystander", server.ws_url]
    with subprocess.Popen(
        [*command, bob.id, str(PEERS_OF_A_KIND)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as bystander:
        try:
            assert bystander.stdin is not None
            assert bystander.stdout is not None
            bystander.stdin.write(bob.token() + "\n")
            bystander.stdin.flush()
            assert bystander.stdout.readline() == f"all are there: {PEERS_OF_A_KIND}\n"
            assert counts(server)["registry"] == PEERS_OF_A_KIND
            bystander.send_signal(signal.SIGSTOP)
            assert_back_at(server, baseline)
        finally:
            bystander.kill()


def test_nothing_is_left_after_draining(draining_server: GunicornServer) -> None:
    server = draining_server
    with People(server) as people, ThreadPoolExecutor(4) as pool:
        alice, bob = people.new("alice").enrol(), people.new("bob").enrol()
        before = rested(server, alice, bob)
        sockets = [one.connect() for one in (alice, bob) for _ in range(10)]
        head = f"{sockets[0].hello['epoch']}:{sockets[0].hello['head']}"
        polls = [pool.submit(alice.rest.get, "/api/sync", cursor=head, wait=30) for _ in range(4)]
        wait_until(
            lambda: counts(server)["waiting"] == 4,
            DEADLINE_SECONDS,
            lambda: f"the polls do not wait: {before}, now {counts(server)}",
        )
        assert RestClient(server.url).post("/inside/drain", {}).status == 200
        for one in sockets:
            one.expect_close(1012)
        assert [poll.result(DEADLINE_SECONDS).status for poll in polls] == [200] * 4
        assert_back_at(server, before)
        # Until the process ends: requests may still come.
        wait_until(
            lambda: ours(server) == {"e2emsg-sends", "e2emsg-admissions"},
            DEADLINE_SECONDS,
            lambda: f"threads of ours: {ours(server)}",
        )


def ours(server: WebServer) -> set[str]:
    """The threads of ours that serve no sockets."""
    names = {name for name in counts(server)["threads"] if name.startswith("e2emsg-")}
    return names - OF_THREADS


def assert_back_at(server: WebServer, before: Counts) -> None:
    wait_until(
        lambda: is_back_at(before, counts(server)),
        DEADLINE_SECONDS,
        lambda: f"left behind: before {before}, now {counts(server)}",
    )


def _port(server: WebServer) -> int:
    return int(server.url.rpartition(":")[2])
