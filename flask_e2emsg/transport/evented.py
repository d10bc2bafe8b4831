"""A connection on gevent's loop: the way for gunicorn's gevent workers, with no greenlet waiting.

The loop takes from the socket what has come, and it says when there is room to write, or that a
time has come; each of these asks for a task. One task handles, another writes; they meet in the
session only.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import sys
import time
from _socket import socket as PlainSocket
from collections.abc import Callable
from typing import Any

from .framing import RECEIVE_BYTES, Decoder, Ended, close_frame
from .pace import TURN_SECONDS
from .reactor import PRIORITY, Reactor, Task
from .websocket import LINGER_BYTES, LINGER_SECONDS, set_options
from .ws import Session, Start

READABLE, WRITABLE = 1, 2


def why_not(sock: socket.socket) -> str | None:
    """Why a socket cannot be put on gevent's loop; None if it can."""
    gevent_socket = sys.modules.get("gevent.socket")
    if gevent_socket is None or not isinstance(sock, gevent_socket.socket):
        return "this server has no gevent loop"
    if isinstance(sock, ssl.SSLSocket):
        return "TLS ends in this server"
    return None


class Evented:
    """One connection.

    It takes the descriptor away from the server's socket, so that the server cannot close it.
    """

    __slots__ = (
        "_arrived",
        "_decoder",
        "_early",
        "_end_at",
        "_is_over",
        "_is_saying_goodbye",
        "_left_to_discard",
        "_loop",
        "_on_end",
        "_pump",
        "_reading",
        "_rest",
        "_session",
        "_sock",
        "_texts",
        "_timer",
        "_timer_at",
        "_to_read",
        "_to_write",
        "_write_timeout",
        "_writing",
    )

    def __init__(
        self,
        reactor: Reactor,
        session: Session,
        sock: socket.socket,
        early: bytes,
        max_message_bytes: int,
        write_timeout_seconds: float,
        on_end: Callable[[], None],
    ) -> None:
        set_options(sock)
        self._session = session
        self._pump = session.pump
        self._decoder = Decoder(max_message_bytes)
        self._early = early
        self._arrived: bytes | None = None  # nothing at all, where the client is gone
        self._texts: list[bytes] = []  # they wait for their turn, or until answers are taken
        self._rest: memoryview | None = None  # what the client does not take yet
        self._write_timeout = write_timeout_seconds
        self._end_at = math.inf  # on the monotonic clock; unless bytes go out, or all is said
        self._is_saying_goodbye = False
        self._left_to_discard = LINGER_BYTES
        self._is_over = False
        self._on_end = on_end
        self._loop = reactor.loop
        self._reading = Task(reactor, self._read)
        self._writing = Task(reactor, self._write)
        self._sock = PlainSocket(sock.family, sock.type, sock.proto, sock.detach())
        self._sock.setblocking(False)
        self._to_read = self._loop.io(self._sock.fileno(), READABLE, priority=PRIORITY)
        self._to_write: Any = None
        self._timer: Any = None
        self._timer_at = math.inf

    def start(self, start: Start) -> None:
        """Serve from now on. Whatever fails, the client gets a close frame."""
        try:
            self._session.begin(start)
        except BaseException as error:
            self._session.failed("opening", error)
        self._pump.attach(self._writing, self)
        self._reading.set()

    def set(self) -> None:
        """The client may have room for another request."""
        if self._texts:
            self._reading.set()

    def _can_read(self) -> None:
        if self._arrived is not None or self._texts or self._is_saying_goodbye:
            # What was taken before has its turn first. The rest waits in TCP.
            self._to_read.stop()
        else:
            # To look away until the task has its turn would cost more than to take it now.
            try:
                self._arrived = self._receive_some()
            except BlockingIOError:
                return
            self._session.silent_since = None
        self._reading.set()

    def _can_write(self) -> None:
        self._to_write.stop()
        self._writing.set()

    def _is_time(self) -> None:
        self._timer_at = math.inf
        self._writing.set()

    def _read(self) -> None:
        if self._is_over or self._is_saying_goodbye:
            self._discard()
            return
        try:
            self._read_and_handle()
        except BlockingIOError:
            self._listen()
        except Ended as ended:
            self._to_read.stop()
            self._pump.close(1006 if ended.code is None else ended.code)
        except BaseException as error:
            self._session.failed("reading", error)

    def _read_and_handle(self) -> None:
        texts = self._texts or self._decoder.feed(self._receive())
        self._session.silent_since = None
        self._texts = texts[self._handle_some(texts) :]
        if not self._texts:
            self._listen()
        elif not self._pump.is_full and self._pump.close_code is None:
            self._reading.set()  # After everybody else who is waiting.
        if self._decoder.has_pongs:
            self._writing.set()

    def _handle_some(self, texts: list[bytes]) -> int:
        """Handle messages for one turn, and while the client has room; how many that were."""
        pump, session = self._pump, self._session
        ends_at = time.monotonic() + TURN_SECONDS
        for number, text in enumerate(texts):
            if pump.is_full or pump.close_code is not None or time.monotonic() >= ends_at:
                return number
            session.handle(text)
        return len(texts)

    def _receive(self) -> bytes:
        if self._decoder.has_ended:
            return b""
        if self._arrived is not None:
            data, self._arrived = self._arrived, None
            return data
        if self._early:
            size = self._decoder.appetite
            data, self._early = self._early[:size], self._early[size:]
            return data
        return self._receive_some()

    def _receive_some(self) -> bytes:
        try:
            return self._sock.recv(self._decoder.appetite)
        except BlockingIOError:
            raise
        except OSError:
            return b""

    def _listen(self) -> None:
        if self._arrived is not None or self._early or self._decoder.has_ended:
            self._reading.set()
        elif not self._is_over:
            self._session.silent_since = time.monotonic()
            self._watch()

    def _watch(self) -> None:
        if not self._to_read.active:
            self._to_read.start(self._can_read)

    def _discard(self) -> None:
        """Take what still comes for a moment.

        Closing on unread bytes resets the connection, and the peer may lose our close frame.
        """
        if self._is_over:
            return
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            self._watch()
        except OSError:
            self._end()
        else:
            self._left_to_discard -= len(data)
            if data and self._left_to_discard > 0:
                self._watch()
            else:
                self._end()

    def _write(self) -> None:
        if self._is_over:
            return
        try:
            self._go_on_writing()
        except OSError:
            self._pump.close(4480)
            self._end()
        except BaseException as error:
            self._session.failed("writing", error)
            if self._is_saying_goodbye:
                self._end()

    def _go_on_writing(self) -> None:
        now = time.monotonic()
        if self._pump.close_code == 1006:
            self._end()
            return
        if self._rest is not None:
            self._send(self._rest)
        if self._rest is None and not self._is_saying_goodbye:
            self._session.end_if_due(now)
            if self._pump.close_code is None:
                self._write_frames(self._decoder.take_pongs() + self._session.due(now))
            else:
                self._say_goodbye(self._pump.close_code)
        if now >= self._end_at:
            raise TimeoutError
        at = self._session.due_at if self._end_at == math.inf else self._end_at
        if at < self._timer_at and not self._is_over:
            self._set_timer(at, now)

    def _write_frames(self, frames: list[bytes]) -> None:
        if frames:
            self._send(memoryview(b"".join(frames)))

    def _say_goodbye(self, code: int) -> None:
        self._is_saying_goodbye = True
        self._send(memoryview(b"".join([*self._session.replies(), close_frame(code)])))
        self._reading.set()

    def _send(self, data: memoryview) -> None:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            self._rest, self._end_at = None, math.inf
            if self._is_saying_goodbye:
                self._sock.shutdown(socket.SHUT_WR)
                self._end_at = time.monotonic() + LINGER_SECONDS
            return
        # The deadline is for the next byte, not for all of them: slow is not gone.
        if sent or self._rest is None:
            self._end_at = time.monotonic() + self._write_timeout
        self._rest = data[sent:]
        if self._to_write is None:
            self._to_write = self._loop.io(self._sock.fileno(), WRITABLE, priority=PRIORITY)
        self._to_write.start(self._can_write)

    def _set_timer(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.close()
        self._timer_at = at
        self._timer = self._loop.timer(max(at - now, 0.0))
        self._timer.start(self._is_time)

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        for watcher in (self._to_read, self._to_write, self._timer):
            if watcher is not None:
                watcher.close()
        with contextlib.suppress(OSError):
            self._sock.close()
        self._on_end()
