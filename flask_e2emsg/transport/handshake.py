"""The answer to the handshake, and what comes with the connection that it opens.

Under gunicorn we answer it. Elsewhere flask-sock and simple-websocket do, and get a `Handover` in
the place of the socket: it sends their 101 whole and gives them nothing to read, so that they let
go of the connection.
"""

from __future__ import annotations

import contextlib
import io
import socket
import time
from typing import Any

from websockets.utils import accept_key

from .framing import RECEIVE_BYTES, close_frame

GUNICORN = "gunicorn.socket"  # where it has the connection's socket, in the WSGI environ
GOODBYE_SECONDS = 1.0


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
    for key in (GUNICORN, "werkzeug.socket"):
        sock = environ.get(key)
        if sock is not None:
            return key, sock
    return None


def give_up(sock: socket.socket) -> None:
    """Close with 1011 a connection that cannot be served."""
    deadline = time.monotonic() + GOODBYE_SECONDS
    with contextlib.suppress(OSError):
        sock.sendall(close_frame(1011))
        sock.shutdown(socket.SHUT_WR)
        # Closing on unread bytes resets the connection, and the peer may lose the frame.
        while (seconds := deadline - time.monotonic()) > 0:
            sock.settimeout(seconds)
            if not sock.recv(RECEIVE_BYTES):
                break
