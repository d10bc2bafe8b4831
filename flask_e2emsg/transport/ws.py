"""`GET /api/ws`: one connection's life without its socket, from the hello to the last frame.

evented.py reads and writes: it gives the session each message that has come, and asks it what to
write and when to ask again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
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
from .framing import PING, text_frame
from .pace import Bucket

logger = logging.getLogger("flask_e2emsg.ws")

MAX_ERRORS_IN_A_ROW = 20
WARNING_SECONDS = 60.0  # how long before its end a client hears that its token expires
TYPING_BURST = 256  # to everybody in a large group at once
TYPING_PER_SECOND = 20.0
RETRY_SECONDS = 1.0


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


class Session:
    """One connection.

    Attributes:
        pump: its cursor.
        due_at: when there is something to do though nothing happens, at the latest known moment; on
            the monotonic clock.
        silent_since: since when the client is waited for, on the monotonic clock; None while its
            own requests are worked at. That nobody listens is no silence of the client's.
    """

    __slots__ = (
        "_errors_in_a_row",
        "_expires",
        "_ping_at",
        "_retry_at",
        "_router",
        "_settings",
        "_typing",
        "_user_id",
        "_verify",
        "due_at",
        "pump",
        "silent_since",
    )

    def __init__(
        self,
        settings: Settings,
        router: Router,
        pump: Pump,
        identity: Identity,
        verify: Callable[[str], Identity],
    ) -> None:
        self.pump = pump
        self.silent_since: float | None = time.monotonic()
        self._settings = settings
        self._router = router
        self._user_id = identity.user_id
        self._verify = verify
        self._expires = _Deadline(identity.expires_at)
        self._errors_in_a_row = 0
        self._typing: Bucket | None = None
        self._ping_at = time.monotonic() + settings.heartbeat_seconds
        self._retry_at = 0.0  # the database failed; not before this
        self.due_at = 0.0

    def begin(self, start: Start) -> None:
        """Say hello, and let the cursor move."""
        self.pump.reply(self._hello(start))
        self.pump.start(start.after, start.state.last_seq, self._settings.max_in_flight)

    def failed(self, what: str, error: BaseException) -> None:
        """End the connection for a fault. Not even GreenletExit may end in an HTTP answer."""
        self.pump.close(1011)
        _log_failure(what, error)

    def _hello(self, start: Start) -> bytes:
        return frames.encode(
            "hello",
            user_id=self._user_id,
            connection_id=self.pump.id,
            epoch=start.state.epoch,
            head=start.state.last_seq,
            after=start.after,
            reset=start.reset,
            expires_at=format_time(self._expires.at),
            heartbeat=_whole(self._settings.heartbeat_seconds),
            max_in_flight=self._settings.max_in_flight,
            max_frame_bytes=self._settings.max_frame_bytes,
        )

    def handle(self, text: bytes) -> None:
        """Do what a message asks for.

        Whatever it raises is a fault of ours or of the host: end the connection with failed().
        """
        try:
            frame = frames.decode(text)
        except BadRequest as error:
            self.pump.reply(frames.encode_error(error))
            self._errors_in_a_row += 1
            if self._errors_in_a_row >= MAX_ERRORS_IN_A_ROW:
                self.pump.close(1008)
            return
        self._errors_in_a_row = 0
        try:
            self._dispatch(frame)
        except Refusal as refusal:
            self.pump.reply(frames.encode_error(refusal, _ref_of(frame)))

    def _dispatch(self, frame: frames.ClientFrame) -> None:
        pump, router = self.pump, self._router
        # Nearly all are one of these two, and a pattern costs several times as much.
        if isinstance(frame, frames.Send):
            router.send(pump, frame.message)
            return
        if isinstance(frame, frames.Ack):
            pump.ack(frame.seq)
            return
        match frame:
            case frames.Read(ids):
                router.read(pump, ids)
            case frames.SendMany(ref, messages):
                router.send_many(pump, ref, messages)
            case frames.Typing():
                if self._may_type():
                    router.typing(self._user_id, frame)
            case frames.Ping(ref):
                pump.reply(frames.encode("pong", ref=ref))
            case frames.Refresh(token):
                self._refresh(token)

    def _may_type(self) -> bool:
        if self._typing is None:
            self._typing = Bucket(TYPING_BURST, TYPING_PER_SECOND)
        return self._typing.take()

    def _refresh(self, token: str) -> None:
        identity = self._verify(token)
        if identity.user_id != self._user_id:
            self.pump.close(4403)
            return
        self.pump.credential, self.pump.vouched_at = identity, time.monotonic()
        self._expires = _Deadline(identity.expires_at)
        self.due_at = 0.0
        self.pump.reply(frames.encode("refreshed", expires_at=format_time(identity.expires_at)))

    def due(self, now: float) -> list[bytes]:
        """The frames to write now. Nobody keeps them: they may be large, and the next wait long."""
        pump, texts = self.pump, self.pump.take_replies()
        is_time = now >= self.due_at
        if is_time and (warning := self._expires.warning(now)):
            texts.append(frames.encode("expiring", expires_at=warning))
        if now >= self._retry_at:
            try:
                texts += pump.take_entries()
            except Unavailable:
                self._retry_at = now + RETRY_SECONDS
                self.due_at = min(self.due_at, self._retry_at)
        out = [text_frame(text) for text in texts]
        if is_time:
            if now >= self._ping_at:
                out.append(PING)
                self._ping_at = now + self._settings.heartbeat_seconds
            self.due_at = self._next_at(now)
        elif pump.look_again_at is not None and pump.look_again_at < self.due_at:
            self.due_at = pump.look_again_at
        return out

    def replies(self) -> list[bytes]:
        """Those that answer the client, which it gets even at the end."""
        return [text_frame(frame) for frame in self.pump.take_replies()]

    def end_if_due(self, now: float) -> None:
        """Close when the token has expired, or the client is gone."""
        if now < self.due_at:
            return
        if self._expires.passed(now):
            self.pump.close(4401)
        elif now >= self._silent_at():
            self.pump.close(4408)

    def _next_at(self, now: float) -> float:
        # A silence that begins from now on ends after the next ping.
        at = min(self._ping_at, self._silent_at(), self._expires.next_at())
        look_at = self._retry_at if self._retry_at > now else self.pump.look_again_at
        return at if look_at is None else min(at, look_at)

    def _silent_at(self) -> float:
        since = self.silent_since
        return math.inf if since is None else since + 2 * self._settings.heartbeat_seconds


class _Deadline:
    """The end of a token's validity, kept on the monotonic clock."""

    __slots__ = ("_monotonic", "_warned", "at")

    def __init__(self, at: datetime) -> None:
        self.at = at
        self._monotonic = time.monotonic() + (at - datetime.now(UTC)).total_seconds()
        self._warned = False

    def passed(self, now: float) -> bool:
        """Whether the token has expired."""
        return now >= self._monotonic

    def next_at(self) -> float:
        """When the next thing happens: the warning or the end."""
        return self._monotonic if self._warned else self._monotonic - WARNING_SECONDS

    def warning(self, now: float) -> str | None:
        """The end as text, once, when it is near."""
        if self._warned or now < self.next_at():
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
