"""A connection of bare bytes: it sends what no library would, and judges every byte that comes."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from websockets.frames import Close, Frame, Opcode

from tests.acceptance.people import Person
from tests.acceptance.rest import HANDSHAKE, Header
from tests.servers import WebServer
from tests.transport.peers import Peer, text

TIMEOUT_SECONDS = 20.0


def handshake(person: Person, headers: Iterable[Header] = (), target: str = "/api/ws") -> bytes:
    """The bytes of an opening handshake of this user."""
    lines = [f"GET {target} HTTP/1.1", f"Host: {urlsplit(person.server.url).netloc}"]
    fields = [*HANDSHAKE, ("Authorization", f"Bearer {person.rest.token}"), *headers]
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class RawClient:
    """An upgraded connection. What arrives must be whole, valid frames, or the test fails."""

    def __init__(
        self,
        person: Person,
        *,
        headers: Iterable[Header] = (),
        behind: bytes = b"",
        port: int | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        address = urlsplit(person.server.url)
        self.socket = socket.socket()
        if receive_buffer is not None:  # before connecting, or the window is large already
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT_SECONDS)
        self.socket.connect((str(address.hostname), port or address.port))
        self.peer = Peer(self.socket)
        self.socket.sendall(handshake(person, headers) + behind)
        self.head = self._read_head()

    def send_frame(self, frame: dict[str, Any]) -> None:
        """Send one JSON object."""
        self.socket.sendall(text(json.dumps(frame)))

    def next_frame(self, kind: str) -> dict[str, Any]:
        """The next text frame of this type; others before it are dropped."""
        while True:
            frame = self._next()
            if frame.opcode is Opcode.TEXT:
                value = json.loads(bytes(frame.data))
                if value["type"] == kind:
                    return dict(value)

    def take_frames(self, kind: str) -> list[dict[str, Any]]:
        """The text frames of this type that have come; all others are dropped."""
        frames, self.peer.frames = self.peer.frames, []
        texts = [json.loads(bytes(one.data)) for one in frames if one.opcode is Opcode.TEXT]
        return [value for value in texts if value["type"] == kind]

    def next_ping(self) -> None:
        """Wait for the server's next ping; what comes before it is dropped."""
        while self._next().opcode is not Opcode.PING:
            pass

    def round_trip(self) -> None:
        """Ping, and wait for the answer."""
        self.send_frame({"type": "ping", "ref": "raw"})
        self.next_frame("pong")

    def ending(self) -> int | None:
        """The code of the close frame with which the stream ends; None for an end without one."""
        frames = self.peer.read_to_the_end()
        closes = [frame for frame in frames if frame.opcode is Opcode.CLOSE]
        if not closes:
            return None
        data = bytes(closes[0].data)
        # The parser looks at nothing behind a close frame, so look at the bytes.
        assert self.peer.received.endswith(b"\x88" + bytes([len(data)]) + data), "more behind it"
        return int(Close.parse(data).code)

    def close(self) -> None:
        """End it without a word."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _next(self) -> Frame:
        while not self.peer.frames:
            assert self.peer.read(), "the stream has ended"
        return self.peer.frames.pop(0)

    def _read_head(self) -> str:
        head = b""
        while b"\r\n\r\n" not in head:
            byte = self.socket.recv(1)
            assert byte, f"the stream ended in the answer: {head!r}"
            head += byte
        assert head.startswith(b"HTTP/1.1 101 "), head
        return head.decode("latin-1")


def send_raw(server: WebServer, data: bytes) -> bytes:
    """Everything that comes back for these bytes until the server has closed its half."""
    address = urlsplit(server.url)
    answer = b""
    with socket.create_connection((str(address.hostname), address.port), TIMEOUT_SECONDS) as sock:
        with contextlib.suppress(OSError):  # It may have heard enough before it has it all.
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while more := sock.recv(65536):
                answer += more
    return answer


def send_until_cut(sock: socket.socket, data: bytes, times: int) -> int:
    """Send the data again and again until the server is gone; how often that was."""
    sent = 0
    with contextlib.suppress(OSError):
        while sent < times:
            sock.sendall(data)
            sent += 1
    return sent
