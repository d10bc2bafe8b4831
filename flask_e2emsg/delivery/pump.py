"""Moves one connection's cursor along its mailbox.

The committer offers new entries, the sweep says how far the mailbox reaches, the client's acks make
room, and `take_entries` gives what to write next. An offer to a connection that stands exactly
before it spares the database. What comes before its turn, for one committer may overtake another,
waits a moment for what is missing; then it is a hint, and the entries are read. Replies to the
client's own frames pass through here too, so that one writer sees everything in order.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate
from typing import Protocol
from uuid import uuid4

from ..errors import Refusal
from ..protocol import frames
from ..protocol.entries import Entry
from ..protocol.window import Window
from ..store.accounts import Party
from ..store.mailbox import Page
from .thread import quick_lock

MAX_FRESH_BYTES = 262144  # of offered entries that wait for the writer
ENTRIES_AT_ONCE = 128
BYTES_AT_ONCE = 262144  # of entries that were read and are not written yet; at least one entry
MAX_UNANSWERED = 64
MAX_EPHEMERAL = 256
GAP_SECONDS = 0.005  # that an entry which came before its turn waits for those before it

EntriesAfter = Callable[[Party, int, int], Page]


class Credential(Protocol):
    """What a connection was opened with, or was refreshed to."""

    @property
    def key(self) -> Hashable:
        """The same for connections about which the host gives the same answer."""


class Signal(Protocol):
    """What tells somebody to look: an event, or whatever has the same word for it."""

    def set(self) -> None:
        """Let it be known."""


class _Nobody:
    """Somebody who does not look."""

    __slots__ = ()

    def set(self) -> None:
        pass


NOBODY = _Nobody()


class Pump:
    """The cursor of one live connection.

    Attributes:
        id: what the client sees as `connection_id`.
        origin: what marks this connection's own `sent` entries in the log.
        credential: what the gate accepted, for whoever asks again whether it is still good.
        vouched_at: when the host last said that it is, on the monotonic clock.
        close_code: set once when the connection shall end; the writer sends it.
        stirred: set whenever there may be something to write.
        answered: set whenever the client may have room for another request.
        look_again_at: when take_entries() will have more to give, though nothing stirs; on the
            monotonic clock.
    """

    __slots__ = (
        "_ack_committed",
        "_ack_running",
        "_ack_wanted",
        "_backlog",
        "_commit_ack",
        "_entries_after",
        "_fresh",
        "_fresh_bytes",
        "_head",
        "_later",
        "_lock",
        "_page_limit",
        "_replies",
        "_unanswered",
        "_window",
        "answered",
        "close_code",
        "credential",
        "id",
        "look_again_at",
        "origin",
        "owner",
        "stirred",
        "vouched_at",
    )

    def __init__(
        self, owner: Party, entries_after: EntriesAfter, ack: Callable[[Pump, int], None]
    ) -> None:
        self.owner = owner
        identity = uuid4()
        self.id = str(identity)
        self.origin = identity.int >> 65
        self.credential: Credential | None = None
        self.vouched_at = time.monotonic()
        self.close_code: int | None = None
        self.stirred: Signal = threading.Event()
        self.answered: Signal = threading.Event()
        self._entries_after = entries_after
        self._commit_ack = ack
        self._lock = quick_lock()
        self._window = Window(0, 1)
        self._backlog: int | None = None
        self._head = 0
        self._fresh: list[Entry] = []
        self._fresh_bytes = 0  # of those that come later, too
        self._later: dict[int, Entry] = {}  # beyond a gap
        self.look_again_at: float | None = None
        self._page_limit = ENTRIES_AT_ONCE
        self._replies: list[bytes] = []
        self._unanswered = 0
        self._ack_wanted = 0
        self._ack_committed = 0
        self._ack_running = False

    def attach(self, stirred: Signal, answered: Signal) -> None:
        """Let those who read and write the connection know from now on, and once now."""
        self.stirred, self.answered = stirred, answered
        stirred.set()
        answered.set()

    def detach(self) -> None:
        """Nobody reads or writes the connection any more."""
        self.stirred = self.answered = NOBODY

    def start(self, after: int, head: int, max_in_flight: int) -> None:
        """Begin after a position; what lies between it and `head` is the backlog."""
        with self._lock:
            self._window = Window(after, max_in_flight)
            self._backlog = head
            self._head = max(self._head, head)
            self._fresh.clear()
            self._later.clear()
            self._fresh_bytes = 0
            self.look_again_at = None
        self.stirred.set()

    def offer(self, entries: Sequence[Entry]) -> None:
        """New entries of the mailbox, just committed."""
        with self._lock:
            if not self._fresh and not self._later and self._backlog is None:
                entries = self._pass_own(entries)
                if not entries:
                    if self._window.has_promised:
                        self.stirred.set()
                    return
            fresh = self._fresh
            position = self._window.position
            expected = 1 + (max(fresh[-1].seq, position) if fresh else position)
            for entry in entries:
                seq = entry.seq
                if seq < expected or seq in self._later:
                    continue
                size = self._fresh_bytes + entry.size
                if size > MAX_FRESH_BYTES:
                    break
                self._fresh_bytes = size
                if seq == expected:
                    fresh.append(entry)
                    expected += 1
                else:
                    self._later[seq] = entry
            if self._later:
                self._close_gap(expected)
            self._head = max(self._head, entries[-1].seq)
        self.stirred.set()

    def _pass_own(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Move the cursor over what this connection itself has sent; what follows that."""
        position, count = self._window.position, 0
        for entry in entries:
            if entry.origin != self.origin or entry.seq != position + 1:
                break
            position, count = entry.seq, count + 1
        if count:
            self._window.passed([], position)
            self._head = max(self._head, position)
        return entries[count:]

    def _close_gap(self, expected: int) -> None:
        """Take what is no longer too early."""
        while (entry := self._later.pop(expected, None)) is not None:
            self._fresh.append(entry)
            expected += 1
        if not self._later:
            self.look_again_at = None
        elif self.look_again_at is None:
            self.look_again_at = time.monotonic() + GAP_SECONDS

    def reach(self, head: int) -> None:
        """The mailbox is known to reach `head`."""
        if head > self._head:
            with self._lock:
                self._head = max(self._head, head)
            self.stirred.set()

    def reply(self, frame: bytes) -> None:
        """A frame for the client that is no entry."""
        with self._lock:
            self._replies.append(frame)
        self.stirred.set()

    def tell(self, frame: bytes) -> None:
        """A frame that may be lost, and is when the client does not keep up."""
        if len(self._replies) < MAX_EPHEMERAL:
            self.reply(frame)

    def close(self, code: int) -> None:
        """End the connection; the first code stays."""
        if self.close_code is None:
            self.close_code = code
        self.answered.set()
        self.stirred.set()

    def ack(self, seq: int) -> None:
        """The client has stored every entry up to `seq`.

        Raises:
            BadRequest: that is further than it was sent.
        """
        with self._lock:
            reached = self._window.ack(seq)
            has_more = self._head > self._window.position
        self._acknowledge(reached)
        if has_more:
            self.stirred.set()

    def acked(self, seq: int) -> None:
        """The database knows of the ack up to `seq`; go on with what came meanwhile."""
        with self._lock:
            self._ack_running = False
            self._ack_committed = seq
            further = self._ack_wanted if self._ack_wanted > seq else None
        if further is not None:
            self._acknowledge(further)

    def ack_failed(self, refusal: Refusal) -> None:
        """The database did not take the ack: the client, or its next ack, tries again."""
        with self._lock:
            self._ack_running = False
        self.reply(frames.encode_error(refusal))

    @property
    def is_full(self) -> bool:
        """Whether the client has to take answers before its next request; not when it ends."""
        return self._unanswered + len(self._replies) >= MAX_UNANSWERED and self.close_code is None

    def begin_request(self) -> None:
        """Something was asked for that is answered later, by end_request()."""
        with self._lock:
            self._unanswered += 1

    def end_request(self, answer: bytes | None = None, own_seq: int | None = None) -> None:
        """What begin_request() announced is done; the answer, which may name an own position."""
        with self._lock:
            self._unanswered -= 1
            if own_seq is not None:
                self._window.accepted(own_seq)
            if answer is not None:
                self._replies.append(answer)
        self.stirred.set()
        self.answered.set()

    def take_replies(self) -> list[bytes]:
        """Answers and ephemeral frames to write now."""
        if not self._replies:
            return []
        with self._lock:
            replies, self._replies = self._replies, []
        self.answered.set()
        return replies

    def take_entries(self) -> list[bytes]:
        """Entries to write now; sets `stirred` again if there are more.

        Raises:
            Unavailable: the database refused; nothing was lost, retry.
        """
        is_at_the_end = self._head <= self._window.position and not self._fresh
        if is_at_the_end and self._backlog is None and not self._window.has_promised:
            return []
        out = [entry.frame() for entry in self._next_entries()]
        if self._backlog is not None and self._window.position >= self._backlog:
            out.append(frames.encode("caught_up", head=self._backlog))
            self._backlog = None
        if self._window.has_promised and (reached := self._promised()) is not None:
            self._acknowledge(reached)
        return out

    def _next_entries(self) -> list[Entry]:
        """Entries after my position, in order, as far as the client keeps up."""
        with self._lock:
            room, position = self._window.room, self._window.position
            if self.look_again_at is not None and self.look_again_at <= time.monotonic():
                self._forget_what_came_early()
            if self._fresh and self._fresh[0].seq <= position:
                self._next_fresh(sum(entry.seq <= position for entry in self._fresh))
            if room <= 0 or self._head <= position:
                return []
            head = self._head
            if self._fresh and self._fresh[0].seq == position + 1:
                count = min(room, ENTRIES_AT_ONCE, len(self._fresh))
                fresh = self._next_fresh(count)
                return self._passed(fresh, fresh[-1].seq)
            if self.look_again_at is not None:
                return []
        page = self._page_after(position, min(room, self._page_limit))
        with self._lock:
            if page.through <= position:
                # Less is there than was said: the account is gone, or the database was restored.
                # What was said meanwhile stands.
                if self._fresh:
                    self._head = self._fresh[-1].seq
                elif self._head == head:
                    self._head = position
                return []
            if self._later and not self._fresh:
                self._join_what_came_early(page.through)
            return self._passed(page.entries, page.through)

    def _page_after(self, position: int, limit: int) -> Page:
        """The next page of the mailbox, cut where it would fill a slow client's memory."""
        page = self._entries_after(self.owner, position, limit)
        sizes = list(accumulate(entry.size for entry in page.entries))
        fitting = max(1, bisect_right(sizes, BYTES_AT_ONCE))
        if fitting >= len(sizes):
            self._page_limit = min(2 * self._page_limit, ENTRIES_AT_ONCE)
            return page
        self._page_limit = fitting
        return Page(page.entries[:fitting], page.entries[fitting - 1].seq)

    def _join_what_came_early(self, position: int) -> None:
        """While a page was read, what follows it may have come."""
        for seq in [seq for seq in self._later if seq <= position]:
            self._fresh_bytes -= self._later.pop(seq).size
        self._close_gap(position + 1)

    def _forget_what_came_early(self) -> None:
        self._fresh_bytes -= sum(entry.size for entry in self._later.values())
        self._later.clear()
        self.look_again_at = None

    def _next_fresh(self, count: int) -> list[Entry]:
        entries = self._fresh[:count]
        del self._fresh[:count]
        if self._fresh or self._later:
            self._fresh_bytes -= sum(entry.size for entry in entries)
        else:
            self._fresh_bytes = 0
        return entries

    def _passed(self, entries: Sequence[Entry], through: int) -> list[Entry]:
        """Move the cursor over entries; those that the client is to get."""
        wanted = [entry for entry in entries if entry.origin != self.origin]
        self._window.passed([entry.seq for entry in wanted], through)
        if self._head > through and self._window.room > 0:
            self.stirred.set()
        return wanted

    def _promised(self) -> int | None:
        with self._lock:
            return self._window.promised()

    def _acknowledge(self, seq: int) -> None:
        """Commit an ack, one at a time: those that come meanwhile become one."""
        with self._lock:
            self._ack_wanted = max(self._ack_wanted, seq)
            if self._ack_running or self._ack_wanted <= self._ack_committed:
                return
            self._ack_running, wanted = True, self._ack_wanted
        self._commit_ack(self, wanted)
