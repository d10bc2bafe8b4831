"""The same protocol under gthread, under `flask run`, and with two gevent workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import DATABASES, Hosting
from tests.acceptance.people import Person
from tests.acceptance.rest import HANDSHAKE, raw_get
from tests.servers import FlaskRunServer, GunicornServer, WebServer


def server_of(kind: str, hosting: Hosting, database: str) -> WebServer:
    env, log_path = hosting.environment(database), hosting.log_path()
    if kind == "flask run":
        return FlaskRunServer(env=env, log_path=log_path)
    if kind == "gthread":
        return GunicornServer(env=env, log_path=log_path, worker_class="gthread", threads=32)
    return GunicornServer(env=env, log_path=log_path, workers=2)


@pytest.fixture(
    scope="module",
    params=[(kind, db) for kind in ("gthread", "flask run", "two workers") for db in DATABASES],
    ids=lambda param: " on ".join(param),
)
def server(request: pytest.FixtureRequest, hosting: Hosting) -> Iterator[WebServer]:
    kind, database = request.param
    with server_of(kind, hosting, database) as running:
        yield running


def test_a_message_is_sent_and_received_and_the_sockets_close(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    accepted = ours.store(bob.id)
    assert theirs.message(accepted["id"])["seq"] == 1
    theirs.ack()
    ours.receipts("delivered", [accepted["id"]])
    for client in (ours, theirs):
        client.close()
        assert client.closed_with == 1000


def test_a_burst_keeps_its_order(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    sent = [ours.send(bob.id) for _ in range(50)]
    assert [frame["id"] for frame in theirs.entries(50)] == sent


def test_a_backlog_is_waiting(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    stored = [ours.store(bob.id)["id"] for _ in range(3)]
    assert [frame["id"] for frame in bob.connect().drain()] == stored


def test_every_pair_of_connections_finds_each_other(alice: Person, bob: Person) -> None:
    # With two workers, some of these pairs are connected to different processes.
    senders, recipients = [alice.connect() for _ in range(4)], [bob.connect() for _ in range(4)]
    for number, sender in enumerate(senders, start=1):
        accepted = sender.store(bob.id)
        positions = {client.message(accepted["id"])["seq"] for client in recipients}
        assert positions == {number}


def test_a_bad_frame_and_a_binary_frame_are_answered(alice: Person) -> None:
    client = alice.connect()
    client.send_text("nonsense")
    client.error("bad_request")
    client.socket.send(b"\x00")
    client.expect_close(1003)


def test_a_bad_token_is_refused_before_the_upgrade(alice: Person) -> None:
    answer = raw_get(alice.server.url, "/api/ws?token=x", HANDSHAKE)
    assert (answer.status, answer.code, answer.after) == (401, "unauthorized", b"")
