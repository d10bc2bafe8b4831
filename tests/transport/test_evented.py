"""Frames on real sockets: whole, bounded, and closed with the right word."""

from __future__ import annotations

import inspect
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import simple_websocket
from websockets.frames import Frame, Opcode

from flask_e2emsg.transport.framing import (
    CONTROL_BURST,
    MAX_FRAGMENTS,
    MAX_PONGS,
    REASONS,
    text_frame,
)
from flask_e2emsg.transport.handshake import Handover
from tests.transport.peers import (
    DEADLINE_SECONDS,
    TINY_BUFFER,
    Echo,
    Peer,
    connected_sockets,
    digest,
    fragments,
    frame,
    serve,
    shake_hands,
    text,
    wait_until_full,
)

LIMIT = 1000
BINARY, TEXT, CONT = Opcode.BINARY, Opcode.TEXT, Opcode.CONT
PING, PONG, CLOSE = Opcode.PING, Opcode.PONG, Opcode.CLOSE


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end."""
    server, client = connected_sockets()
    with server, client:
        yield server, client


@pytest.fixture
def tiny_sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The same with buffers that hold less than one frame."""
    server, client = connected_sockets(send_buffer=TINY_BUFFER, receive_buffer=TINY_BUFFER)
    with server, client:
        yield server, client


@pytest.fixture
def echo(sockets: tuple[socket.socket, socket.socket]) -> Iterator[Peer]:
    """The client of an echo whose messages have at most LIMIT bytes."""
    server, client = sockets
    echo = serve(server, LIMIT, Echo())
    yield Peer(client)
    client.close()
    echo.ended_with()


def received(sock: socket.socket, count: int, max_message_bytes: int = LIMIT) -> list[bytes]:
    """The first `count` messages that come."""
    return serve(sock, max_message_bytes).heard(count)


# Writing.


def test_a_slow_reader_gets_every_frame_whole(
    tiny_sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = tiny_sockets
    dice = random.Random(1)
    sent = [dice.randbytes(30_000).hex().encode() for _ in range(500)]
    serve(server, LIMIT).say(text_frame(message) for message in sent)
    wait_until_full(server)
    got = Peer(client).read_frames(500, size=5000)
    assert [digest(one.data) for one in got] == [digest(message) for message in sent]
    assert {one.opcode for one in got} == {TEXT}


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_a_frame_of_any_length_is_one_that_others_read(
    sockets: tuple[socket.socket, socket.socket], size: int
) -> None:
    server, client = sockets
    sent = b"x" * size
    serve(server, LIMIT).say([text_frame(sent)])
    [got] = Peer(client).read_frames(1)
    assert (got.opcode, got.fin, got.data) == (TEXT, True, sent)


def test_pings_of_a_slow_reader_are_answered_between_whole_frames(
    tiny_sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = tiny_sockets
    sent = [str(number).encode() * 10_000 for number in range(100)]
    pings = [f"ping {number}".encode() for number in range(CONTROL_BURST)]
    serve(server, LIMIT).say(text_frame(message) for message in sent)
    wait_until_full(server)
    peer = Peer(client)
    for payload in pings:
        client.sendall(frame(PING, payload))
        assert peer.read(1500)
    while not (count(peer, TEXT) == len(sent) and pings[-1] in pongs_of(peer)):
        assert peer.read(5000)
    assert [one.data for one in peer.frames if one.opcode is TEXT] == sent
    # Of several unanswered pings only the newest needs a pong (RFC 6455, 5.5.3).
    assert [payload for payload in pings if payload in pongs_of(peer)] == pongs_of(peer)
    assert count(peer, TEXT) + count(peer, PONG) == len(peer.frames)


def count(peer: Peer, opcode: Opcode) -> int:
    return sum(1 for one in peer.frames if one.opcode is opcode)


def pongs_of(peer: Peer) -> list[bytes]:
    return [bytes(one.data) for one in peer.frames if one.opcode is PONG]


def test_a_reader_that_takes_nothing_is_cut_at_the_deadline(
    tiny_sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, _ = tiny_sockets
    talk = serve(server, LIMIT, write_timeout_seconds=0.3)
    started = time.monotonic()
    talk.say([text_frame(b"x" * 60_000)] * 500)
    assert talk.ended_with() == 4480
    assert 0.25 < time.monotonic() - started < 5


def test_a_reader_that_keeps_taking_a_little_is_not_cut() -> None:
    server, client = connected_sockets(receive_buffer=32_768)
    sent, pace, taken = text_frame(b"x" * 3_000_000), threading.Event(), bytearray()
    with server, client:
        serve(server, LIMIT, write_timeout_seconds=1.0).say([sent])
        began = time.monotonic()
        while len(taken) < len(sent):
            taken += client.recv(60_000)
            pace.wait(0.03)
        assert time.monotonic() - began > 1.5
    assert digest(taken) == digest(sent)


def test_reading_goes_on_while_nothing_comes_for_longer_than_a_write_may_take(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = sockets
    talk = serve(server, LIMIT, write_timeout_seconds=0.05)
    late = threading.Timer(0.3, client.sendall, [text("late")])
    late.start()
    assert talk.heard(1) == [b"late"]
    late.join()


# Reading.


def test_several_messages_that_come_together_are_several_messages(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = sockets
    client.sendall(text("one") + text("two") + fragments(b"thr", b"", b"ee"))
    assert received(server, 3) == [b"one", b"two", b"three"]


def test_a_message_may_come_byte_by_byte(sockets: tuple[socket.socket, socket.socket]) -> None:
    server, client = sockets
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    talk = serve(server, LIMIT)
    for byte in text("slow é"):
        client.sendall(bytes([byte]))
    assert talk.heard(1) == ["slow é".encode()]


def test_a_character_may_be_split_over_fragments(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = sockets
    client.sendall(fragments("€".encode()[:1], "€".encode()[1:]))
    assert received(server, 1) == ["€".encode()]


def test_a_control_frame_may_stand_between_fragments(echo: Peer) -> None:
    echo.sock.sendall(frame(TEXT, b"fr", fin=False) + frame(PING, b"?") + frame(CONT, b"ame"))
    pong, message = echo.read_frames(2)
    assert (pong.opcode, pong.data) == (PONG, b"?")
    assert (message.opcode, message.data) == (TEXT, b"frame")


@pytest.mark.parametrize(
    "end",
    [
        frame(CLOSE, b"\x03\xe8"),
        frame(BINARY, b"x"),
        text(b"\xff"),
        text(b"x" * (LIMIT + 1)),
        b"\xff\xff",
    ],
    ids=["a close frame", "binary", "bad UTF-8", "too big", "garbage"],
)
def test_messages_before_the_end_are_not_lost_when_they_come_with_it(
    sockets: tuple[socket.socket, socket.socket], end: bytes
) -> None:
    server, client = sockets
    client.sendall(text("last words") + end)
    assert received(server, 1) == [b"last words"]


def test_a_peer_that_is_gone_leaves_no_code(sockets: tuple[socket.socket, socket.socket]) -> None:
    server, client = sockets
    client.close()
    assert serve(server, LIMIT).ended_with() == 1006


def test_a_message_may_come_in_as_many_fragments_as_are_allowed(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = sockets
    client.sendall(fragments(*[b"x"] * MAX_FRAGMENTS) * 2)
    assert received(server, 2) == [b"x" * MAX_FRAGMENTS] * 2


def test_of_many_pings_at_once_only_the_newest_are_answered(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = sockets
    pings = [str(number).encode() for number in range(CONTROL_BURST)]
    client.sendall(b"".join(frame(PING, payload) for payload in pings))
    serve(server, LIMIT)
    peer = Peer(client)
    peer.read_frames(MAX_PONGS)
    assert pongs_of(peer) == pings[-MAX_PONGS:]


# Closing.

ENDS: dict[str, tuple[bytes, int]] = {
    "a goodbye": (frame(CLOSE, b"\x03\xe8"), 1000),
    "a goodbye with a reason": (frame(CLOSE, b"\x03\xe8library text"), 1000),
    "a goodbye without a code": (frame(CLOSE), 1000),
    "binary": (frame(BINARY, b"x"), 1003),
    "empty binary": (frame(BINARY), 1003),
    "binary in fragments": (frame(BINARY, b"x", fin=False), 1003),
    "bad UTF-8": (text(b"\xff"), 1007),
    "UTF-8 cut short": (text("€".encode()[:2]), 1007),
    "a surrogate in UTF-8": (text(b"\xed\xa0\x80"), 1007),
    "overlong UTF-8": (text(b"\xc0\xaf"), 1007),
    "bad UTF-8 over fragments": (fragments(b"ok \xe2", b"\x82", b"("), 1007),
    "UTF-8 cut short by the last fragment": (fragments(b"ok", b"\xe2\x82"), 1007),
    "bad UTF-8 in a reason": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "one byte too many": (text(b"x" * (LIMIT + 1)), 1009),
    "one byte too many in two-byte characters": (text("é" * (LIMIT // 2) + "x"), 1009),
    "one character too many": (text("é" * (LIMIT // 2 + 1)), 1009),
    "one byte too many over fragments": (fragments(b"x" * LIMIT, b"x"), 1009),
    "too many fragments": (fragments(*[b"x"] * (MAX_FRAGMENTS + 1)), 1008),
    "empty fragments without end": (
        frame(TEXT, fin=False) + frame(CONT, fin=False) * 10_000,
        1008,
    ),
    "a flood of pings": (frame(PING) * 5000, 4429),
    "a flood of pongs": (frame(PONG, b"unasked") * 5000, 4429),
    "a flood of pings and pongs by turns": ((frame(PING) + frame(PONG)) * 2500, 4429),
    "a flood of pings between fragments": (frame(TEXT, fin=False) + frame(PING) * 5000, 4429),
    "a length of 2^62": (b"\x81\xff\x40" + bytes(11), 1009),
    "RSV1": (frame(TEXT, b"x", reserved=4), 1002),
    "RSV2": (frame(TEXT, b"x", reserved=2), 1002),
    "RSV3": (frame(TEXT, b"x", reserved=1), 1002),
    "RSV1 on a ping": (frame(PING, b"x", reserved=4), 1002),
    "no mask": (Frame(TEXT, b"x").serialize(mask=False), 1002),
    "no mask on a ping": (Frame(PING, b"x").serialize(mask=False), 1002),
    "a reserved opcode": (frame(3, b"x"), 1002),
    "a reserved control opcode": (frame(11, b"x"), 1002),
    "a fragment of nothing": (frame(CONT, b"x"), 1002),
    "a message within a message": (frame(TEXT, b"x", fin=False) + text("y"), 1002),
    "a ping in fragments": (frame(PING, b"x", fin=False), 1002),
    "a ping of 126 bytes": (frame(PING, bytes(126)), 1002),
    "a close frame of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a close code that must not be sent": (frame(CLOSE, b"\x03\xed"), 1002),
    "a close frame between fragments": (
        frame(TEXT, b"x", fin=False) + frame(CLOSE, b"\x03\xe8"),
        1000,
    ),
}


@pytest.mark.parametrize("kind", ENDS)
def test_it_ends_with_the_right_code_and_a_fixed_word(echo: Peer, kind: str) -> None:
    sent, code = ENDS[kind]
    echo.sock.sendall(sent)
    assert echo.close_frame() == (code, REASONS[code])
    assert [one for one in echo.frames[:-1] if one.opcode is not PONG] == []


@pytest.mark.parametrize(
    "message",
    [b"x" * LIMIT, ("é" * (LIMIT // 2)).encode(), ("x" + "€" * (LIMIT // 3)).encode()],
    ids=["one byte each", "two bytes each", "three bytes each"],
)
def test_a_message_of_exactly_the_limit_is_welcome(echo: Peer, message: bytes) -> None:
    assert len(message) == LIMIT
    half = LIMIT // 2 + 1  # in the middle of a character
    echo.sock.sendall(text(message) + fragments(message[:half], message[half:]))
    assert [one.data for one in echo.read_frames(2)] == [message, message]


def test_a_declared_length_beyond_the_limit_is_refused_before_its_bytes_come(echo: Peer) -> None:
    echo.sock.sendall(frame(TEXT, b"x" * (LIMIT + 1))[:10])
    assert echo.close_frame()[0] == 1009


@pytest.mark.parametrize("code", [*REASONS, 4999])
def test_a_reason_is_a_fixed_word(sockets: tuple[socket.socket, socket.socket], code: int) -> None:
    server, client = sockets
    serve(server, LIMIT).pump.close(code)
    assert Peer(client).close_frame() == (code, REASONS.get(code, ""))


def test_a_peer_that_goes_on_sending_is_not_reset_before_it_can_read_the_close_frame(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = sockets
    echo = serve(server, LIMIT, Echo())
    client.sendall(text(b"x" * (LIMIT + 1)) + b"y" * 5_000_000)
    client.shutdown(socket.SHUT_WR)
    assert Peer(client).close_frame()[0] == 1009
    assert echo.ended_with() == 1009


# Taking over from simple-websocket.


def answer_to_handshake(client: socket.socket) -> str:
    """The answer, which nothing may follow."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(1)
    return answer.decode()


def test_the_chosen_subprotocol_is_in_the_101(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = sockets
    shake_hands(server, subprotocol="e2emsg.v1").thread.join(DEADLINE_SECONDS)
    head, *headers = answer_to_handshake(client).removesuffix("\r\n\r\n").split("\r\n")
    named = dict(line.lower().split(": ", 1) for line in headers)
    assert head.startswith("HTTP/1.1 101")
    assert named["sec-websocket-protocol"] == "e2emsg.v1"
    assert named["sec-websocket-accept"] == "s3pplmbitxaq9kygzzhzrbk+xoo="
    assert len(named) == len(headers)


def test_without_a_subprotocol_the_101_names_none(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = sockets
    shake_hands(server).thread.join(DEADLINE_SECONDS)
    assert "sec-websocket-protocol" not in answer_to_handshake(client).lower()


@pytest.mark.parametrize("options", [{}, {"ping_interval": 25}, {"max_message_size": 10}], ids=str)
def test_after_the_handshake_simple_websocket_has_let_go(
    sockets: tuple[socket.socket, socket.socket], options: dict[str, int]
) -> None:
    server, client = sockets
    before = set(threading.enumerate())
    upgraded = shake_hands(server, options=options)
    upgraded.thread.join(DEADLINE_SECONDS)
    assert set(threading.enumerate()) <= before
    with pytest.raises(simple_websocket.ConnectionClosed):
        upgraded.close()
    answer_to_handshake(client)
    serve(server, LIMIT).say([text_frame(b"ours now")])
    assert Peer(client).read_frames(1)[0].data == b"ours now"


def test_nothing_can_follow_when_the_handover_ends(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = sockets
    handover = Handover(server, None)
    handover.end()
    handover.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    handover.end()
    with pytest.raises(OSError, match="Broken pipe"):
        server.sendall(b"HTTP/1.1 500 INTERNAL SERVER ERROR\r\n\r\n")
    answer_to_handshake(client)
    assert client.recv(1) == b""


def test_bytes_that_come_right_behind_the_handshake_are_ours(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    server, client = sockets
    client.sendall(text("early"))
    shake_hands(server).thread.join(DEADLINE_SECONDS)
    assert received(server, 1) == [b"early"]


def test_simple_websocket_writes_in_the_five_places_that_the_handover_is_made_for() -> None:
    # If this fails, read its new source: is the 101 still one send() on the socket of the environ?
    source = inspect.getsource(simple_websocket.ws)
    server, client = source.split("class Client(")
    assert (server.count("sock.send("), client.count("sock.send(")) == (4, 1)
    assert "sendall" not in source
    assert server.count(".recv(") == 1
