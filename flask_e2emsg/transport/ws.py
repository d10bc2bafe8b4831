"""`GET /api/ws`: one connection's life, from the gate to the close frame.

Three parties share a connection: the reader (the request's own thread) decodes frames and asks the
router; the pump moves the cursor; the writer, a second thread, is the only one that writes. After
the 101 nothing leaves here but frames, whatever happens.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from ..config import Settings
from ..delivery.pump import Pump
from ..delivery.router import Router
from ..errors import BadRequest, E2EMsgError, Refusal, Unavailable
from ..protocol import frames
from ..protocol.values import Cursor, format_time
from ..store.accounts import MailboxState
from .auth import Identity
from .pace import Bucket, Turn
from .websocket import PING, Ended, WebSocket, text_frame

logger = logging.getLogger("flask_e2emsg.ws")

MAX_ERRORS_IN_A_ROW = 20
WARNING_SECONDS = 60.0  # how long before its end a client hears that its token expires
TYPING_BURST = 256  # to everybody in a large group at once
TYPING_PER_SECOND = 20.0
RETRY_SECONDS = 1.0
REST_SECONDS = 0.0001  # a read that waited so long for bytes has let others run


@dataclass(frozen=True, slots=True)
class Start:
    """Where a connection begins in its mailbox."""

    state: MailboxState
    after: int
    reset: bool

    @classmethod
    def at(cls, cursor: Cursor | None, state: MailboxState) -> Start:
        """From the client's cursor, or from the last ack when it has none that counts."""
        acknowledged = max(state.delivered_seq, state.floor_seq)
        if cursor is None:
            return cls(state, acknowledged, False)
        if cursor.epoch != state.epoch or cursor.seq > state.last_seq:
            return cls(state, acknowledged, True)
        if cursor.seq < state.floor_seq:
            return cls(state, state.floor_seq, True)
        return cls(state, cursor.seq, False)


class Connection:
    """Reader and writer of one upgraded socket."""

    def __init__(
        self,
        settings: Settings,
        router: Router,
        websocket: WebSocket,
        pump: Pump,
        identity: Identity,
        verify: Callable[[str], Identity],
    ) -> None:
        self._settings = settings
        self._router = router
        self._websocket = websocket
        self._pump = pump
        self._user_id = identity.user_id
        self._verify = verify
        self._expires = _Deadline(identity.expires_at)
        self._errors_in_a_row = 0
        self._reader_ended = threading.Event()
        self._typing = Bucket(TYPING_BURST, TYPING_PER_SECOND)

    def run(self, start: Start) -> None:
        """Serve until the end. Whatever fails, the client gets a close frame."""
        writer = threading.Thread(target=self._write_until_closed, daemon=True)
        with self._failing_as("opening"):
            self._pump.reply(self._hello(start))
            self._pump.start(start.after, start.state.last_seq, self._settings.max_in_flight)
            writer.start()
        if writer.ident is None:
            self._reader_ended.set()
            self._write_until_closed()
        else:
            self._read_until_closed()
            self._reader_ended.set()
            writer.join()
        self._websocket.linger()

    @contextmanager
    def _failing_as(self, what: str) -> Iterator[None]:
        """Not even GreenletExit may turn into an HTTP answer in the middle of the stream."""
        try:
            yield
        except BaseException as error:
            self._pump.close(1011)
            _log_failure(what, error)

    def _hello(self, start: Start) -> bytes:
        return frames.encode(
            "hello",
            user_id=self._user_id,
            connection_id=self._pump.id,
            epoch=start.state.epoch,
            head=start.state.last_seq,
            after=start.after,
            reset=start.reset,
            expires_at=format_time(self._expires.at),
            heartbeat=_whole(self._settings.heartbeat_seconds),
            max_in_flight=self._settings.max_in_flight,
            max_frame_bytes=self._settings.max_frame_bytes,
        )

    def _read_until_closed(self) -> None:
        with self._failing_as("reading"):
            try:
                self._read_loop()
            except Ended as ended:
                self._pump.close(1006 if ended.code is None else ended.code)

    def _read_loop(self) -> None:
        pump, websocket, turn = self._pump, self._websocket, Turn()
        while pump.close_code is None:
            texts = websocket.receive()
            if websocket.waited_seconds >= REST_SECONDS:
                turn.begin()
            for text in texts:
                if pump.wait_for_room():
                    turn.begin()
                if pump.close_code is not None:
                    return
                self._handle(text)
                turn.worked(len(text))
            if websocket.pongs:
                pump.stirred.set()

    def _handle(self, text: bytes) -> None:
        try:
            frame = frames.decode(text)
        except BadRequest as error:
            self._pump.reply(frames.encode_error(error))
            self._errors_in_a_row += 1
            if self._errors_in_a_row >= MAX_ERRORS_IN_A_ROW:
                self._pump.close(1008)
            return
        self._errors_in_a_row = 0
        try:
            self._dispatch(frame)
        except Refusal as refusal:
            self._pump.reply(frames.encode_error(refusal, _ref_of(frame)))

    def _dispatch(self, frame: frames.ClientFrame) -> None:
        pump, router = self._pump, self._router
        match frame:
            case frames.Send(message):
                router.send(pump, message)
            case frames.Ack(seq):
                pump.ack(seq)
            case frames.Read(ids):
                router.read(pump, ids)
            case frames.SendMany(ref, messages):
                router.send_many(pump, ref, messages)
            case frames.Typing():
                if self._typing.take():
                    router.typing(self._user_id, frame)
            case frames.Ping(ref):
                pump.reply(frames.encode("pong", ref=ref))
            case frames.Refresh(token):
                self._refresh(token)

    def _refresh(self, token: str) -> None:
        identity = self._verify(token)
        if identity.user_id != self._user_id:
            self._pump.close(4403)
            return
        self._pump.credential, self._pump.vouched_at = identity, time.monotonic()
        self._expires = _Deadline(identity.expires_at)
        self._pump.reply(frames.encode("refreshed", expires_at=format_time(identity.expires_at)))

    def _write_until_closed(self) -> None:
        pump, websocket = self._pump, self._websocket
        try:
            with self._failing_as("writing"):
                try:
                    self._write_loop()
                except OSError:
                    pump.close(4480)
                    websocket.abort()
            self._say_goodbye(pump.close_code or 1011)
        finally:
            if not self._reader_ended.is_set():
                websocket.abort()

    def _say_goodbye(self, code: int) -> None:
        if code != 1006:
            self._websocket.close(code)
        if code not in (1006, 4408):  # Those are gone; others may answer.
            self._reader_ended.wait(RETRY_SECONDS)

    def _write_loop(self) -> None:
        pump, websocket = self._pump, self._websocket
        timers = _Timers(ping_at=time.monotonic() + self._settings.heartbeat_seconds)
        while True:
            now = time.monotonic()
            self._end_if_due(now)
            if pump.close_code is not None:
                websocket.send(self._replies())
                return
            websocket.send(self._due(now, timers))
            next_at = min(timers.after(now), self._silent_at(), now + self._expires.seconds())
            if pump.stirred.wait(max(next_at - now, 0.0)):
                pump.stirred.clear()

    def _due(self, now: float, timers: _Timers) -> list[bytes]:
        """What to write now. Nobody keeps it: it may be large, and the next wait long."""
        out = self._pongs() + self._replies()
        if warning := self._expires.warning():
            out.append(text_frame(frames.encode("expiring", expires_at=warning)))
        if now >= timers.retry_at:
            try:
                out += [text_frame(frame) for frame in self._pump.take_entries()]
            except Unavailable:
                timers.retry_at = now + RETRY_SECONDS
        if now >= timers.ping_at:
            out.append(PING)
            timers.ping_at = now + self._settings.heartbeat_seconds
        return out

    def _end_if_due(self, now: float) -> None:
        if self._expires.passed():
            self._pump.close(4401)
        elif now >= self._silent_at():
            self._pump.close(4408)

    def _silent_at(self) -> float:
        """When the client has been silent for too long, unless it says something.

        That nobody listens, since an answer of the database is waited for, is no silence.
        """
        since = self._websocket.waiting_since
        return math.inf if since is None else since + 2 * self._settings.heartbeat_seconds

    def _replies(self) -> list[bytes]:
        return [text_frame(frame) for frame in self._pump.take_replies()]

    def _pongs(self) -> list[bytes]:
        pongs = self._websocket.pongs
        return [pongs.popleft() for _ in range(len(pongs))]


@dataclass(slots=True)
class _Timers:
    """When the writer has something to do on its own, on the monotonic clock."""

    ping_at: float
    retry_at: float = 0.0  # the database failed; not before this

    def after(self, now: float) -> float:
        """The next time that is still to come."""
        return min(self.ping_at, self.retry_at) if self.retry_at > now else self.ping_at


class _Deadline:
    """The end of a token's validity, kept on the monotonic clock."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self._monotonic = time.monotonic() + (at - datetime.now(UTC)).total_seconds()
        self._warned = False

    def passed(self) -> bool:
        """Whether the token has expired."""
        return time.monotonic() >= self._monotonic

    def seconds(self) -> float:
        """How long until the next thing happens: the warning or the end."""
        end = self._monotonic if self._warned else self._monotonic - WARNING_SECONDS
        return end - time.monotonic()

    def warning(self) -> str | None:
        """The end as text, once, when it is near."""
        if self._warned or self.seconds() > 0:
            return None
        self._warned = True
        return format_time(self.at)


def _whole(seconds: float) -> float:
    return int(seconds) if seconds == int(seconds) else seconds


def _ref_of(frame: frames.ClientFrame) -> frames.Ref | None:
    match frame:
        case frames.Send(message):
            return str(message.id)
        case frames.SendMany(ref=ref) | frames.Ping(ref=ref):
            return ref
    return None


def _log_failure(what: str, error: BaseException) -> None:
    # Tracebacks can quote a frame's content, so only say where and what kind.
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "?" if trace is None else f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
    logger.error("%s a connection failed: %s in %s", what, type(error).__name__, place)
    if isinstance(error, E2EMsgError):
        logger.error("%s", error)
