"""WebSocket frames on a socket that flask-sock has upgraded (RFC 6455).

flask-sock and simple-websocket answer the handshake, for every server that they know. They get a
`Handover` in the place of the socket: it sends their 101 whole and gives them nothing to read, so
that they let go of the connection, which then is a `WebSocket`.

Guarantees: one thread reads and one writes; what is written is whole frames under a deadline; a
message is limited in bytes while it arrives; control frames are limited in number; close reasons
are fixed words.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import time
from collections import deque
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side
from websockets.utils import accept_key

from .pace import Bucket

RECEIVE_BYTES = 8192  # all frames in them are parsed at once, while everybody else waits
KERNEL_BYTES = 262144  # of a client that does not read, or does not wait for answers, per direction
WRITE_BYTES = 65536
MAX_PONGS = 16
CONTROL_BURST = 64
CONTROL_PER_SECOND = 10.0  # pings and pongs
MAX_FRAGMENTS = 64  # of one message
LINGER_SECONDS = 1.0
LINGER_BYTES = 8 * 1024 * 1024

# websockets logs parts of frames at DEBUG; ciphertext and tokens must not get there. Nobody else
# can find this logger: a host that configures logging enables all that it finds.
_silent = logging.Logger("flask_e2emsg.frames", logging.CRITICAL + 1)

REASONS = {
    1000: "",
    1001: "going away",
    1002: "protocol error",
    1003: "text frames only",
    1007: "invalid UTF-8",
    1008: "policy violation",
    1009: "message too big",
    1011: "server fault",
    1012: "service restart",
    1013: "overload",
    4401: "token expired or revoked",
    4403: "forbidden",
    4408: "heartbeat missed",
    4429: "flooding",
    4480: "slow consumer",
}


class Ended(Exception):
    """There is nothing more to read.

    Attributes:
        code: what to close with; None when the peer is gone without a close frame.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


class Handover:
    """A stand-in for the socket, for the length of a handshake."""

    def __init__(self, sock: socket.socket, subprotocol: str | None) -> None:
        self._sock = sock
        self._subprotocol = subprotocol
        self._has_answered = False

    def send(self, data: bytes) -> int:
        """Send the answer to the handshake, whole, with the subprotocol that we chose."""
        head = data.removesuffix(b"\r\n\r\n")
        if self._subprotocol is not None and len(head) < len(data):
            data = head + f"\r\nSec-WebSocket-Protocol: {self._subprotocol}\r\n\r\n".encode()
        self._has_answered = True
        with contextlib.suppress(OSError):  # A peer that is gone is noticed by whoever reads next.
            self._sock.sendall(data)
        return len(data)

    def answer(self, key: str) -> None:
        """Send the answer ourselves (RFC 6455, section 4.2.2) to a handshake that was checked."""
        self.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
        )

    def end(self) -> None:
        """After a 101, make sure that nothing but frames can have followed it.

        Whatever goes wrong in a view, Flask answers it with HTTP; this closes its way out.
        """
        if self._has_answered:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def recv(self, _size: int) -> bytes:
        """The end of the stream: whoever reads here is done."""
        return b""

    def fileno(self) -> int:
        """No descriptor, so nobody can wait for data here."""
        return -1

    def close(self) -> None:
        """Nothing: the connection goes on without us."""


class WebSocket:
    """The server's end of a connection. `receive` for one thread, the rest for another."""

    def __init__(
        self,
        sock: socket.socket,
        max_message_bytes: int,
        write_timeout_seconds: float,
        early: bytes = b"",
    ) -> None:
        self._sock = sock
        self._early = early
        self._protocol = Protocol(Side.SERVER, max_size=max_message_bytes, logger=_silent)
        self._parts: list[bytes] = []
        self._ended: Ended | None = None
        self._control = Bucket(CONTROL_BURST, CONTROL_PER_SECOND)
        self._is_between_frames = True
        # Frames that answer the peer's pings. Only the newest must be (RFC 6455, 5.5.3).
        self.pongs: deque[bytes] = deque(maxlen=MAX_PONGS)
        # Since when the reader waits for bytes, on the monotonic clock; None while it works.
        self.waiting_since: float | None = time.monotonic()
        self.waited_seconds = 0.0  # how long the last read waited
        sock.settimeout(write_timeout_seconds)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, KERNEL_BYTES)
        with contextlib.suppress(OSError):  # A Unix socket has no such option.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self) -> list[bytes]:
        """The text messages that have come, as valid UTF-8; waits for bytes, not for a message.

        Raises:
            Ended: the peer closed, broke the protocol, or is gone.
        """
        messages: list[bytes] = []
        if self._ended is None:
            self.waiting_since = began_at = time.monotonic()
            data = self._read()
            self.waiting_since = None
            self.waited_seconds = time.monotonic() - began_at
            self._protocol.receive_data(data)
            try:
                self._handle_events(messages)
            except Ended as ended:
                self._ended = ended
            self._protocol.data_to_send()  # Its answers carry its own words; ours are elsewhere.
        # What came before the end counts, even if it came with it.
        if self._ended is not None and not messages:
            raise self._ended
        return messages

    def _handle_events(self, messages: list[bytes]) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                message = self._message(event)
                if message is not None:
                    messages.append(message)
        if self._protocol.close_rcvd is not None:
            # Also when it came between fragments, which the library takes for an error.
            code = int(self._protocol.close_rcvd.code)
            raise Ended(1000 if code in (1005, 1006) else code)
        if self._protocol.parser_exc is not None:
            sent = self._protocol.close_sent
            raise Ended(1002 if sent is None else int(sent.code))

    def _read(self) -> bytes:
        if self._early:
            data, self._early = self._early[:RECEIVE_BYTES], self._early[RECEIVE_BYTES:]
            return data
        while True:
            try:
                data = self._sock.recv(RECEIVE_BYTES)
            except TimeoutError:
                continue  # The timeout is there for writing.
            except OSError:
                data = b""
            if not data:
                raise Ended(None)
            return data

    def _message(self, frame: Frame) -> bytes | None:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.CONT:
            self._parts.append(bytes(frame.data))
            if not frame.fin:
                if len(self._parts) >= MAX_FRAGMENTS:
                    raise Ended(1008)
                return None
            text = b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]
            self._parts.clear()
            if not text.isascii():
                try:
                    text.decode()
                except UnicodeDecodeError:
                    raise Ended(1007) from None
            return text
        if frame.opcode is Opcode.BINARY:
            raise Ended(1003)
        if frame.opcode is not Opcode.CLOSE and not self._control.take():
            raise Ended(4429)
        if frame.opcode is Opcode.PING:
            self.pongs.append(Frame(Opcode.PONG, frame.data).serialize(mask=False))
        return None

    def send(self, frames: list[bytes]) -> None:
        """Write frames, whole, in as few calls as their size allows.

        Raises:
            OSError: the peer is gone, or took nothing until the deadline.
        """
        waiting, size = [], 0
        for frame in frames:
            waiting.append(frame)
            size += len(frame)
            if size >= WRITE_BYTES:
                self._write(b"".join(waiting))
                waiting, size = [], 0
        if waiting:
            self._write(b"".join(waiting))

    def _write(self, data: bytes) -> None:
        # The deadline is for the next byte, not for all of them: slow is not gone.
        left = memoryview(data)
        self._is_between_frames = False
        while left:
            left = left[self._sock.send(left) :]
        self._is_between_frames = True

    def close(self, code: int) -> None:
        """Say goodbye, and no more: what the peer still sends is not answered."""
        if not self._is_between_frames:
            self.abort()
            return
        payload = code.to_bytes(2, "big") + REASONS.get(code, "").encode()
        with contextlib.suppress(OSError):
            self._sock.sendall(Frame(Opcode.CLOSE, payload).serialize(mask=False))
            self._sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """End it now, for both threads."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def linger(self) -> None:
        """Take what still comes for a moment.

        Closing on unread bytes resets the connection, and the peer may lose our close frame.
        """
        deadline, left = time.monotonic() + LINGER_SECONDS, LINGER_BYTES
        with contextlib.suppress(OSError):
            while (seconds := deadline - time.monotonic()) > 0 and left > 0:
                self._sock.settimeout(seconds)
                data = self._sock.recv(RECEIVE_BYTES)
                if not data:
                    break
                left -= len(data)
        self.abort()


def text_frame(text: bytes) -> bytes:
    """A text message as one unmasked frame."""
    size = len(text)
    if size < 126:
        return bytes((0x81, size)) + text
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + text
    return b"\x81\x7f" + size.to_bytes(8, "big") + text


PING = Frame(Opcode.PING, b"").serialize(mask=False)


def early_bytes(environ: dict[str, Any], sock: socket.socket) -> bytes:
    """What the server has read of a connection beyond the handshake.

    A client shall wait for the 101, but of one that does not, part of a frame may be in there.
    """
    stream = environ.get("wsgi.input")
    if isinstance(stream, io.BufferedReader):  # Werkzeug's
        sock.setblocking(False)
        return stream.peek()
    unreader = getattr(getattr(stream, "reader", None), "unreader", None)  # gunicorn's
    buffer = getattr(unreader, "buf", None)
    return buffer.getvalue() if isinstance(buffer, io.BytesIO) else b""


def socket_of(environ: dict[str, Any]) -> tuple[str, socket.socket] | None:
    """The connection's socket and where it stands in the WSGI environ, if the server gives it."""
    for key in ("gunicorn.socket", "werkzeug.socket"):
        sock = environ.get(key)
        if sock is not None:
            return key, sock
    return None
