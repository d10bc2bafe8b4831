"""The socket: one thread that connects, reads, and connects again (docs/protocol.md, 2 to 5).

Guarantees: entries are stored before they are acknowledged; after a break the client resumes at its
cursor, with a delay that is random and grows, so that many clients do not come back at once.
"""

from __future__ import annotations

import json
import logging
import random
import ssl
import threading
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ..protocol.values import Cursor
from ..redaction import stack_of
from . import events
from .contacts import Contacts
from .errors import ClientError, Garbled, NoToken, Refused, Unreachable, WrongUser
from .frames import check_entry
from .identity import Identity
from .news import News
from .position import Position
from .receiving import Receiving
from .rest import Tokens, seconds_of
from .sending import Sending
from .store import Store
from .tls import ThreadSafeTls

BATCH = 128  # entries that are stored and acknowledged together; half of what may be in flight
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.5, 30.0
OPEN_SECONDS = 20.0
FORBIDDEN = 4403
Frame = dict[str, Any]

_log = logging.getLogger("flask_e2emsg.client")
# The library would write the handshake, and with it the token, at DEBUG.
_quiet = logging.getLogger("flask_e2emsg.client.websockets")
_quiet.setLevel(logging.WARNING)


class Connection:
    """Keeps one socket open until it is closed, or the server forbids it."""

    def __init__(
        self,
        url: str,
        tls: ssl.SSLContext | None,
        tokens: Tokens,
        store: Store,
        me: Identity,
        sending: Sending,
        receiving: Receiving,
        news: News,
        contacts: Contacts,
    ) -> None:
        self._url, self._tls, self._tokens = url, tls, tokens
        self._store, self._me, self._sending = store, me, sending
        self._receiving, self._news = receiving, news
        self._contacts = contacts
        self._closing = threading.Event()
        self._socket: ClientConnection | None = None
        self._position: Position | None = None
        self._epoch = ""
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="e2emsg-client", daemon=True)

    def start(self) -> None:
        """Connect in the background."""
        self._thread.start()

    def close(self) -> None:
        """Say goodbye and wait until the thread has ended."""
        self._closing.set()
        self._me.changed.set()
        socket = self._socket
        if socket is not None:
            socket.close()
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join()

    def write(self, frame: Frame) -> None:
        """Send a frame; lost if there is no connection."""
        socket = self._socket
        if socket is not None:
            with suppress(ConnectionClosed, OSError):
                socket.send(json.dumps(frame))

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self._socket is not None

    # The thread.

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                ended = self._connect_once()
            except ClientError as error:
                ended = _ended_by(error)
            except Exception as error:
                # The text of a foreign exception may quote a token or a message.
                _log.error("The connection failed: %s", stack_of(error))
                ended = events.Disconnected(None, "internal", 0.0)
            if self._closing.is_set() or not self._wait_after(ended):
                return

    def _connect_once(self) -> events.Disconnected:
        """One connection, from its first question to its end."""
        self._me.prepare()
        self._me.changed.clear()
        if not self._me.has_key:
            if not self._closing.is_set():
                self._me.changed.wait()
            return events.Disconnected(None, "key_needed", 0.0)
        try:
            with self._open() as socket:
                return self._serve(socket)
        except InvalidStatus as refused:
            status, headers = refused.response.status_code, refused.response.headers
            if status == 401:
                self._tokens.forget()
            after = seconds_of(headers.get("Retry-After"))
            return events.Disconnected(status, "refused", after or 0.0)
        except (OSError, InvalidHandshake, TimeoutError):
            return events.Disconnected(None, "unreachable", 0.0)

    def _open(self) -> ClientConnection:
        cursor = self._store.cursor
        at = {} if cursor is None else {"cursor": f"{cursor.epoch}:{cursor.seq}"}
        return connect(
            f"{self._url.replace('http', 'ws', 1)}/ws?{urlencode(at)}",
            additional_headers={"Authorization": f"Bearer {self._tokens.current()}"},
            ssl=self._thread_safe_tls() if self._url.startswith("https") else None,
            compression=None,
            open_timeout=OPEN_SECONDS,
            max_size=None,
            logger=_quiet,
        )

    def _thread_safe_tls(self) -> ssl.SSLContext:
        # The library has a thread that reads, and wants a context for no more than to wrap sockets.
        context = self._tls or ssl.create_default_context()
        return cast(ssl.SSLContext, ThreadSafeTls(context))

    def _serve(self, socket: ClientConnection) -> events.Disconnected:
        try:
            self._greet(json.loads(socket.recv(timeout=OPEN_SECONDS)))
            self._socket = socket
            if self._closing.is_set():
                socket.close()
            self._contacts.connected()
            self._receiving.ask_for_held()
            while True:
                self._take(self._read(socket))
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            reason = closed.rcvd.reason if closed.rcvd else "lost"
            if code == 4401:
                self._tokens.forget()
            return events.Disconnected(code, reason, None if code == FORBIDDEN else 0.0)
        finally:
            self._socket = None
            self._sending.disconnected()
            self._contacts.disconnected()

    def _greet(self, hello: Frame) -> None:
        self._store.belongs_to(hello["user_id"])
        self._epoch = hello["epoch"]
        self._position = Position(hello["after"])
        self._batch = max(1, min(BATCH, hello["max_in_flight"] // 2))
        known = self._store.cursor
        if hello["reset"]:
            self._news.add(events.Reset())
        if known is None or hello["reset"]:
            self._store.move_cursor(Cursor(hello["epoch"], hello["after"]))
        self._news.add(events.Connected(hello["user_id"], hello["head"] - hello["after"]))

    def _read(self, socket: ClientConnection) -> list[Frame]:
        """The frames that are there, at least one unless something is due."""
        frames: list[Frame] = []
        with suppress(TimeoutError):
            frames.append(json.loads(socket.recv(timeout=self._sending.seconds_until_due())))
            while len(frames) < self._batch:
                frames.append(json.loads(socket.recv(timeout=0)))
        return frames

    def _take(self, frames: list[Frame]) -> None:
        assert self._position is not None
        entries = [frame for frame in frames if frame["type"] in ("message", "receipt")]
        others = [frame for frame in frames if frame["type"] not in ("message", "receipt")]
        if entries:
            for entry in entries:
                check_entry(entry)
                self._position.pushed(entry["seq"])
            self._receiving.store(entries, self._epoch, Cursor(self._epoch, self._position.seq))
            self.write({"type": "ack", "seq": self._position.seq})
        for frame in others:
            self._take_other(frame)
        self._sending.kick_due()

    def _take_other(self, frame: Frame) -> None:
        assert self._position is not None
        match frame["type"]:
            case "accepted":
                self._take_accepted(frame)
            case "error":
                self._sending.refused(frame)
            case "caught_up":
                self._position.pushed(frame["head"])
                self._failures = 0
                self._save_position()
                # Not before: a message whose answer was lost has come back as an entry by now.
                self._sending.connected(self.write)
                self._news.add(events.CaughtUp())
            case "typing":
                conversation_id = frame["conversation_id"]
                self._news.add(events.Typing(frame["sender"], conversation_id, frame["active"]))
            case "event":
                self._news.add(events.HostEvent(frame["name"], frame["data"]))
            case "expiring":
                self.write({"type": "refresh", "token": self._tokens.fresh()})

    def _take_accepted(self, frame: Frame) -> None:
        assert self._position is not None
        if "id" not in frame:
            return
        seq = frame["seq"]
        self._sending.accepted(frame["id"], seq, self._epoch, frame["created_at"])
        if seq is not None and self._position.accepted(seq):
            self._save_position()

    def _save_position(self) -> None:
        assert self._position is not None
        self._store.move_cursor(Cursor(self._epoch, self._position.seq))

    # Afterwards.

    def _wait_after(self, ended: events.Disconnected) -> bool:
        """Tell, and wait; False: it is over."""
        if ended.retry_in is None:
            self._news.add(ended)
            return False
        at_least, ceiling = ended.retry_in, FIRST_DELAY_SECONDS * 2**self._failures
        self._failures = min(self._failures + 1, 16)
        delay = at_least + random.uniform(0, min(LONGEST_DELAY_SECONDS, ceiling))
        self._news.add(events.Disconnected(ended.code, ended.reason, delay))
        self._closing.wait(delay)
        return True


def _ended_by(error: ClientError) -> events.Disconnected:
    match error:
        case WrongUser():
            return events.Disconnected(None, "wrong_user", None)
        case Refused():
            return events.Disconnected(error.status, error.code, error.retry_after or 0.0)
        case NoToken():
            return events.Disconnected(None, "no_token", 0.0)
        case Garbled():
            return events.Disconnected(None, "garbled", 0.0)
        case Unreachable():
            return events.Disconnected(None, "unreachable", 0.0)
        case _:
            return events.Disconnected(None, "failed", 0.0)
