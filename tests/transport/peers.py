"""Both ends of a real TCP connection: ours, and a client that judges what it gets."""

from __future__ import annotations

import contextlib
import hashlib
import math
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Self, cast

from simple_websocket import Server
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side

from flask_e2emsg.delivery.pump import Signal
from flask_e2emsg.transport.evented import Evented
from flask_e2emsg.transport.framing import text_frame
from flask_e2emsg.transport.handshake import Handover
from flask_e2emsg.transport.reactor import Reactor
from flask_e2emsg.transport.threads import ThreadReactor
from flask_e2emsg.transport.ws import Session, Start

DEADLINE_SECONDS = 20.0
TINY_BUFFER = 8192


def connected_sockets(
    send_buffer: int | None = None, receive_buffer: int | None = None
) -> tuple[socket.socket, socket.socket]:
    """The server's and the client's end of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        if receive_buffer is not None:  # before connecting, or the window is large already
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    if send_buffer is not None:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    client.settimeout(DEADLINE_SECONDS)
    return server, client


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, reserved: int = 0) -> bytes:
    """One masked frame of a client; nothing here stops it from breaking the rules."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    size = len(data)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    mask = b"mask"
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
    return bytes([first]) + length + mask + masked


def text(data: bytes | str) -> bytes:
    """A text message of a client, in one frame."""
    return frame(Opcode.TEXT, data if isinstance(data, bytes) else data.encode())


def fragments(*parts: bytes) -> bytes:
    """A text message of a client, in several frames."""
    last = len(parts) - 1
    return b"".join(
        frame(Opcode.CONT if index else Opcode.TEXT, part, fin=index == last)
        for index, part in enumerate(parts)
    )


def digest(data: bytes | bytearray | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


class Peer:
    """The client's end: it parses what arrives, and any fault in it fails the test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.frames: list[Frame] = []
        self.received = bytearray()
        self._protocol = Protocol(Side.CLIENT, max_size=None)

    def read(self, size: int = 65536) -> bool:
        """Take what there is, at most `size` bytes; False at the end of the stream."""
        try:
            data = self.sock.recv(size)
        except ConnectionError:
            data = b""
        if data:
            self.received += data
            self._protocol.receive_data(data)
            assert self._protocol.parser_exc is None, self._protocol.parser_exc
            events = self._protocol.events_received()
            self.frames += [event for event in events if isinstance(event, Frame)]
        return bool(data)

    def read_frames(self, count: int, size: int = 65536) -> list[Frame]:
        """The first `count` frames."""
        while len(self.frames) < count:
            assert self.read(size), f"the stream ended after {len(self.frames)} frames"
        return self.frames

    def read_to_the_end(self) -> list[Frame]:
        """All frames until the server has closed its half."""
        while self.read():
            pass
        return self.frames

    def close_frame(self) -> tuple[int, str]:
        """Code and reason of the close frame with which the stream ends."""
        last = self.read_to_the_end()[-1]
        assert last.opcode is Opcode.CLOSE, last
        close = Close.parse(last.data)
        return int(close.code), close.reason


class FakePump:
    """As much of a pump as a connection asks for."""

    is_full = False

    def __init__(self) -> None:
        self.close_code: int | None = None
        self._stirred: Signal | None = None

    def attach(self, stirred: Signal, _answered: Signal) -> None:
        self._stirred = stirred
        stirred.set()

    def detach(self) -> None:
        """Nobody reads or writes the connection any more."""
        self._stirred = None

    def close(self, code: int) -> None:
        """End the connection; the first code stays."""
        if self.close_code is None:
            self.close_code = code
        self.stir()

    def stir(self) -> None:
        if self._stirred is not None:
            self._stirred.set()


class Talk:
    """A session of which a test says what it writes, one frame at a time; it keeps what comes."""

    def __init__(self) -> None:
        self.pump = FakePump()
        self.due_at = math.inf
        self.silent_since: float | None = None
        self.over = threading.Event()
        self._heard: list[bytes] = []
        self._has_heard = threading.Condition()
        self._to_say: deque[bytes] = deque()

    def say(self, frames: Iterable[bytes]) -> None:
        """Write these, after those that wait."""
        self._to_say.extend(frames)
        self.pump.stir()

    def heard(self, count: int) -> list[bytes]:
        """The messages that have come, once there are so many."""
        with self._has_heard:
            came = self._has_heard.wait_for(lambda: len(self._heard) >= count, DEADLINE_SECONDS)
            assert came, f"{len(self._heard)} messages"
            return list(self._heard)

    def ended_with(self) -> int | None:
        """What it was closed with, once it is over."""
        assert self.over.wait(DEADLINE_SECONDS), "the connection did not end"
        return self.pump.close_code

    def begin(self, _start: Start) -> None:
        pass

    def failed(self, _what: str, _error: BaseException) -> None:
        self.pump.close(1011)

    def handle(self, text: bytes) -> None:
        with self._has_heard:
            self._heard.append(text)
            self._has_heard.notify_all()

    def replies(self) -> list[bytes]:
        frames = list(self._to_say)
        self._to_say.clear()
        return frames

    def due(self, _now: float) -> list[bytes]:
        frames = [self._to_say.popleft()] if self._to_say else []
        if self._to_say:
            self.pump.stir()
        return frames

    def end_if_due(self, _now: float) -> None:
        pass


class Echo(Talk):
    """A session that answers every message with itself."""

    def handle(self, text: bytes) -> None:
        self.say([text_frame(text)])

    def due(self, _now: float) -> list[bytes]:
        return self.replies()


@cache
def thread_reactor() -> ThreadReactor:
    """That of all tests of this process, for its threads stay."""
    return ThreadReactor()


def serve(
    sock: socket.socket,
    max_message_bytes: int,
    talk: Talk | None = None,
    *,
    write_timeout_seconds: float = DEADLINE_SECONDS,
    reactor: Reactor | None = None,
) -> Talk:
    """Serve a connection, unless told otherwise with threads; `sock` stays the caller's."""
    talk = talk or Talk()
    connection = Evented(
        reactor or thread_reactor(),
        cast("Session", talk),
        sock.dup(),
        b"",
        max_message_bytes,
        write_timeout_seconds,
        talk.over.set,
        is_ours=True,
    )
    connection.start(cast("Start", None))
    return talk


def serve_echo(sock: socket.socket, max_message_bytes: int) -> None:
    """Serve a connection with an echo, until its end."""
    serve(sock, max_message_bytes, Echo())


class EchoServer:
    """An echo behind an opening handshake, for clients that are whole programs."""

    def __init__(
        self, max_message_bytes: int, serve: Callable[[socket.socket, int], object] = serve_echo
    ) -> None:
        self._max_message_bytes = max_message_bytes
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE_SECONDS)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        lines = [line.partition(":") for line in head.decode().split("\r\n")[1:] if line]
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        headers.pop("sec-websocket-extensions", None)
        shake_hands(sock, headers)
        with sock:
            self._serve(sock, self._max_message_bytes)


HANDSHAKE = {
    "host": "localhost",
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def shake_hands(
    sock: socket.socket,
    headers: Mapping[str, str] = HANDSHAKE,
    subprotocol: str | None = None,
    options: Mapping[str, object] = MappingProxyType({}),
) -> Server:
    """Have simple-websocket answer the handshake through our stand-in."""
    environ: dict[str, object] = {
        "HTTP_" + name.upper().replace("-", "_"): value for name, value in headers.items()
    }
    environ["gunicorn.socket"] = Handover(sock, subprotocol)
    return Server.accept(environ, **options)


def wait_until_full(sock: socket.socket) -> None:
    """Wait until the peer's and the kernel's buffers take no more."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while select.select([], [sock], [], 0)[1]:
        assert time.monotonic() < deadline, "the buffers do not fill"
