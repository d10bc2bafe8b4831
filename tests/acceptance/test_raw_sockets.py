"""What a client may send around and behind its handshake, byte by byte, on every server."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import Hosting
from tests.acceptance.people import Person
from tests.acceptance.raw import RawClient, handshake, send_raw
from tests.servers import FlaskRunServer, GunicornServer, WebServer
from tests.transport.peers import frame, text

PING = text('{"type":"ping","ref":"early"}')
HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
GOODBYE = frame(8, b"\x03\xe8")


@pytest.fixture(scope="module", params=["gevent", "gthread", "flask run"])
def server(request: pytest.FixtureRequest, hosting: Hosting) -> Iterator[WebServer]:
    env, log_path = hosting.environment("sqlite"), hosting.log_path()
    running: WebServer
    if request.param == "flask run":
        running = FlaskRunServer(env=env, log_path=log_path)
    elif request.param == "gthread":
        running = GunicornServer(env=env, log_path=log_path, worker_class="gthread")
    else:
        running = GunicornServer(env=env, log_path=log_path)
    with running:
        yield running


# Frames in the packet of the handshake.


def test_frames_that_come_with_the_handshake_are_answered(alice: Person) -> None:
    with RawClient(alice, behind=PING) as client:
        assert client.next_frame("pong")["ref"] == "early"
        client.round_trip()


def test_a_frame_may_be_cut_anywhere_by_the_end_of_the_handshakes_packet(alice: Person) -> None:
    for cut in (1, 5, len(PING) - 1):
        with RawClient(alice, behind=PING[:cut]) as client:
            client.next_frame("caught_up")
            client.socket.sendall(PING[cut:])
            assert client.next_frame("pong")["ref"] == "early"
            client.round_trip()


def test_more_early_frames_than_a_server_reads_at_once_are_answered(alice: Person) -> None:
    large = text(b'{"type":"ping","x":"' + b"y" * 40_000 + b'"}')
    with RawClient(alice, behind=large * 3 + PING) as client:
        for ref in (None, None, None, "early"):
            assert client.next_frame("pong")["ref"] == ref
        client.round_trip()


def test_a_goodbye_that_comes_with_the_handshake_is_answered(alice: Person) -> None:
    with RawClient(alice, behind=GOODBYE) as client:
        assert client.ending() == 1000


# HTTP where frames belong.


@pytest.mark.parametrize("data", [HTTP, b"\r\n" + HTTP, HTTP * 100], ids=["one", "late", "many"])
def test_a_request_behind_the_handshake_is_a_broken_frame(alice: Person, data: bytes) -> None:
    with RawClient(alice, behind=data) as client:
        assert client.ending() == 1002
    with RawClient(alice) as client:
        client.next_frame("caught_up")
        client.socket.sendall(data)
        assert client.ending() == 1002


def test_a_request_behind_the_goodbye_is_not_answered(alice: Person) -> None:
    with RawClient(alice, behind=GOODBYE + HTTP) as client:
        assert client.ending() == 1000


# Handshakes that are none.

CHANGES: dict[str, tuple[bytes, bytes, bytes]] = {
    "a body": (b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n", b"hello"),
    "a body of frames": (b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(PING), PING),
    "a body in chunks": (
        b"\r\n\r\n",
        b"\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
    ),
    "HTTP/1.0": (b"HTTP/1.1", b"HTTP/1.0", b""),
    "HEAD": (b"GET", b"HEAD", b""),
    "two keys": (b"\r\n\r\n", b"\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", b""),
    "two versions": (b"\r\n\r\n", b"\r\nSec-WebSocket-Version: 8\r\n\r\n", b""),
    "two upgrades": (b"\r\n\r\n", b"\r\nUpgrade: h2c\r\n\r\n", b""),
    "another upgrade first": (b"Upgrade: websocket", b"Upgrade: h2c, websocket", b""),
    "a key beyond ASCII": (b"Key: dGhl", b"Key: \xff\xfehl", b""),
    "NUL in the query": (b"/api/ws", b"/api/ws?cursor=%00", b""),
    "no text in the query": (b"/api/ws", b"/api/ws?cursor=%ff%fe&token=%ed%a0%80", b""),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_is_no_handshake_is_refused_before_the_upgrade(alice: Person, kind: str) -> None:
    old, new, body = CHANGES[kind]
    request = handshake(alice)
    assert old in request
    answer = send_raw(alice.server, request.replace(old, new, 1) + body)
    assert answer.split(b" ")[1] in (b"400", b"401"), answer
    assert b"\x81" not in answer


@pytest.mark.parametrize("count", [1, 3])
def test_headers_that_are_too_large_are_refused_and_cost_nothing(alice: Person, count: int) -> None:
    large = b"\r\n" + b"X-Large: " + b"x" * 200_000
    request = handshake(alice).replace(b"\r\n\r\n", large * count + b"\r\n\r\n")
    assert b" 101 " not in send_raw(alice.server, request)
    with RawClient(alice) as client:
        client.round_trip()


def test_a_client_that_expects_100_gets_it_before_the_101(alice: Person) -> None:
    request = handshake(alice, [("Expect", "100-continue")])
    answer = send_raw(alice.server, request + GOODBYE)
    interim, _, rest = answer.rpartition(b"HTTP/1.1 101 ")
    assert set(interim.split(b"\r\n\r\n")) == {b"HTTP/1.1 100 Continue", b""}
    assert b"HTTP/1" not in rest


# Compression.


def test_compressed_frames_are_refused_since_compression_was(alice: Person) -> None:
    offer = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
    bomb = zlib.compress(bytes(100_000_000), wbits=-15)[:-4]
    with RawClient(alice, headers=[offer]) as client:
        assert "extensions" not in client.head.lower()
        client.socket.sendall(frame(1, bomb, reserved=4))
        assert client.ending() == 1002
