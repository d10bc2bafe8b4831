"""A user's mailbox: the append-only log of entries that a connection's cursor moves along.

Guarantees: a message is stored once however often it is sent; positions follow commit order and
have no holes when they are given out; entries_after() returns them in that order. Several mailboxes
in one transaction are locked in the order of their accounts. One call of append(), ack() or read()
is one transaction for all that it is given; what is wrong with one element fails that element only.

The statements differ between databases (postgresql.py, sqlite.py); what they mean is decided here.
"""

from __future__ import annotations

import functools
import itertools
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import msgspec

from ..errors import IdConflict, Refusal, UnknownRecipient
from ..protocol.entries import Entry, Message, MessageEntry, ReceiptEntry
from ..protocol.frames import Outgoing
from ..protocol.values import now
from .accounts import Party
from .batch import Batch, Row
from .database import Conflict, ConnectionLost, Database

T = TypeVar("T")

ATTEMPTS = 10


class Append(msgspec.Struct, frozen=True, gc=False):
    """Messages of one sender that are stored together, all or none."""

    sender: Party
    recipients: Sequence[Party]  # of each message, in the same order
    messages: Sequence[Outgoing]
    keeps_sent: bool  # whether the sender's own mailbox gets a `sent` entry
    origin: int | None = None  # the connection that gets no `sent` entry back
    first_stored_at: datetime | None = None  # when the first message was stored, if it was before


class Appended(msgspec.Struct, frozen=True, gc=False):
    """What became of an Append."""

    created_at: datetime  # of the first message
    is_new: bool  # False: all of it had been stored before
    sent_seq: int | None  # position of the `sent` entry, where one is kept


class Ack(msgspec.Struct, frozen=True, gc=False):
    """The owner has stored every entry up to `seq`."""

    owner: Party
    seq: int


class Read(msgspec.Struct, frozen=True, gc=False):
    """The owner has read these messages."""

    owner: Party
    ids: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class Committed:
    """One transaction's results: an outcome for each element, and the entries it made, by user."""

    outcomes: Sequence[Appended | int | Refusal]
    entries: Mapping[str, list[Entry]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in order, and the position up to which there are no others."""

    entries: list[Entry]
    through: int


@dataclass(frozen=True, slots=True)
class Known:
    """A message that is stored already."""

    sender_id: int
    recipient_id: int
    content: bytes = field(repr=False)
    created_at: datetime
    sender_seq: int | None


@dataclass(frozen=True, slots=True)
class Stored:
    """The bases that a batch got: positions of an account are its base plus 1, 2, 3 and so on."""

    bases: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Obstacles:
    """Why a batch was not stored: nothing of it is in the database."""

    known: Mapping[UUID, Known]
    accounts: frozenset[int]  # those of the batch that exist


class Mailboxes(ABC):
    """The mailboxes of one database."""

    def __init__(self, database: Database, ids_in_one_receipt: int = 500) -> None:
        self.database = database
        self.ids_in_one_receipt = ids_in_one_receipt

    def append(self, appends: Sequence[Append]) -> Committed:
        """Store messages; each Append gets an Appended or the Refusal that stopped it.

        Raises:
            Unavailable: the database refused; nothing was acknowledged, retry with the same ids.
        """
        outcomes: list[Appended | int | Refusal | None] = [None] * len(appends)
        entries: defaultdict[str, list[Entry]] = defaultdict(list)
        repeats: dict[int, int] = {}
        waiting = list(enumerate(appends))
        has_repeats = _has_repeated_id(appends)
        if has_repeats:
            repeats = _equal_sends(appends)
            waiting = [item for item in waiting if item[0] not in repeats]
        while waiting:
            now_stored, waiting = waiting, []
            if has_repeats:
                # An id may stand in a batch once: its second use has to see the first one stored.
                now_stored, waiting = _split_at_repeated_id(now_stored)
            for _ in range(ATTEMPTS):
                batch = Batch(append for _, append in now_stored)
                if not batch.rows:
                    break
                result = self._again_on_conflict(functools.partial(self._store, batch))
                if isinstance(result, Stored):
                    _collect(now_stored, batch, result, outcomes, entries)
                    break
                now_stored = _around(result, now_stored, outcomes)
            else:
                raise Conflict
        for index, first in repeats.items():
            outcome = outcomes[first]
            if isinstance(outcome, Appended):
                outcome = msgspec.structs.replace(outcome, is_new=False)
            outcomes[index] = outcome
        return Committed([_present(outcome) for outcome in outcomes], entries)

    def ack(self, acks: Sequence[Ack]) -> Committed:
        """Mark everything up to the acknowledged positions as delivered, and tell the senders.

        Raises:
            Unavailable: the database refused; retry.
        """
        furthest: dict[int, Ack] = {}
        for ack in acks:
            known = furthest.get(ack.owner.account_id)
            if known is None or ack.seq > known.seq:
                furthest[ack.owner.account_id] = ack
        receipts = self._again_on_conflict(lambda: self._deliver(list(furthest.values()), now()))
        return Committed([ack.seq for ack in acks], _by_user(receipts))

    def read(self, reads: Sequence[Read]) -> Committed:
        """Mark messages as read (and so as delivered), and tell the senders.

        The outcome of each is how many messages it marked.

        Raises:
            Unavailable: the database refused; retry.
        """
        marked, receipts = self._again_on_conflict(lambda: self._read(reads, now()))
        outcomes = []
        for read in reads:
            mine = {(read.owner.account_id, message_id) for message_id in read.ids} & marked
            marked -= mine
            outcomes.append(len(mine))
        return Committed(outcomes, _by_user(receipts))

    def _again_on_conflict(self, work: Callable[[], T]) -> T:
        # Doing it again is right even if it did commit: ids and marks are idempotent.
        for attempt in range(ATTEMPTS - 1):
            try:
                return work()
            except Conflict:
                continue
            except ConnectionLost:
                time.sleep(min(0.05 * 2**attempt, 1.0))
        return work()

    @abstractmethod
    def entries_after(self, owner: Party, seq: int, limit: int) -> Page:
        """The next entries of a mailbox, oldest first, at most `limit`.

        Messages that have expired are passed over; `through` tells how far the page reaches.

        Raises:
            Unavailable: the database refused; nothing was lost, retry.
        """

    @abstractmethod
    def _store(self, batch: Batch) -> Stored | Obstacles:
        """Store a batch in one transaction, or nothing of it."""

    @abstractmethod
    def _deliver(self, acks: Sequence[Ack], at: datetime) -> list[tuple[str, ReceiptEntry]]:
        """Mark, append receipts, move `delivered_seq`; the receipts with their owners."""

    @abstractmethod
    def _read(
        self, reads: Sequence[Read], at: datetime
    ) -> tuple[set[tuple[int, UUID]], list[tuple[str, ReceiptEntry]]]:
        """Mark, append receipts; what was unread, by account, and the receipts by owner."""


def _present(outcome: Appended | int | Refusal | None) -> Appended | int | Refusal:
    if outcome is None:
        raise AssertionError("an append without an outcome")
    return outcome


def _has_repeated_id(appends: Sequence[Append]) -> bool:
    ids = [message.id for append in appends for message in append.messages]
    return len(set(ids)) < len(ids)


def _equal_sends(appends: Sequence[Append]) -> dict[int, int]:
    """Which single messages stand here before, and where: a client that sends one again and again.

    What becomes of the first becomes of all of them.
    """
    first: dict[tuple[object, ...], int] = {}
    repeats = {}
    for index, append in enumerate(appends):
        if append.keeps_sent and len(append.messages) == 1:
            message = append.messages[0]
            key = (append.sender, append.recipients[0], message.id, message.content)
            if first.setdefault(key, index) != index:
                repeats[index] = first[key]
    return repeats


def _split_at_repeated_id(
    appends: Sequence[tuple[int, Append]],
) -> tuple[list[tuple[int, Append]], list[tuple[int, Append]]]:
    seen: set[UUID] = set()
    for position, (_, append) in enumerate(appends):
        ids = {message.id for message in append.messages}
        if seen & ids:
            return list(appends[:position]), list(appends[position:])
        seen |= ids
    return list(appends), []


def _around(
    obstacles: Obstacles,
    appends: Sequence[tuple[int, Append]],
    outcomes: list[Appended | int | Refusal | None],
) -> list[tuple[int, Append]]:
    """Give outcomes to the appends that cannot or need not be stored; return the others."""
    remaining = []
    for index, append in appends:
        refusal = _refusal(obstacles, append)
        if refusal is not None:
            outcomes[index] = refusal
            continue
        known = [obstacles.known.get(message.id) for message in append.messages]
        first = known[0]
        first_stored_at = append.first_stored_at
        if first_stored_at is None and first is not None:
            first_stored_at = first.created_at
        if first is not None and first_stored_at is not None and all(known):
            sent_seq = first.sender_seq if append.keeps_sent else None
            outcomes[index] = Appended(first_stored_at, False, sent_seq)
            continue
        stored = [item is not None for item in known]
        remaining.append((index, _without(append, stored, first_stored_at)))
    return remaining


def _refusal(obstacles: Obstacles, append: Append) -> Refusal | None:
    several = len(append.messages) > 1 or not append.keeps_sent
    for recipient, message in zip(append.recipients, append.messages, strict=True):
        culprit = str(message.id) if several else None
        known = obstacles.known.get(message.id)
        if known is not None and (known.sender_id, known.recipient_id, known.content) != (
            append.sender.account_id,
            recipient.account_id,
            message.content,
        ):
            return IdConflict(message_id=culprit)
        if known is None and recipient.account_id not in obstacles.accounts:
            return UnknownRecipient(message_id=culprit)
        if append.sender.account_id not in obstacles.accounts:
            return UnknownRecipient("Your own account is gone. Connect again.")
    return None


def _without(append: Append, stored: Sequence[bool], first_stored_at: datetime | None) -> Append:
    missing = [not one for one in stored]
    return Append(
        append.sender,
        list(itertools.compress(append.recipients, missing)),
        list(itertools.compress(append.messages, missing)),
        append.keeps_sent,
        append.origin,
        first_stored_at,
    )


def _collect(
    appends: Sequence[tuple[int, Append]],
    batch: Batch,
    stored: Stored,
    outcomes: list[Appended | int | Refusal | None],
    entries: defaultdict[str, list[Entry]],
) -> None:
    """Turn offsets into positions: outcomes for the senders, entries for the mailboxes."""
    rows, bases = iter(batch.rows), stored.bases
    for index, append in appends:
        sent_seq = None
        for row in itertools.islice(rows, len(append.messages)):
            message, sender, recipient = _message_of(row), row.sender, row.recipient
            if row.sender_offset is not None:
                sent_seq = bases[sender.account_id] + row.sender_offset
                entries[sender.user_id].append(MessageEntry(sent_seq, message, row.origin))
            received = bases[recipient.account_id] + row.recipient_offset
            entries[recipient.user_id].append(MessageEntry(received, message, None))
        created_at = append.first_stored_at or batch.rows[0].created_at
        outcomes[index] = Appended(created_at, True, sent_seq)


def _message_of(row: Row) -> Message:
    message = row.message
    return Message(
        message.id,
        row.sender.user_id,
        row.recipient.user_id,
        message.conversation_id,
        message.content,
        row.created_at,
        row.expires_at,
        message.content_text,
    )


def _by_user(receipts: Iterable[tuple[str, ReceiptEntry]]) -> dict[str, list[Entry]]:
    entries: defaultdict[str, list[Entry]] = defaultdict(list)
    for user_id, receipt in sorted(receipts, key=lambda item: item[1].seq):
        entries[user_id].append(receipt)
    return entries
