"""Both ends of a real TCP connection: our `WebSocket`, and a client that judges what it gets."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Self

from simple_websocket import Server
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side

from flask_e2emsg.transport.framing import Ended, text_frame
from flask_e2emsg.transport.handshake import Handover
from flask_e2emsg.transport.websocket import WebSocket

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


class Echo:
    """Sends every message back over a `WebSocket`, on a thread of its own."""

    def __init__(self, sock: socket.socket, max_message_bytes: int) -> None:
        self.websocket = WebSocket(sock, max_message_bytes, write_timeout_seconds=10.0)
        self._sock = sock
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the connection has ended."""
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "the echo did not end"

    def _run(self) -> None:
        code = None
        try:
            while True:
                messages = self.websocket.receive()
                self._send_pongs()
                self.websocket.send([text_frame(message) for message in messages])
        except Ended as ended:
            code = ended.code
        except OSError:
            pass
        if code is not None:
            with contextlib.suppress(OSError):
                self._send_pongs()
            self.websocket.close(code)
        self.websocket.linger()
        self._sock.close()

    def _send_pongs(self) -> None:
        self.websocket.send(self.websocket.take_pongs())


class EchoServer:
    """An echo behind an opening handshake, for clients that are whole programs."""

    def __init__(
        self, max_message_bytes: int, serve: Callable[[socket.socket, int], object] = Echo
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


def send_in_thread(websocket: WebSocket, frames: Sequence[bytes]) -> threading.Thread:
    """Write frames on a thread of their own."""
    thread = threading.Thread(target=websocket.send, args=(list(frames),), daemon=True)
    thread.start()
    return thread
