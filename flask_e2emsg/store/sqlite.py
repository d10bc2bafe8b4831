"""The mailbox's statements on SQLite: plain steps inside one BEGIN IMMEDIATE transaction.

The write lock is taken before the first read, so nothing here can be overtaken. Nothing here waits.
"""

from __future__ import annotations

import itertools
import operator
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.engine.interfaces import DBAPICursor

from ..protocol.entries import ReceiptEntry
from ..protocol.values import now
from .accounts import Party
from .batch import Batch
from .mailbox import (
    Ack,
    Known,
    Mailboxes,
    Obstacles,
    Page,
    Read,
    Stored,
)
from .rows import page_from_rows, receipt_to_json
from .times import aware, sqlite_text

# SQLite before 3.32 takes 999 parameters; one statement has a few besides its list.
IDS_IN_ONE_STATEMENT = 900

_ENTRIES = """
SELECT a.last_seq, page.seq, page.place, page.id, other.user_id, page.conversation_id,
    page.encrypted_content, page.created_at, page.expires_at, page.origin, page.kind, page.data
FROM e2emsg_accounts a
LEFT JOIN (
    SELECT * FROM (
        SELECT * FROM (SELECT recipient_seq AS seq, 'received' AS place, id, sender_id AS other_id,
            conversation_id, encrypted_content, created_at, expires_at, origin,
            NULL AS kind, NULL AS data
        FROM e2emsg_messages WHERE recipient_id = :me AND recipient_seq > :seq
            AND (expires_at IS NULL OR expires_at > :now)
        ORDER BY recipient_seq LIMIT :limit)
        UNION ALL
        SELECT * FROM (SELECT sender_seq, 'sent', id, recipient_id, conversation_id,
            encrypted_content, created_at, expires_at, origin, NULL, NULL
        FROM e2emsg_messages WHERE sender_id = :me AND sender_seq > :seq
            AND (expires_at IS NULL OR expires_at > :now)
        ORDER BY sender_seq LIMIT :limit)
        UNION ALL
        SELECT * FROM (SELECT seq, 'event', NULL, NULL, NULL, NULL, NULL, NULL, NULL, kind, data
        FROM e2emsg_events WHERE account_id = :me AND seq > :seq
        ORDER BY seq LIMIT :limit)
    ) ORDER BY seq LIMIT :limit
) AS page
LEFT JOIN e2emsg_accounts other ON other.id = page.other_id
WHERE a.id = :me ORDER BY page.seq
"""
_INSERT = """
INSERT INTO e2emsg_messages (id, sender_id, recipient_id, conversation_id, encrypted_content,
    created_at, expires_at, sender_seq, recipient_seq, origin)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_GROW = """
UPDATE e2emsg_accounts SET last_seq = last_seq + ?, delivered_seq = delivered_seq
    + CASE WHEN delivered_seq = last_seq THEN ? ELSE 0 END
WHERE id = ?
"""
_BASES = "SELECT id, last_seq FROM e2emsg_accounts WHERE id IN ({})"
_KNOWN = """
SELECT id, sender_id, recipient_id, encrypted_content, created_at, sender_seq
FROM e2emsg_messages WHERE id IN ({})
"""
_STATES = "SELECT id, last_seq, delivered_seq FROM e2emsg_accounts WHERE id IN ({})"
_NOBODY = (0, 0, 0)
_DELIVER = """
UPDATE e2emsg_messages SET delivered_at = ?
WHERE recipient_id = ? AND recipient_seq > ? AND recipient_seq <= ? AND delivered_at IS NULL
    AND (expires_at IS NULL OR expires_at > ?)
RETURNING id, sender_id, recipient_seq
"""
_REACH = "UPDATE e2emsg_accounts SET delivered_seq = ? WHERE id = ?"
_MARKS = """
SELECT id, sender_id, recipient_seq, recipient_id, delivered_at, read_at
FROM e2emsg_messages WHERE id IN ({})
"""
_MARK_DELIVERED = "UPDATE e2emsg_messages SET delivered_at = ? WHERE id = ?"
_MARK_READ = "UPDATE e2emsg_messages SET read_at = ? WHERE id = ?"
_GROW_BY_RECEIPTS = """
UPDATE e2emsg_accounts SET last_seq = last_seq + ? WHERE id = ? RETURNING last_seq, user_id
"""
_ADD_EVENT = """
INSERT INTO e2emsg_events (account_id, seq, kind, data, created_at) VALUES (?, ?, ?, ?, ?)
"""


class SQLiteMailboxes(Mailboxes):
    """Mailboxes in SQLite."""

    def entries_after(self, owner: Party, seq: int, limit: int) -> Page:
        """See Mailboxes.entries_after."""
        parameters = {
            "me": owner.account_id,
            "seq": seq,
            "limit": limit,
            "now": sqlite_text(now()),
        }
        with self.database.read_directly() as cursor:
            cursor.execute(_ENTRIES, parameters)
            return page_from_rows(cursor.fetchall(), owner, seq, limit)

    def _store(self, batch: Batch) -> Stored | Obstacles:
        account_ids = batch.account_ids
        ids = [row.message.id.hex for row in batch.rows]
        with self.database.write_directly() as cursor:
            bases = dict(_select_in(cursor, _BASES, account_ids))
            known = {UUID(row[0]): _known(row) for row in _select_in(cursor, _KNOWN, ids)}
            if known or len(bases) < len(account_ids):
                return Obstacles(known, frozenset(bases))
            cursor.executemany(
                _GROW,
                [
                    (growth.entries, growth.leading_sent, account_id)
                    for account_id, growth in batch.growths.items()
                ],
            )
            cursor.executemany(_INSERT, list(_values(batch, ids, bases)))
        return Stored(bases)

    def _deliver(self, acks: Sequence[Ack], at: datetime) -> list[tuple[str, ReceiptEntry]]:
        moment = sqlite_text(at)
        receipts = _Receipts(self.ids_in_one_receipt)
        reached = []
        with self.database.write_directly() as cursor:
            owner_ids = [ack.owner.account_id for ack in acks]
            states = {row[0]: row for row in _select_in(cursor, _STATES, owner_ids)}
            for ack in acks:
                account_id, last_seq, delivered_seq = states.get(ack.owner.account_id, _NOBODY)
                high = min(ack.seq, last_seq)
                if high > delivered_seq:
                    cursor.execute(_DELIVER, (moment, account_id, delivered_seq, high, moment))
                    receipts.add("delivered", ack.owner, cursor.fetchall())
                    reached.append((high, account_id))
            cursor.executemany(_REACH, reached)
            return receipts.written(cursor, at)

    def _read(
        self, reads: Sequence[Read], at: datetime
    ) -> tuple[set[tuple[int, UUID]], list[tuple[str, ReceiptEntry]]]:
        moment = sqlite_text(at)
        marked: set[tuple[int, UUID]] = set()
        receipts = _Receipts(self.ids_in_one_receipt)
        with self.database.write_directly() as cursor:
            for read in reads:
                owner = read.owner.account_id
                ids = [message_id.hex for message_id in read.ids]
                mine = [row for row in _select_in(cursor, _MARKS, ids) if row[3] == owner]
                for kind, mark, column in (
                    ("delivered", _MARK_DELIVERED, 4),
                    ("read", _MARK_READ, 5),
                ):
                    unmarked = [row[:3] for row in mine if row[column] is None]
                    cursor.executemany(mark, [(moment, row[0]) for row in unmarked])
                    receipts.add(kind, read.owner, unmarked)
                marked |= {(owner, UUID(row[0])) for row in mine if row[5] is None}
            return marked, receipts.written(cursor, at)


class _Receipts:
    """What senders are to be told, in the order of marking."""

    def __init__(self, ids_in_one: int) -> None:
        self._ids_in_one = ids_in_one
        self._waiting: list[tuple[int, str, str, list[UUID]]] = []

    def add(self, kind: str, owner: Party, rows: Sequence[Sequence[Any]]) -> None:
        """Messages of one recipient that were just marked: id, sender, position."""
        by_sender: defaultdict[int, list[UUID]] = defaultdict(list)
        for message_id, sender_id, *_ in sorted(rows, key=_position):
            if sender_id != owner.account_id:
                by_sender[sender_id].append(UUID(message_id))
        for sender_id, ids in by_sender.items():
            for start in range(0, len(ids), self._ids_in_one):
                chunk = ids[start : start + self._ids_in_one]
                self._waiting.append((sender_id, kind, owner.user_id, chunk))

    def written(self, cursor: DBAPICursor, at: datetime) -> list[tuple[str, ReceiptEntry]]:
        """Append them to the logs of the senders who are still there."""
        heads = dict(self._grow_logs(cursor))
        moment = sqlite_text(at)
        receipts, events = [], []
        for sender_id, kind, by, ids in self._waiting:
            if sender_id in heads:
                seqs, user_id = heads[sender_id]
                receipt = ReceiptEntry(next(seqs), kind, by, ids, at)
                receipts.append((user_id, receipt))
                data = receipt_to_json(by, ids, at)
                events.append((sender_id, receipt.seq, kind, data, moment))
        cursor.executemany(_ADD_EVENT, events)
        return receipts

    def _grow_logs(self, cursor: DBAPICursor) -> Iterator[tuple[int, tuple[Iterator[int], str]]]:
        for sender_id, count in Counter(waiting[0] for waiting in self._waiting).items():
            cursor.execute(_GROW_BY_RECEIPTS, (count, sender_id))
            for last_seq, user_id in cursor.fetchall():
                yield sender_id, (itertools.count(last_seq - count + 1), user_id)


_position = operator.itemgetter(2)


def _select_in(cursor: DBAPICursor, statement: str, keys: Sequence[Any]) -> Iterator[Any]:
    for start in range(0, len(keys), IDS_IN_ONE_STATEMENT):
        some = keys[start : start + IDS_IN_ONE_STATEMENT]
        # Few lengths, so that the driver finds most statements prepared.
        length = min(1 << (len(some) - 1).bit_length(), IDS_IN_ONE_STATEMENT)
        padded = [*some, *itertools.repeat(some[-1], length - len(some))]
        cursor.execute(statement.format(",".join("?" * length)), padded)
        yield from cursor.fetchall()


def _known(row: Sequence[Any]) -> Known:
    _, sender_id, recipient_id, content, created_at, sender_seq = row
    return Known(sender_id, recipient_id, content, aware(created_at), sender_seq)


def _values(
    batch: Batch, ids: Sequence[str], bases: Mapping[int, int]
) -> Iterator[tuple[object, ...]]:
    created_at = sqlite_text(batch.rows[0].created_at)
    for message_id, row in zip(ids, batch.rows, strict=True):
        message, sent = row.message, row.sender_offset
        yield (
            message_id,
            row.sender.account_id,
            row.recipient.account_id,
            message.conversation_id,
            message.content,
            created_at,
            sqlite_text(row.expires_at),
            None if sent is None else bases[row.sender.account_id] + sent,
            bases[row.recipient.account_id] + row.recipient_offset,
            row.origin,
        )
