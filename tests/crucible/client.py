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
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tests.acceptance.wire import Frame, new_id, parse_server_frame
from tests.crucible.journal import Content, Journal
from tests.crucible.letters import Bundle, Letter, Mail
from tests.crucible.rest import get, messages_in, post
from tests.crucible.wallet import Mint, Trust, Wallet

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


@dataclass
class Habits:
    """How often a client does what, as probabilities for each message."""

    to_group: float = 0.1
    read: float = 0.3
    meddle: float = 0.02
    in_company: float = 0.5  # of what meddles: a new message goes with it, which must not be stored
    overack: float = 0.005  # of a tick: acknowledge far more than there is
    look_around_seconds: float = 8.0  # between two looks at what REST shows, on average
    trust: Trust = field(default_factory=Trust)
    padding: Sequence[int] = (0, 0, 0, 64, 1500)


@dataclass
class _Connection:
    """What is true of one socket only."""

    number: int
    master: int
    socket: ClientConnection
    token: str = field(repr=False)
    outgoing: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    waiting: dict[str, float] = field(default_factory=dict)  # refs, and since when
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
        self.outbox: dict[str, Mail] = {}
        self._habits = habits
        self._addresses = addresses
        self._dice = random.Random(seed)
        self.wallet = Wallet(user_id, mint, habits.trust, self._dice)
        self._numbers = itertools.count(1)
        self._counters: Counter[str] = Counter()
        self._settled: deque[Letter] = deque(maxlen=20)  # accepted, to be contradicted
        self._epoch = ""
        self._known: set[int] = set()
        self._marked: list[str] = []
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
        self._post(self._new_letter(to, self._conversation()))

    def write_to_all(self, recipients: Sequence[str]) -> None:
        """Have a new message delivered to each of them, or to none."""
        conversation = self._conversation()
        letters = [self._new_letter(to, conversation) for to in recipients]
        self._post(Bundle(new_id(), letters, conversation))

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
        token = self.wallet.drop()
        if token is not None:
            address = self._dice.choice(self._addresses)
            with contextlib.suppress(OSError, http.client.HTTPException):
                if await asyncio.to_thread(post, address, "/revoke", token) == 200:
                    self.wallet.note_revoked(token)

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
            status, body = await asyncio.to_thread(get, address, path, self.wallet.for_rest)
        except (OSError, http.client.HTTPException):
            return
        self.journal.note("rest", path=path, status=status, messages=messages_in(body))

    # One connection.

    async def _visit(self, master: int) -> None:
        token = self.wallet.choose()
        # What is revoked from now on may have let it in just before.
        what_is_wrong = self.wallet.what_is_wrong(token)
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
                if what_is_wrong:
                    self.journal.note("let_in", why=what_is_wrong)
                await self._serve(_Connection(next(self._numbers), master, socket, token))
        except InvalidStatus as refusal:
            status = refusal.response.status_code
            self.journal.note(
                "turned_away", status=status, has_good_token=self.wallet.is_good(token)
            )
            if status == 401:
                self.wallet.drop()
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
        if hello["reset"] or not self._known:
            self.position = hello["after"]
        self._now = connection
        for mail in self.outbox.values():
            self._transmit(mail)
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
            self.wallet.drop()

    def _note_end(self, connection: _Connection, code: int) -> None:
        by = "me" if connection.gave_up or code in (1000, 1005) else "server"
        self.journal.note(
            "closed",
            master=connection.master,
            connection=connection.number,
            code=code,
            by=by,
            has_good_token=self.wallet.is_good(connection.token),
        )

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
        shown = {name: frame.get(name) for name in ("seq", "created_at", "duplicate")}
        ref, ids = (frame["ref"], frame["ids"]) if "ref" in frame else (frame["id"], [frame["id"]])
        for message_id in ids:
            self.journal.note("accepted", connection=connection.number, id=message_id, **shown)
        connection.waiting.pop(ref, None)
        if frame.get("seq") is not None:
            self._reach(frame["seq"])
        if mail := self.outbox.pop(ref, None):
            if ids != [letter.id for letter in mail.letters]:
                self.journal.note("invalid", text=f"{ref} was accepted as {ids}"[:500])
            self._settled += mail.letters

    def _take_error(self, connection: _Connection, frame: Frame) -> None:
        ref, code = frame["ref"], frame["code"]
        is_final = ref is not None and code in FINAL and ref not in connection.meddled
        mail = self.outbox.get(ref)
        for message_id in [ref] if mail is None else [letter.id for letter in mail.letters]:
            self.journal.note(
                "refused",
                connection=connection.number,
                id=message_id,
                code=code,
                is_final=is_final,
            )
        connection.waiting.pop(ref, None)
        if ref is None:
            self._acked = 0  # An ack or a read was refused: the next tick acknowledges again.
        elif is_final:
            self.outbox.pop(ref, None)
        elif mail is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(frame["retry_after"] or 1.0, self._retry, connection, ref)

    def _retry(self, connection: _Connection, ref: str) -> None:
        mail = self.outbox.get(ref)
        if mail is not None and connection is self._now:
            self._transmit(mail)

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

    def _new_letter(self, to: str, conversation_id: str | None) -> Letter:
        self._counters[to] += 1
        padding = self._dice.choice(self._habits.padding)
        content = Content(self.id, to, self._counters[to], padding=padding)
        return Letter(new_id(), to, content.encode(), conversation_id)

    def _conversation(self) -> str | None:
        return GROUP if self._dice.random() < self._habits.to_group else None

    def _post(self, mail: Mail) -> None:
        self.outbox[mail.ref] = mail
        self._transmit(mail)
        if self._settled and self._dice.random() < self._habits.meddle:
            self._contradict(self._dice.choice(self._settled))

    def _transmit(self, mail: Mail) -> None:
        if (connection := self._now) is None:
            return
        connection.waiting[mail.ref] = time.monotonic()
        for letter in mail.letters:
            self.journal.note(
                "sent",
                connection=connection.number,
                id=letter.id,
                to=letter.to,
                content=letter.content,
                conversation_id=letter.conversation_id,
                bundle=mail.ref if isinstance(mail, Bundle) else None,
            )
        connection.outgoing.put_nowait(mail.frame())

    def _contradict(self, letter: Letter) -> None:
        """Use an id again that was accepted for something else, alone or with a new message."""
        if (connection := self._now) is None:
            return
        again = Letter(letter.id, letter.to, Content(self.id, letter.to, 0).encode())
        mail: Mail = again
        if self._dice.random() < self._habits.in_company:
            new = Letter(new_id(), letter.to, Content(self.id, letter.to, 0).encode())
            mail = Bundle(new_id(), [new, again])
        connection.meddled.add(mail.ref)
        for one in mail.letters:
            self.journal.note(
                "meddled",
                connection=connection.number,
                id=one.id,
                to=one.to,
                content=one.content,
            )
        connection.outgoing.put_nowait(mail.frame())

    def _say(self, frame: Frame) -> None:
        if self._now is not None:
            self._now.outgoing.put_nowait(json.dumps(frame))

    # Where it goes.

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
