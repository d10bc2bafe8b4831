"""A client that comes back: it has one socket, an outbox, a cursor and a journal.

Written from docs/protocol.md with a WebSocket library, and nothing of the package. A client sends
what is in its outbox again, in the same order and with the same ids, on every new connection, until
it is accepted or refused for good. It moves its cursor over what has arrived without a hole,
acknowledges that, marks some of it as read, contradicts itself now and then by using an id again,
and looks at what REST shows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tests.acceptance.wire import Frame, new_id, parse_server_frame
from tests.crucible.journal import Content, Journal
from tests.crucible.rest import get, messages_in, post

COME_BACK_SECONDS = (0.05, 0.4)
OPENING_SECONDS = 15.0
PATIENCE_SECONDS = 10.0  # for an answer, on a connection that says nothing else either
TICK_SECONDS = 0.2
NO_CLOSE_FRAME = 1006
GROUP = "everybody"  # a conversation that all write in
FINAL = frozenset(
    {"bad_request", "forbidden", "unknown_recipient", "id_conflict", "too_large", "stale_key"}
)
READS_AT_ONCE = 500
BEYOND = 1_000_000  # positions behind the head


class Mint(Protocol):
    """Makes tokens."""

    def __call__(self, user_id: str, seconds: float, kind: str = "access") -> str:
        """A token of this kind for a user that is good for so many seconds."""


@dataclass(frozen=True)
class Letter:
    """What a client wants stored."""

    id: str
    to: str
    content: str
    conversation_id: str | None = None

    def frame(self) -> str:
        members = {"type": "send", "id": self.id, "to": self.to, "encrypted_content": self.content}
        if self.conversation_id is not None:
            members["conversation_id"] = self.conversation_id
        return json.dumps(members)


@dataclass
class Habits:
    """How often a client does what, as probabilities for each message."""

    to_group: float = 0.1
    read: float = 0.3
    meddle: float = 0.02
    overack: float = 0.005  # of a tick: acknowledge far more than there is
    look_around_seconds: float = 8.0  # between two looks at what REST shows, on average
    short_token: float = 0.0  # of a connection: its token expires while it is open
    short_token_seconds: float = 6.0
    token_seconds: float = 7200.0
    bad_token: float = 0.05  # of a connection: its token must not let it in
    padding: Sequence[int] = (0, 0, 0, 64, 1500)


@dataclass
class _Connection:
    """What is true of one socket only."""

    number: int
    master: int
    socket: ClientConnection
    token: str = field(repr=False)
    outgoing: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    waiting: dict[str, float] = field(default_factory=dict)  # ids, and since when
    meddled: set[str] = field(default_factory=set)
    last_heard_at: float = field(default_factory=time.monotonic)
    gave_up: bool = False


class Client:
    """One user.

    Args:
        addresses: `host:port` of each master; one is chosen at every connection.
        mint: Makes the tokens.
    """

    def __init__(
        self, user_id: str, addresses: Sequence[str], mint: Mint, habits: Habits, seed: str
    ) -> None:
        self.id = user_id
        self.journal = Journal(user_id)
        self.outbox: dict[str, Letter] = {}
        self.tokens: list[str] = []
        self.token: str | None = None
        self._mint = mint
        self._habits = habits
        self._rest_token = self._new_token(habits.token_seconds)
        self._addresses = addresses
        self._dice = random.Random(seed)
        self._numbers = itertools.count(1)
        self._counters: Counter[str] = Counter()
        self._settled: deque[Letter] = deque(maxlen=20)  # accepted, to be contradicted
        self._epoch = ""
        self._known: set[int] = set()
        self._marked: list[str] = []
        self._bad_tokens: dict[str, str] = {}  # and what is wrong with them
        self._acked = 0
        self._now: _Connection | None = None
        self.position = 0

    @property
    def is_live(self) -> bool:
        return self._now is not None

    # What it does.

    async def live(self) -> None:
        """Be connected, and come back whenever that ends, until cancelled."""
        while True:
            await self._visit(self._dice.randrange(len(self._addresses)))
            await asyncio.sleep(self._dice.uniform(*COME_BACK_SECONDS))

    def write(self, to: str) -> None:
        """Have a new message delivered."""
        self._counters[to] += 1
        padding = self._dice.choice(self._habits.padding)
        content = Content(self.id, to, self._counters[to], padding=padding)
        group = GROUP if self._dice.random() < self._habits.to_group else None
        letter = Letter(new_id(), to, content.encode(), group)
        self.outbox[letter.id] = letter
        self._transmit(letter)
        if self._settled and self._dice.random() < self._habits.meddle:
            self._contradict(self._dice.choice(self._settled))

    def repeat_marks(self) -> None:
        """Acknowledge and mark again what may have been lost with a connection."""
        self._acked = 0
        for start in range(0, len(self._marked), READS_AT_ONCE):
            self._say({"type": "read", "ids": self._marked[start : start + READS_AT_ONCE]})

    async def come_again(self) -> None:
        """Say goodbye; `live` opens another connection."""
        if self._now is not None:
            with contextlib.suppress(Exception):
                await self._now.socket.close()

    async def revoke(self) -> None:
        """Log out the token of this moment, which must not let anybody in afterwards."""
        token, self.token = self.token, None
        if token is not None:
            address = self._dice.choice(self._addresses)
            with contextlib.suppress(OSError, http.client.HTTPException):
                if await asyncio.to_thread(post, address, "/revoke", token) == 200:
                    self._bad_tokens[token] = "a revoked token"

    def note_stuck(self, head: int) -> None:
        self.journal.note("stuck", position=self.position, head=head)

    async def look_around(self) -> None:
        """Look again and again at what REST shows, until cancelled."""
        while True:
            await asyncio.sleep(self._dice.expovariate(1 / self._habits.look_around_seconds))
            await self.look(self._dice.choice(self._places()))

    async def look(self, path: str) -> None:
        """Journal what a route shows."""
        address = self._dice.choice(self._addresses)
        try:
            status, body = await asyncio.to_thread(get, address, path, self._rest_token)
        except (OSError, http.client.HTTPException):
            return
        self.journal.note("rest", path=path, status=status, messages=messages_in(body))

    # One connection.

    async def _visit(self, master: int) -> None:
        token = self._choose_token()
        headers, query = self._credential(token)
        try:
            async with connect(
                f"ws://{self._addresses[master]}/api/ws?{urlencode(query)}",
                additional_headers=headers,
                compression=None,
                ping_interval=None,
                open_timeout=OPENING_SECONDS,
                close_timeout=1,
                max_queue=None,
                proxy=None,
            ) as socket:
                await self._serve(_Connection(next(self._numbers), master, socket, token))
        except InvalidStatus as refusal:
            status = refusal.response.status_code
            self.journal.note("turned_away", status=status)
            if status == 401:
                self.token = None
        except (OSError, InvalidHandshake, EOFError) as error:
            self.journal.note("unreachable", why=type(error).__name__)

    async def _serve(self, connection: _Connection) -> None:
        helpers: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                self._open(connection, str(await connection.socket.recv()))
            helpers.append(asyncio.create_task(self._write_all(connection)))
            helpers.append(asyncio.create_task(self._tick(connection)))
            while True:
                self._take(connection, str(await connection.socket.recv()))
        except TimeoutError:
            connection.gave_up = True
            self._note_end(connection, NO_CLOSE_FRAME)
        except ConnectionClosed as closed:
            self._note_closed(connection, closed)
        finally:
            self._now = None
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    def _open(self, connection: _Connection, text: str) -> None:
        hello = self._parse(connection, text)
        if hello is None or hello["type"] != "hello":
            self.journal.note("invalid", text=f"instead of hello: {text[:500]}")
            return
        shown = {name: hello[name] for name in ("after", "head", "reset", "epoch")}
        self.journal.note("opened", master=connection.master, connection=connection.number, **shown)
        self._epoch = hello["epoch"]
        if what_is_wrong := self._bad_tokens.get(connection.token):
            self.journal.note("let_in", why=what_is_wrong)
        if hello["reset"] or not self._known:
            self.position = hello["after"]
        self._now = connection
        for letter in self.outbox.values():
            self._transmit(letter)
        self.repeat_marks()

    async def _write_all(self, connection: _Connection) -> None:
        while True:
            await connection.socket.send(await connection.outgoing.get())

    async def _tick(self, connection: _Connection) -> None:
        """Acknowledge, and give up on a server that has not answered for long."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._acknowledge()
            if self._dice.random() < self._habits.overack:
                self._overacknowledge(connection)
            waits_since = min(connection.waiting.values(), default=float("inf"))
            if time.monotonic() - max(waits_since, connection.last_heard_at) > PATIENCE_SECONDS:
                connection.gave_up = True
                connection.socket.transport.abort()
                return

    def _note_closed(self, connection: _Connection, closed: ConnectionClosed) -> None:
        # What the library itself has closed for was no WebSocket frame.
        if closed.rcvd is None and closed.sent is not None and closed.sent.code in (1002, 1007):
            self.journal.note("invalid", text=f"no WebSocket frame: {closed.sent.reason}")
        self._note_end(connection, NO_CLOSE_FRAME if closed.rcvd is None else closed.rcvd.code)
        if closed.rcvd is not None and closed.rcvd.code == 4401:
            self.token = None

    def _note_end(self, connection: _Connection, code: int) -> None:
        by = "me" if connection.gave_up or code in (1000, 1005) else "server"
        number, master = connection.number, connection.master
        self.journal.note("closed", master=master, connection=number, code=code, by=by)

    # Frames.

    def _take(self, connection: _Connection, text: str) -> None:
        connection.last_heard_at = time.monotonic()
        frame = self._parse(connection, text)
        if frame is None:
            return
        match frame["type"]:
            case "message" | "receipt":
                self._take_entry(connection, frame)
            case "accepted":
                self._take_accepted(connection, frame)
            case "error":
                self._take_error(connection, frame)
            case "hello":
                self.journal.note("invalid", text=f"a second hello: {text[:500]}")

    def _parse(self, connection: _Connection, text: str) -> Frame | None:
        try:
            return parse_server_frame(text)
        except (AssertionError, ValueError) as error:
            self.journal.note("invalid", connection=connection.number, text=str(error)[:500])
            return None

    def _take_entry(self, connection: _Connection, frame: Frame) -> None:
        self.journal.note("entry", connection=connection.number, frame=frame)
        self._reach(frame["seq"])
        is_mine = frame["type"] == "message" and frame["recipient"] == self.id != frame["sender"]
        if is_mine and self._dice.random() < self._habits.read:
            self._marked.append(frame["id"])
            self.journal.note("marked", ids=[frame["id"]])
            self._say({"type": "read", "ids": [frame["id"]]})

    def _take_accepted(self, connection: _Connection, frame: Frame) -> None:
        names = ("id", "seq", "created_at", "duplicate")
        shown = {name: frame.get(name) for name in names}
        self.journal.note("accepted", connection=connection.number, **shown)
        connection.waiting.pop(frame["id"], None)
        if frame.get("seq") is not None:
            self._reach(frame["seq"])
        if letter := self.outbox.pop(frame["id"], None):
            self._settled.append(letter)

    def _take_error(self, connection: _Connection, frame: Frame) -> None:
        ref, code = frame["ref"], frame["code"]
        is_final = ref is not None and code in FINAL and ref not in connection.meddled
        self.journal.note(
            "refused", connection=connection.number, id=ref, code=code, is_final=is_final
        )
        connection.waiting.pop(ref, None)
        if ref is None:
            self._acked = 0  # An ack or a read was refused: the next tick acknowledges again.
        elif is_final:
            self.outbox.pop(ref, None)
        elif ref in self.outbox:
            loop = asyncio.get_running_loop()
            loop.call_later(frame["retry_after"] or 1.0, self._retry, connection, ref)

    def _retry(self, connection: _Connection, message_id: str) -> None:
        letter = self.outbox.get(message_id)
        if letter is not None and connection is self._now:
            self._transmit(letter)

    def _reach(self, seq: int) -> None:
        self._known.add(seq)
        while self.position + 1 in self._known:
            self.position += 1

    def _acknowledge(self) -> None:
        if self.position > self._acked:
            self._acked = self.position
            self.journal.note("acked", seq=self.position)
            self._say({"type": "ack", "seq": self.position})

    def _overacknowledge(self, connection: _Connection) -> None:
        """Claim to have stored what cannot be there yet."""
        self.journal.note("overacked", connection=connection.number)
        self._say({"type": "ack", "seq": self.position + BEYOND})

    def _transmit(self, letter: Letter) -> None:
        if (connection := self._now) is None:
            return
        connection.waiting[letter.id] = time.monotonic()
        self.journal.note(
            "sent",
            connection=connection.number,
            id=letter.id,
            to=letter.to,
            content=letter.content,
            conversation_id=letter.conversation_id,
        )
        connection.outgoing.put_nowait(letter.frame())

    def _contradict(self, letter: Letter) -> None:
        """Use an id again that was accepted for something else."""
        if (connection := self._now) is None:
            return
        content = Content(self.id, letter.to, 0).encode()
        connection.meddled.add(letter.id)
        number = connection.number
        self.journal.note("meddled", connection=number, id=letter.id, to=letter.to, content=content)
        connection.outgoing.put_nowait(Letter(letter.id, letter.to, content).frame())

    def _say(self, frame: Frame) -> None:
        if self._now is not None:
            self._now.outgoing.put_nowait(json.dumps(frame))

    # Credentials and places.

    def _choose_token(self) -> str:
        """A good one, but for now and then; for a while or for a moment."""
        habits = self._habits
        if self._dice.random() < habits.bad_token:
            return self._bad_token()
        is_short = self._dice.random() < habits.short_token
        if is_short:
            return self._new_token(habits.short_token_seconds)
        if self.token is None:
            self.token = self._new_token(habits.token_seconds)
        return self.token

    def _bad_token(self) -> str:
        if self._dice.random() < 0.5:
            token, what_is_wrong = self._new_token(-60.0), "an expired token"
        else:
            token, what_is_wrong = self._new_token(60.0, "refresh"), "a refresh token"
        self._bad_tokens[token] = what_is_wrong
        return token

    def _new_token(self, seconds: float, kind: str = "access") -> str:
        token = self._mint(self.id, seconds, kind)
        self.tokens.append(token)
        return token

    def _credential(self, token: str) -> tuple[dict[str, str], dict[str, str]]:
        """Headers and query of a handshake."""
        query = {"cursor": f"{self._epoch}:{self.position}"} if self._epoch else {}
        if self._dice.random() < 0.5:
            return {}, {"token": token, **query}
        return {"Authorization": f"Bearer {token}"}, query

    def _places(self) -> list[str]:
        contacts = list(self._counters) or [self.id]
        behind = max(0, self.position - 20)
        return [
            f"/api/messages/{self._dice.choice(contacts)}?limit=30",
            f"/api/conversations/{GROUP}/messages?limit=30",
            f"/api/sync?cursor={self._epoch}:{behind}&limit=30",
            "/api/conversations?limit=30",
        ]
