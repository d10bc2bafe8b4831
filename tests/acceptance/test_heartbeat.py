"""A short E2EMSG_HEARTBEAT_SECONDS: silence ends a connection with 4408 (docs/protocol.md 5)."""

from __future__ import annotations

import base64
import os
import socket
import struct
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.acceptance.conftest import DATABASES, Hosting
from tests.acceptance.people import Person
from tests.servers import WebServer

HEARTBEAT = 1
TEXT, CLOSE, PING = 0x1, 0x8, 0x9


@pytest.fixture(scope="module", params=DATABASES[:1])
def server(request: pytest.FixtureRequest, hosting: Hosting) -> Iterator[WebServer]:
    with hosting.gunicorn(request.param, E2EMSG_HEARTBEAT_SECONDS=HEARTBEAT) as running:
        yield running


class MuteClient:
    """A connection that reads frames and never says a word, not even a pong."""

    def __init__(self, person: Person) -> None:
        address = urlsplit(person.server.url)
        self.socket = socket.create_connection((str(address.hostname), address.port or 80), 10)
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET /api/ws HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Authorization: Bearer {person.token()}\r\n\r\n"
        )
        self.socket.sendall(request.encode())
        self.stream = self.socket.makefile("rb")
        assert b"101" in self.stream.readline()
        while self.stream.readline() != b"\r\n":
            pass

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Opcode and payload of every frame until the server ends the stream."""
        while head := self.stream.read(2):
            assert head[0] & 0xF0 == 0x80, f"fragmented, or with reserved bits: {head!r}"
            size = head[1]
            assert size < 126 or size == 126, f"masked or too long: {head!r}"
            if size == 126:
                (size,) = struct.unpack("!H", self.stream.read(2))
            yield head[0] & 0x0F, self.stream.read(size)

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


def test_hello_names_the_heartbeat(alice: Person) -> None:
    assert alice.connect().hello["heartbeat"] == HEARTBEAT


def test_a_client_that_answers_no_ping_is_closed_with_4408(alice: Person) -> None:
    client, started = MuteClient(alice), time.monotonic()
    try:
        frames = list(client.frames())
    finally:
        client.close()
    lasted = time.monotonic() - started
    assert PING in [opcode for opcode, _ in frames]
    opcode, payload = frames[-1]
    assert (opcode, struct.unpack("!H", payload[:2])) == (CLOSE, (4408,))
    assert HEARTBEAT < lasted < 2 * HEARTBEAT + 2


def test_a_client_that_answers_pings_stays(alice: Person, bob: Person) -> None:
    quiet = bob.connect()  # the library answers pings in the background
    quiet.assert_silent(4 * HEARTBEAT)
    message_id = alice.connect().store(bob.id)["id"]
    assert quiet.message()["id"] == message_id
