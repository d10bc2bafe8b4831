"""A connection on a loop that it shares with all others: nobody waits for it alone.

The loop takes from the socket what has come, and it says when there is room to write, or that a
time has come; each of these asks for a task. One task handles, another writes; they meet in the
session only. With threads the loop and both tasks may run at the same time: whoever uses the socket
holds the lock.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from ..delivery.thread import quick_lock
from .framing import RECEIVE_BYTES, Decoder, Ended, close_frame
from .pace import TURN_SECONDS
from .reactor import Reactor, Timer, Watcher
from .ws import Session, Start

KERNEL_BYTES = 262144  # of a client that does not read, or does not wait for answers, per direction
LINGER_SECONDS = 1.0
LINGER_BYTES = 8 * 1024 * 1024
# What a socket that does not wait says in the place of waiting; one with TLS has words of its own.
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def set_options(sock: socket.socket) -> None:
    """Fit a socket to frames that shall go out at once."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, KERNEL_BYTES)
    with contextlib.suppress(OSError):  # A Unix socket has no such option.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Evented:
    """One connection, on a socket that nobody else uses until `on_end` is called.

    Then it is shut down in both directions, and closed if `is_ours`.
    """

    __slots__ = (
        "_arrived",
        "_decoder",
        "_early",
        "_end_at",
        "_has_had_its_turn",
        "_is_ours",
        "_is_over",
        "_is_saying_goodbye",
        "_left_to_discard",
        "_lock",
        "_on_end",
        "_pump",
        "_reactor",
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
        sock: Any,
        early: bytes,
        max_message_bytes: int,
        write_timeout_seconds: float,
        on_end: Callable[[], None],
        *,
        is_ours: bool,
    ) -> None:
        set_options(sock)
        sock.setblocking(False)
        self._session = session
        self._pump = session.pump
        self._decoder = Decoder(max_message_bytes)
        self._early = early
        self._arrived: bytes | None = None  # nothing at all, where the client is gone
        self._texts: list[bytes] = []  # they wait for their turn, or until answers are taken
        self._has_had_its_turn = False  # and the next one will come
        self._rest: memoryview | None = None  # what the client does not take yet
        self._write_timeout = write_timeout_seconds
        self._end_at = math.inf  # on the monotonic clock; unless bytes go out, or all is said
        self._is_saying_goodbye = False
        self._left_to_discard = LINGER_BYTES
        self._is_over = False
        self._on_end = on_end
        self._lock = quick_lock()
        self._reactor = reactor
        # What is written answers others, too, or what was read, which is limited by then.
        self._reading = reactor.task(self._read, is_limited=True)
        self._writing = reactor.task(self._write)
        self._sock = sock
        self._is_ours = is_ours
        self._to_read = reactor.reader(sock.fileno())
        self._to_write: Watcher | None = None
        self._timer: Timer | None = None
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
        if self._texts and not self._has_had_its_turn:
            self._reading.set()

    def _can_read(self) -> None:
        if self._arrived is not None or self._texts or self._is_saying_goodbye:
            # What was taken before has its turn first. The rest waits in TCP.
            self._to_read.stop()
        else:
            # To look away until the task has its turn would cost more than to take it now.
            with self._lock:
                try:
                    self._arrived = self._receive_some()
                except NOT_NOW:
                    return
            self._session.silent_since = None
        self._reading.set()

    def _can_write(self) -> None:
        if self._to_write is not None:
            self._to_write.stop()
        self._writing.set()

    def _is_time(self) -> None:
        self._timer_at = math.inf
        self._writing.set()

    def _read(self) -> None:
        if self._is_over:
            self._let_go()
            return
        if self._is_saying_goodbye:
            self._discard()
            return
        try:
            self._read_and_handle()
        except NOT_NOW:
            self._listen()
        except Ended as ended:
            self._to_read.stop()
            self._pump.close(1006 if ended.code is None else ended.code)
        except BaseException as error:
            self._session.failed("reading", error)

    def _read_and_handle(self) -> None:
        self._has_had_its_turn = False
        texts = self._texts or self._decoder.feed(self._receive())
        self._session.silent_since = None
        self._texts = texts[self._handle_some(texts) :]
        if not self._texts:
            self._listen()
        elif not self._pump.is_full and self._pump.close_code is None:
            self._has_had_its_turn = True
            self._reading.set()
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
        with self._lock:
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
            data: bytes = self._sock.recv(self._decoder.appetite)
            return data
        except NOT_NOW:
            raise
        except OSError:
            return b""

    def _listen(self) -> None:
        if self._has_more():
            self._reading.set()
        elif not self._is_over:
            self._session.silent_since = time.monotonic()
            self._watch()

    def _has_more(self) -> bool:
        """Whether there is something to read of which the loop knows nothing."""
        if self._arrived is not None or self._early or self._decoder.has_ended:
            return True
        if not isinstance(self._sock, ssl.SSLSocket):
            return False
        with self._lock:
            return self._sock.pending() > 0

    def _watch(self) -> None:
        if not self._to_read.active:
            self._to_read.start(self._can_read)

    def _discard(self) -> None:
        """Take what still comes for a moment.

        Closing on unread bytes resets the connection, and the peer may lose our close frame.
        """
        try:
            with self._lock:
                data = self._sock.recv(RECEIVE_BYTES)
        except NOT_NOW:
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
        with self._lock:
            if self._is_over:
                return
            try:
                sent = self._sock.send(data)
            except NOT_NOW:
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
                self._to_write = self._reactor.writer(self._sock.fileno())
            self._to_write.start(self._can_write)

    def _set_timer(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.close()
        self._timer_at = at
        self._timer = self._reactor.timer(max(at - now, 0.0))
        self._timer.start(self._is_time)

    def _end(self) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            for watcher in (self._to_read, self._to_write, self._timer):
                if watcher is not None:
                    watcher.close()
            with contextlib.suppress(OSError):
                if self._is_ours:
                    self._sock.close()
                else:
                    self._sock.shutdown(socket.SHUT_RDWR)
        self._on_end()
        self._reading.set()

    def _let_go(self) -> None:
        """Break every cycle that we are part of: thousands of us may wait for no collector."""
        self._pump.detach()
        self._reading.cancel()
        self._writing.cancel()
        self._decoder.close()
