"""How a worker serves its sockets: on gevent's loop, on ours, and how one can tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People
from tests.acceptance.tls import TIMEOUT_SECONDS, TlsServer
from tests.acceptance.wire import new_content, new_id
from tests.servers import GunicornServer, WorkerClass, wait_until

ON_THE_LOOP = "sockets are served on gevent's loop"
WITH_THREADS = "sockets are served by a few threads"
SAID: dict[WorkerClass, str] = {"gevent": ON_THE_LOOP, "gthread": WITH_THREADS}
FEW_THREADS = 3


@pytest.fixture(params=["gevent", "gthread"])
def worker_class(request: pytest.FixtureRequest) -> WorkerClass:
    kind: WorkerClass = request.param
    return kind


@pytest.fixture
def server(hosting: Hosting, worker_class: WorkerClass) -> Iterator[GunicornServer]:
    with GunicornServer(
        env=hosting.environment("sqlite"),
        log_path=hosting.log_path(),
        config=hosting.configuration(),
        worker_class=worker_class,
        threads=FEW_THREADS,
    ) as running:
        yield running


def test_the_log_says_how_sockets_are_served(
    server: GunicornServer, people: People, worker_class: WorkerClass
) -> None:
    people.new("alice").enrol().connect()
    wanted = SAID[worker_class]
    wait_until(lambda: wanted in server.log(), TIMEOUT_SECONDS, lambda: f"no {wanted}")
    [other] = set(SAID.values()) - {wanted}
    assert other not in server.log()


def test_sockets_hold_none_of_the_servers_threads(server: GunicornServer, people: People) -> None:
    users = [people.new().enrol() for _ in range(3)]
    clients = [user.connect() for user in users for _ in range(10)]
    for client in clients:
        client.round_trip()
    assert users[0].rest.get("/api/sync").status == 200
    for user in users:
        user.clients[-1].store(users[0].id)
    for client in clients:
        client.round_trip()


class TestWithTls:
    @pytest.fixture
    def server(
        self, hosting: Hosting, tmp_path: Path, worker_class: WorkerClass
    ) -> Iterator[TlsServer]:
        with TlsServer(
            tmp_path,
            env=hosting.environment("sqlite"),
            log_path=hosting.log_path(),
            config=hosting.configuration("keepalive = 20"),  # also for the first request
            worker_class=worker_class,
            threads=FEW_THREADS,
        ) as running:
            yield running

    def test_a_message_goes_through_tls_that_ends_in_gunicorn(self, server: TlsServer) -> None:
        with server.connect("alice") as alice, server.connect("bob") as bob:
            message = {"id": new_id(), "to": "bob", "encrypted_content": new_content()}
            alice.send(json.dumps({"type": "send", **message}))
            assert next_frame(alice, "accepted")["id"] == message["id"]
            delivered = next_frame(bob, "message")
            assert delivered["encrypted_content"] == message["encrypted_content"]

    def test_both_ways_are_full_at_the_same_time(self, server: TlsServer) -> None:
        """What comes is larger and smaller than what TLS gives at once (16 KiB)."""
        sizes = [10, 20_000, 300, 12_000] * 25
        with (
            server.connect("alice") as alice,
            server.connect("bob") as bob,
            ThreadPoolExecutor(2) as senders,
        ):
            sent = {
                name: [
                    {"id": new_id(), "to": to, "encrypted_content": new_content(size)}
                    for size in sizes
                ]
                for name, to in (("alice", "bob"), ("bob", "alice"))
            }

            def send_all(client: ClientConnection, name: str) -> None:
                for message in sent[name]:
                    client.send(json.dumps({"type": "send", **message}))

            sending = [
                senders.submit(send_all, alice, "alice"),
                senders.submit(send_all, bob, "bob"),
            ]
            for client, other in ((bob, "alice"), (alice, "bob")):
                got = [next_message_with_ack(client, other) for _ in sizes]
                assert [one["id"] for one in got] == [one["id"] for one in sent[other]]
                assert [one["encrypted_content"] for one in got] == [
                    one["encrypted_content"] for one in sent[other]
                ]
            for one in sending:
                one.result(TIMEOUT_SECONDS)


def next_message_with_ack(client: ClientConnection, sender: str) -> dict[str, Any]:
    """The next message of this sender's, acknowledged."""
    while True:
        frame = next_frame(client, "message")
        client.send(json.dumps({"type": "ack", "seq": frame["seq"]}))
        if frame["sender"] == sender:
            return frame


def next_frame(client: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        frame: dict[str, Any] = json.loads(client.recv(TIMEOUT_SECONDS))
        if frame["type"] == kind:
            return frame
