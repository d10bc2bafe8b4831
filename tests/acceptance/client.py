"""A small client of the wire protocol, written from docs/protocol.md alone, that trusts nobody.

Each frame is checked to the member when it arrives. Over a connection's life the client also keeps
books and fails when they do not balance: hello first and once, positions ascending and without
holes other than its own sends, at most max_in_flight entries beyond its ack, nobody else's mail.
A wait has a deadline, and a failure shows every frame seen so far. Not safe for several threads.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.acceptance.canaries import USED
from tests.acceptance.wire import Frame, new_content, new_id, parse_server_frame

DEADLINE_SECONDS = 10.0
ENTRY_TYPES = ("message", "receipt")


class ConnectionLost(AssertionError):
    """The server closed the connection, or it broke (1006), while a frame was waited for."""

    def __init__(self, code: int, reason: str, story: str) -> None:
        super().__init__(f"closed with {code} {reason!r}; {story}")
        self.code = code
        self.reason = reason


class DeadlineMissed(AssertionError):
    """The frame that was waited for did not come in time."""


class SocketClient:
    """One live connection of one user.

    Args:
        ws_url: Where `GET /api/ws` is, without a query.
        user_id: Whom `hello` must name.
        query: Credential and cursor, when they travel in the query.
        headers: Additional headers of the handshake.
        subprotocols: The subprotocol list of the handshake.
    """

    def __init__(
        self,
        ws_url: str,
        user_id: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        subprotocols: Iterable[str] = (),
    ) -> None:
        self.user_id = user_id
        self.seen: list[Frame] = []  # every frame since hello, in the order of arrival
        self.closed_with: int | None = None
        self._inbox: list[Frame] = []  # seen, but not yet handed to the test
        self._resources = ExitStack()
        self._pushed: list[int] = []  # positions of entries, in the order of arrival
        self._pushed_ids: set[str] = set()
        self._own: set[int] = set()  # positions that an `accepted` named
        self._fresh_ids: set[str] = set()  # sent here, accepted here, not a duplicate
        self._unanswered: set[str] = set()
        self._acked = 0
        self._head_at_caught_up: int | None = None
        self._pushed_at_caught_up: set[int] = set()
        offered = [Subprotocol(name) for name in subprotocols] or None
        address = f"{ws_url}?{urlencode(query)}" if query else ws_url
        USED.note(f"{address} {dict(headers or {})} {offered}")
        self.socket = self._resources.enter_context(
            connect(
                address,
                additional_headers=dict(headers or {}),
                subprotocols=offered,
                open_timeout=DEADLINE_SECONDS,
                close_timeout=DEADLINE_SECONDS,
                ping_interval=None,
                max_size=None,
                max_queue=None,  # else a close frame behind unread frames would not be seen
                proxy=None,
            )
        )
        try:
            self._greet()
        except BaseException:
            self._resources.close()
            raise

    def _greet(self) -> None:
        # `connect` offers permessage-deflate; the server must never take it.
        response = self.socket.response
        assert response is not None
        assert "Sec-WebSocket-Extensions" not in response.headers, "an extension was negotiated"
        self.hello = self._receive(time.monotonic() + DEADLINE_SECONDS)
        assert self.hello["user_id"] == self.user_id, f"not my hello: {self.hello}"
        assert self.hello["after"] <= self.hello["head"], f"starts beyond the head: {self.hello}"
        self._acked = self._position = int(self.hello["after"])

    # What a client keeps.

    @property
    def position(self) -> int:
        """The newest position up to which nothing is missing."""
        known = self._own | set(self._pushed)
        while self._position + 1 in known:
            self._position += 1
        return self._position

    @property
    def cursor(self) -> str:
        """`epoch:position`, to resume after everything that has arrived without a hole."""
        return f"{self.hello['epoch']}:{self.position}"

    @property
    def acknowledged(self) -> int:
        """The newest position that was acknowledged here, or where the connection began."""
        return self._acked

    @property
    def in_flight(self) -> int:
        """How many entries have arrived beyond the last ack."""
        return sum(1 for seq in self._pushed if seq > self._acked)

    # What a client sends.

    def send(
        self,
        to: str,
        content: str | None = None,
        *,
        message_id: str | None = None,
        **members: Any,
    ) -> str:
        """Send a message without waiting for the answer; its id."""
        message_id = message_id or new_id()
        self._unanswered.add(message_id)
        content = new_content() if content is None else content
        frame = {"type": "send", "id": message_id, "to": to, "encrypted_content": content}
        self.send_frame({**frame, **members})
        return message_id

    def store(self, to: str, content: str | None = None, **members: Any) -> Frame:
        """Send a message and wait for its `accepted`."""
        return self.accepted(self.send(to, content, **members))

    def ack(self, seq: int | None = None) -> None:
        """Acknowledge up to `seq`, or everything that has arrived without a hole."""
        seq = self.position if seq is None else seq
        self._acked = max(self._acked, seq)
        self.send_frame({"type": "ack", "seq": seq})

    def send_frame(self, frame: Frame) -> None:
        """Send any JSON object."""
        self.send_text(json.dumps(frame, ensure_ascii=False))

    def send_text(self, text: str) -> None:
        """Send any text, JSON or not."""
        USED.note(text)
        try:
            self.socket.send(text)
        except ConnectionClosed as closed:
            raise self._lost(closed) from None

    # What a client waits for.

    def expect(self, kind: str, /, *, seconds: float = DEADLINE_SECONDS, **members: Any) -> Frame:
        """The next frame of this type with these members; earlier others stay in the inbox.

        An `error` that arrives meanwhile, and was not asked for, fails at once.
        """
        wanted = {"type": kind, **members}
        for index, frame in enumerate(self._inbox):
            if _matches(frame, wanted):
                return self._inbox.pop(index)
        deadline = time.monotonic() + seconds
        while True:
            frame = self._receive(deadline, wanted)
            if _matches(frame, wanted):
                return frame
            assert frame["type"] != "error", f"waiting for {wanted}, got {frame}; {self.story()}"
            self._inbox.append(frame)

    def accepted(self, message_id: str, **members: Any) -> Frame:
        """The answer to one `send`."""
        return self.expect("accepted", id=message_id, **members)

    def answer(self, message_id: str) -> Frame:
        """The answer to one `send`, `accepted` or `error`."""
        wanted = [{"type": "accepted", "id": message_id}, {"type": "error", "ref": message_id}]
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            for frame in self._inbox:
                if any(_matches(frame, one) for one in wanted):
                    self._inbox.remove(frame)
                    return frame
            self._inbox.append(self._receive(deadline, f"the answer to {message_id}"))

    def message(self, message_id: str | None = None, **members: Any) -> Frame:
        """The next message, or the one with this id."""
        if message_id is not None:
            members["id"] = message_id
        return self.expect("message", **members)

    def error(self, code: str = "bad_request", **members: Any) -> Frame:
        """The next `error` of this code; one of another code fails."""
        frame = self.expect("error", **members)
        assert frame["code"] == code, f"not {code}: {frame}"
        return frame

    def receipts(self, kind: str, ids: Iterable[str]) -> list[Frame]:
        """Receipts of this kind until they have named all of these ids, each exactly once."""
        frames: list[Frame] = []
        missing = set(ids)
        while missing:
            frame = self.expect("receipt", kind=kind)
            assert missing.issuperset(frame["ids"]), f"not asked for or again: {frame}"
            missing.difference_update(frame["ids"])
            frames.append(frame)
        return frames

    def entries(self, count: int) -> list[Frame]:
        """The next `count` entries of the mailbox, in the order of arrival."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(waiting := self._waiting_entries()) < count:
            frame = self._receive(deadline, f"{count} entries")
            assert frame["type"] != "error", f"waiting for entries, got {frame}; {self.story()}"
            self._inbox.append(frame)
        return [self._inbox.pop(self._inbox.index(frame)) for frame in waiting[:count]]

    def arrived(self) -> list[Frame]:
        """Every frame that has come and was not handed out yet; waits for none."""
        with suppress(DeadlineMissed):
            while True:
                self._inbox.append(self._receive(time.monotonic()))
        frames, self._inbox = self._inbox, []
        return frames

    def drain(self) -> list[Frame]:
        """All entries up to `caught_up`, each acknowledged as it arrives."""
        found: list[Frame] = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self._head_at_caught_up is None:
            self._inbox.append(self._receive(deadline, "caught_up"))
            if self._inbox[-1]["type"] in ENTRY_TYPES:
                self.ack()
        self.expect("caught_up")
        found = self._waiting_entries()
        self._inbox = [frame for frame in self._inbox if frame not in found]
        return found

    def round_trip(self) -> None:
        """Ping and wait for its pong: the server reads, answers, and sent no error before it."""
        ref = new_id()
        self.send_frame({"type": "ping", "ref": ref})
        self.expect("pong", ref=ref)

    def frames_before_pong(self) -> list[Frame]:
        """Ping, and everything that comes before its pong, errors too."""
        ref = new_id()
        self.send_frame({"type": "ping", "ref": ref})
        found: list[Frame] = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (frame := self._receive(deadline, "pong")) != {"type": "pong", "ref": ref}:
            found.append(frame)
        return found

    def assert_silent(self, seconds: float, *, but: Iterable[str] = ("caught_up",)) -> None:
        """Fail if a frame arrives within this time, unless of a type in `but`.

        It proves little when it passes: use it only after an event that would have let the
        forbidden frame out.
        """
        allowed = tuple(but)
        loud = [frame for frame in self._inbox if frame["type"] not in allowed]
        assert not loud, f"not silent: {loud}; {self.story()}"
        deadline = time.monotonic() + seconds
        while True:
            try:
                frame = self._receive(deadline)
            except DeadlineMissed:
                return
            assert frame["type"] in allowed, f"not silent: {frame}; {self.story()}"
            self._inbox.append(frame)

    def expect_close(self, code: int, seconds: float = DEADLINE_SECONDS) -> list[Frame]:
        """Wait until the server closes, with this code; the frames that came before it."""
        start, deadline = len(self.seen), time.monotonic() + seconds
        with suppress(ConnectionLost):
            while True:
                self._inbox.append(self._receive(deadline, f"close {code}"))
        assert self.closed_with == code, f"closed with {self.closed_with}; {self.story()}"
        return self.seen[start:]

    # The end.

    def close(self) -> None:
        """Say goodbye with 1000, hear it back, and balance the books."""
        if self.closed_with is None:
            self.socket.close()
            self.closed_with = self.socket.close_code
            # RFC 6455, 5.5.1: an answer without a code (1005 here) is a complete handshake too.
            assert self.closed_with in (1000, 1005), (
                f"no clean close: {self.closed_with}; {self.story()}"
            )
        self._resources.close()
        self._check_books()

    def abandon(self) -> None:
        """Drop the TCP connection without a close frame, as a lost network does."""
        self.closed_with = 1006
        with suppress(OSError):
            # Closing alone is not noticed while the library's own thread still reads.
            self.socket.socket.shutdown(socket.SHUT_RDWR)
        self.socket.socket.close()
        self._resources.close()
        self._check_books()

    def has_lost_its_server(self) -> bool:
        """Whether the connection ended without a close frame from either side."""
        return self.closed_with is None and self.socket.close_code == 1006

    def story(self) -> str:
        """The first and the last frames so far, for the text of a failure."""
        lines = [f"  {json.dumps(frame)[:300]}" for frame in self.seen]
        if len(lines) > 16:
            lines[1:-14] = [f"  … {len(lines) - 15} frames not shown …"]
        return f"{len(self.seen)} frames seen:\n" + "\n".join(lines)

    def _receive(self, deadline: float, wanted: object = "a frame") -> Frame:
        try:
            text = self.socket.recv(timeout=max(0.001, deadline - time.monotonic()))
        except TimeoutError:
            raise DeadlineMissed(f"{wanted} did not come in time; {self.story()}") from None
        except ConnectionClosed as closed:
            raise self._lost(closed) from None
        assert isinstance(text, str), f"the server sent a binary frame of {len(text)} bytes"
        USED.note(text)
        frame = parse_server_frame(text)
        assert self.seen or frame["type"] == "hello", f"the first frame is not hello: {frame}"
        self.seen.append(frame)
        limit = self.seen[0]["max_frame_bytes"]
        assert len(text.encode()) <= limit, f"a frame of {len(text.encode())} bytes; {self.story()}"
        self._keep_books(frame)
        return frame

    def _lost(self, closed: ConnectionClosed) -> ConnectionLost:
        self.closed_with = self.socket.close_code
        reason = closed.rcvd.reason if closed.rcvd else ""
        return ConnectionLost(self.closed_with or 1006, reason, self.story())

    def _waiting_entries(self) -> list[Frame]:
        return [frame for frame in self._inbox if frame["type"] in ENTRY_TYPES]

    def _keep_books(self, frame: Frame) -> None:
        kind = frame["type"]
        assert kind != "hello" or len(self.seen) == 1, f"a second hello; {self.story()}"
        if kind in ENTRY_TYPES:
            self._note_entry(frame)
        elif kind == "accepted" and "seq" in frame:
            self._own.update([] if frame["seq"] is None else [frame["seq"]])
            self._unanswered.discard(frame["id"])
            self._fresh_ids.update([] if frame["duplicate"] else [frame["id"]])
        elif kind == "error" and frame["ref"] is not None:
            self._unanswered.discard(frame["ref"])
        elif kind == "caught_up":
            assert self._head_at_caught_up is None, f"a second caught_up; {self.story()}"
            self._head_at_caught_up = frame["head"]
            self._pushed_at_caught_up = set(self._pushed)

    def _note_entry(self, frame: Frame) -> None:
        newest = self._pushed[-1] if self._pushed else self.hello["after"]
        assert frame["seq"] > newest, f"position {frame['seq']} after {newest}; {self.story()}"
        self._pushed.append(frame["seq"])
        assert self.in_flight <= self.hello["max_in_flight"], f"over max_in_flight; {self.story()}"
        if frame["type"] == "message":
            parties = (frame["sender"], frame["recipient"])
            assert self.user_id in parties, f"somebody else's mail: {frame}"
            self._pushed_ids.update([frame["id"]] if frame["recipient"] != self.user_id else [])

    def _check_books(self) -> None:
        """Every position below the newest pushed one was pushed, or was an own send."""
        mine_again = self._pushed_ids & self._fresh_ids
        assert not mine_again, f"own sends were pushed back: {mine_again}; {self.story()}"
        after = self.hello["after"]
        known = self._own | set(self._pushed)
        holes = set(range(after + 1, max(self._pushed, default=after))) - known
        # A send whose `accepted` was lost with the connection took a position that nobody named.
        assert len(holes) <= len(self._unanswered), f"holes at {sorted(holes)}; {self.story()}"
        if self._head_at_caught_up is not None:
            head = self._head_at_caught_up
            assert head >= self.hello["head"], f"caught up below hello's head; {self.story()}"
            late = set(range(after + 1, head + 1)) - self._own - self._pushed_at_caught_up
            assert len(late) <= len(self._unanswered), f"caught_up before {late}; {self.story()}"


def _matches(frame: Frame, wanted: Frame) -> bool:
    return all(name in frame and frame[name] == value for name, value in wanted.items())
