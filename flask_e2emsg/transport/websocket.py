"""The server's end of a WebSocket on a socket that waits, for two threads.

Guarantees: one thread reads and one writes; what is written is whole frames under a deadline.
"""

from __future__ import annotations

import contextlib
import socket
import time

from .framing import RECEIVE_BYTES, Decoder, close_frame

KERNEL_BYTES = 262144  # of a client that does not read, or does not wait for answers, per direction
WRITE_BYTES = 65536
LINGER_SECONDS = 1.0
LINGER_BYTES = 8 * 1024 * 1024


def set_options(sock: socket.socket) -> None:
    """Fit a socket to frames that shall go out at once."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, KERNEL_BYTES)
    with contextlib.suppress(OSError):  # A Unix socket has no such option.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class WebSocket:
    """One connection. `receive` for one thread, the rest for another."""

    def __init__(
        self,
        sock: socket.socket,
        max_message_bytes: int,
        write_timeout_seconds: float,
        early: bytes = b"",
    ) -> None:
        self._sock = sock
        self._early = early
        self._decoder = Decoder(max_message_bytes)
        self._is_between_frames = True
        # Since when the reader waits for bytes, on the monotonic clock; None while it works.
        self.waiting_since: float | None = time.monotonic()
        self.waited_seconds = 0.0  # how long the last read waited
        sock.settimeout(write_timeout_seconds)
        set_options(sock)

    def receive(self) -> list[bytes]:
        """The text messages that have come, as valid UTF-8; waits for bytes, not for a message.

        Raises:
            Ended: the peer closed, broke the protocol, or is gone.
        """
        if self._decoder.has_ended:
            return self._decoder.feed(b"")
        self.waiting_since = began_at = time.monotonic()
        data = self._read()
        self.waiting_since = None
        self.waited_seconds = time.monotonic() - began_at
        return self._decoder.feed(data)

    def _read(self) -> bytes:
        size = self._decoder.appetite
        if self._early:
            data, self._early = self._early[:size], self._early[size:]
            return data
        while True:
            try:
                return self._sock.recv(size)
            except TimeoutError:
                continue  # The timeout is there for writing.
            except OSError:
                return b""

    @property
    def has_pongs(self) -> bool:
        """Whether pings wait for their answer."""
        return self._decoder.has_pongs

    def take_pongs(self) -> list[bytes]:
        """What answers the pings that have come, to be written now."""
        return self._decoder.take_pongs()

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
        with contextlib.suppress(OSError):
            self._sock.sendall(close_frame(code))
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
