"""From the socket to the application: stored as it came, acknowledged, opened when it is asked for.

Guarantees: an entry is on the disk before it is acknowledged; each message is told once, in the
order of the mailbox; the last ones, at most a page, again if the process dies meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ..protocol.values import Cursor
from . import events
from .chain import Link, Verdict, judge
from .contacts import Contacts
from .entries import StoredEntry
from .errors import CannotOpen, NotForMe, ServerError, UnknownSenderKey
from .identity import Identity
from .news import News
from .plaintext import hash_of
from .reading import Frame, Opened, Reader, kid_in, octets_of, time_of
from .rest import Rest
from .sending import Sending
from .store import Store

PAGE = 128  # entries that are read from the store at once


@dataclass(frozen=True, slots=True)
class _Told:
    """What to write down when the application asks for the next event."""

    place: int
    chain: tuple[str, bytes, Link] | None = field(default=None, repr=False)


class Receiving:
    """The way in."""

    def __init__(
        self,
        store: Store,
        rest: Rest,
        me: Identity,
        contacts: Contacts,
        sending: Sending,
        news: News,
    ) -> None:
        self._store, self._rest, self._me, self._contacts = store, rest, me, contacts
        self._sending, self._news = sending, news
        self._reader = Reader(me, contacts)
        self._turn = threading.Lock()  # of the thread that asks for the next event
        self._page: deque[StoredEntry] = deque()
        self._parts: deque[events.Event] = deque()  # of one entry, still to be told
        self._told: _Told | None = None
        self._is_stale = False

    # From the socket.

    def store(self, frames: Sequence[Frame], epoch: str, cursor: Cursor) -> None:
        """Keep entries and move the cursor, durably."""
        # Before they are stored: else somebody who asks at once would find no key for them.
        self._learn_keys(frames)
        mine = [frame for frame in frames if frame.get("sender") == self._me.user_id]
        answered = [frame for frame in mine if self._store.outbox.get(frame["id"])]
        with self._store.database.transaction():
            fresh = [frame for frame in frames if self._keep(frame, epoch, frame in answered)]
            self._store.move_cursor(cursor)
        for frame in answered:
            self._sending.accepted(frame["id"], frame["seq"], epoch, frame["created_at"])
        for frame in mine:
            if frame in fresh:
                self._note_own(frame)
        self._news.wake()

    def _keep(self, frame: Frame, epoch: str, is_answer: bool) -> bool:
        if frame["type"] == "receipt":
            return self._store.entries.add(epoch, frame, None)
        contact = self._reader.contact_of(frame)
        if self._store.entries.add(epoch, frame, contact, "told" if is_answer else "waiting"):
            return True
        came = self._store.entries.position_of(frame["id"])
        # After a reset the same messages come from a log that was made anew.
        is_again = came is not None and came[0] == epoch and came[1] != frame["seq"]
        if is_again and frame["sender"] != self._me.user_id:
            self._news.add(events.Replay(contact, frame["id"]))
        return False

    def ask_for_held(self) -> None:
        """Perhaps the directory can be reached now, and has the keys that were missing."""
        for contact in self._store.entries.held():
            with suppress(ServerError):
                self._contacts.ask(contact)

    def _learn_keys(self, frames: Iterable[Frame]) -> None:
        """Ask for the keys of those who write under one that is not pinned."""
        unknown: dict[str, None] = {}
        for frame in frames:
            if frame["type"] == "message" and frame["sender"] != self._me.user_id:
                kid = kid_in(frame)
                if kid is not None and not self._store.knows_kid(frame["sender"], kid):
                    unknown[frame["sender"]] = None
        for contact in unknown:
            with suppress(ServerError):
                self._contacts.ask(contact)

    def _note_own(self, frame: Frame) -> None:
        """An own message that this device has not sent, or was not told to have sent."""
        try:
            opened = self._reader.open(frame)
        except CannotOpen:
            return
        self._sending.written_elsewhere(frame["recipient"], opened.kid, opened.link)

    # To the application.

    def next(self, timeout: float | None) -> events.Event | None:
        """The next event; None when none comes in time, or the client is closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._turn:
            self._write_down()
            while True:
                event = self._ready()
                if event is not None:
                    return event
                self._store.database.flush()
                if not self._news.wait(deadline):
                    return None

    def finish(self) -> None:
        """Note that the last event was handled."""
        with self._turn:
            self._write_down()

    def reread(self) -> None:
        """What was held can be opened now."""
        self._is_stale = True  # without the lock, which a thread that waits for events holds
        self._news.wake()

    def _ready(self) -> events.Event | None:
        if self._parts:
            return self._parts.popleft()
        if (event := self._news.take()) is not None:
            return event
        while (entry := self._next_entry()) is not None:
            self._parts.extend(self._tell(entry))
            if self._parts:
                return self._parts.popleft()
            self._write_down()
        return None

    def _next_entry(self) -> StoredEntry | None:
        if self._is_stale:
            self._is_stale = False
            self._page.clear()
        if not self._page and self._news.has_stored():
            self._page.extend(self._store.entries.waiting(PAGE))
            if len(self._page) == PAGE:
                self._news.wake()  # there are more
        return self._page.popleft() if self._page else None

    def _write_down(self) -> None:
        told = self._told
        if told is None or self._parts:
            return
        self._told = None
        with self._store.database.lazily():
            self._store.entries.mark(told.place, "told")
            if told.chain is not None:
                self._store.add_link("from", *told.chain)
        if not self._page:
            self._store.database.flush()

    def _tell(self, entry: StoredEntry) -> list[events.Event]:
        """The events of an entry; what to note about it is noted when the last one was handled."""
        frame, self._told = entry.frame, _Told(entry.place)
        if frame["type"] == "receipt":
            at = time_of(frame["at"])
            return [events.Receipt(frame["kind"], frame["by"], tuple(frame["ids"]), at)]
        try:
            opened = self._open_or_hold(entry)
        except CannotOpen as error:
            return [self._reader.unreadable(frame, error)]
        message = self._reader.message(frame, opened)
        if message.mine:
            return [message]
        self._told = _Told(entry.place, (frame["sender"], opened.kid, opened.link))
        return [*self._doubts(frame, opened), message]

    def _open_or_hold(self, entry: StoredEntry) -> Opened:
        """Hold what lacks a key, unless the key has come meanwhile."""
        try:
            return self._reader.open(entry.frame)
        except (NotForMe, UnknownSenderKey):
            with self._store.database.lazily():
                try:
                    return self._reader.open(entry.frame)
                except (NotForMe, UnknownSenderKey):
                    self._store.entries.mark(entry.place, "held")
                    self._told = None
                    raise

    # The chain.

    def _doubts(self, frame: Frame, opened: Opened) -> list[events.Event]:
        """What of the sender's chain is not as it should be."""
        contact, n, prev = frame["sender"], opened.content.n, opened.content.prev_hash
        newest = self._store.link("from", contact, opened.kid)
        if newest is None and n > 1:
            newest = self._place_in_history(frame, opened)
        match judge(newest, n, prev):
            case Verdict.GAP:
                expected = 1 if newest is None else newest.n + 1
                return [events.Gap(contact, frame["id"], expected, n)]
            case Verdict.FORK:
                return [events.Fork(contact, frame["id"], n)]
        return []

    def _place_in_history(self, frame: Frame, opened: Opened) -> Link | None:
        """The newest link before the first message that this store has of a sender's key.

        What was sealed for a key that I do not have any more still tells its hash.
        """
        contact, kid = frame["sender"], opened.kid
        try:
            page = self._rest.history(contact, frame["seq"], 100)
        except ServerError:
            return None
        for older in page["messages"]:
            if older["sender"] != contact or kid_in(older) != kid:
                continue
            hashed = hash_of(octets_of(older))
            if hashed == opened.content.prev_hash:
                return Link(opened.content.n - 1, hashed)
            try:
                return self._reader.open(older).link
            except CannotOpen:
                return None
        return None
