"""Behind a real nginx with the published configuration, clients notice nothing of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_e2emsg.config import Settings
from tests.acceptance.client import SocketClient
from tests.acceptance.conftest import Hosting
from tests.acceptance.people import Person
from tests.acceptance.rest import HANDSHAKE, RestClient, raw_get
from tests.acceptance.wire import new_content, new_id
from tests.nginx import CONFIGURATION, Nginx, free_address
from tests.servers import WebServer, wait_until

HEARTBEAT = 1
READ_TIMEOUT = 3  # seconds, three heartbeats as in the published file
MAX_FRAME_BYTES = 131072
LOG_SECONDS = 10.0


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[WebServer]:
    with hosting.gunicorn("sqlite", E2EMSG_HEARTBEAT_SECONDS=HEARTBEAT) as running:
        yield running


@pytest.fixture(scope="module")
def nginx(server: WebServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("nginx")
    address = server.url.removeprefix("http://")
    with Nginx(f"server {address};", folder, f"{READ_TIMEOUT}s") as running:
        yield running


def through(nginx: Nginx, person: Person) -> SocketClient:
    """A socket with the token in the address, as existing clients do it."""
    client = SocketClient(
        nginx.ws_url, person.id, query={"token": person.token()}, headers={"Origin": nginx.url}
    )
    person.clients.append(client)
    return client


def test_messages_and_requests_pass_both_ways(nginx: Nginx, alice: Person, bob: Person) -> None:
    ours, theirs = through(nginx, alice), through(nginx, bob)
    stored = ours.store(bob.id, new_content(90_000))
    theirs.message(stored["id"])
    theirs.ack()
    ours.receipts("delivered", [stored["id"]])
    history = RestClient(nginx.url, alice.rest.token).get(f"/api/messages/{bob.id}")
    assert [message["id"] for message in history.json["messages"]] == [stored["id"]]
    ours.close()
    assert ours.closed_with == 1000


def test_a_foreign_origin_is_refused_behind_it(nginx: Nginx, alice: Person) -> None:
    headers = [*HANDSHAKE, ("Authorization", f"Bearer {alice.rest.token}")]
    foreign = ("Origin", "https://evil.example")
    assert raw_get(nginx.url, "/api/ws", [*headers, foreign]).code == "origin_denied"
    assert raw_get(nginx.url, "/api/ws", [*headers, ("Origin", nginx.url)]).status == 101


def test_a_refusal_passes_as_it_is(nginx: Nginx, server: WebServer) -> None:
    [direct, proxied] = (
        raw_get(url, "/api/ws?token=x", HANDSHAKE) for url in (server.url, nginx.url)
    )
    assert (proxied.status, proxied.body, proxied.after) == (401, direct.body, b"")


def test_an_idle_socket_outlives_the_read_timeout(nginx: Nginx, alice: Person, bob: Person) -> None:
    quiet = through(nginx, bob)
    quiet.assert_silent(READ_TIMEOUT + 2 * HEARTBEAT)
    stored = alice.connect().store(bob.id)["id"]
    assert quiet.message()["id"] == stored


def test_the_published_timeout_is_longer_than_two_heartbeats_and_a_long_poll() -> None:
    [seconds] = re.findall(r"proxy_read_timeout (\d+)s;", CONFIGURATION.read_text())
    assert int(seconds) > 2 * Settings().heartbeat_seconds
    assert int(seconds) > 30


def test_a_body_that_is_too_long_is_refused_by_the_app(nginx: Nginx, alice: Person) -> None:
    assert Settings().max_frame_bytes == MAX_FRAME_BYTES
    client = RestClient(nginx.url, alice.rest.token)
    message = {"id": new_id(), "to": alice.id, "encrypted_content": new_content(MAX_FRAME_BYTES)}
    assert client.post("/api/messages", message).refused(413, "too_large")


def upgrades(nginx: Nginx) -> int:
    return nginx.logs().count('"GET /api/ws" 101')


def test_no_token_is_in_its_logs(nginx: Nginx, alice: Person) -> None:
    token, before = alice.token(), upgrades(nginx)
    through(nginx, alice).close()
    raw_get(nginx.url, f"/api/ws?token={token}", [*HANDSHAKE, ("Referer", f"{nginx.url}/{token}")])
    # A line is written when its request has ended.
    wait_until(lambda: upgrades(nginx) == before + 2, LOG_SECONDS, nginx.logs)
    assert [one for one in alice.tokens if one in nginx.logs()] == []


def test_no_token_is_in_its_logs_when_the_app_is_away(tmp_path: Path, alice: Person) -> None:
    token = alice.token()
    with Nginx(f"server {free_address()};", tmp_path, "3s") as nginx:
        answer = raw_get(nginx.url, f"/api/ws?token={token}", HANDSHAKE)
        assert answer.status == 502
        assert '"GET /api/ws" 502' in nginx.logs()
        assert token not in nginx.logs()
