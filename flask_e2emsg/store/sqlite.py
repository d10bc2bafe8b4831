"""The mailbox's statements on SQLite: plain steps inside one BEGIN IMMEDIATE transaction.

The write lock is taken before the first read, so nothing here can be overtaken. Nothing here waits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.engine import Connection

from ..protocol.entries import ReceiptEntry
from ..protocol.values import now
from .accounts import Party
from .batch import Batch, Row
from .mailbox import (
    Ack,
    Known,
    Mailboxes,
    Obstacles,
    Page,
    Read,
    Stored,
)
from .rows import entry_from_row, receipt_to_json
from .times import aware, sqlite_text

# SQLite before 3.32 takes 999 parameters; one statement has a few besides its list.
IDS_IN_ONE_STATEMENT = 900

_ENTRIES = """
SELECT a.last_seq, page.*, other.user_id AS other FROM e2emsg_accounts a
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
UPDATE e2emsg_accounts SET last_seq = last_seq + :entries, delivered_seq = delivered_seq
    + CASE WHEN delivered_seq = last_seq THEN :leading ELSE 0 END
WHERE id = :id
"""
_ARRIVED = """
SELECT id, sender_id, recipient_id FROM e2emsg_messages
WHERE recipient_id = ? AND recipient_seq > ? AND recipient_seq <= ? AND delivered_at IS NULL
    AND (expires_at IS NULL OR expires_at > ?)
ORDER BY recipient_seq
"""
_ADD_EVENT = """
INSERT INTO e2emsg_events (account_id, seq, kind, data, created_at) VALUES (?, ?, ?, ?, ?)
"""

Receipts = list[tuple[str, ReceiptEntry]]


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
        with self.database.read() as connection:
            rows = connection.exec_driver_sql(_ENTRIES, parameters).all()
        entries = [entry_from_row(row, owner) for row in rows if row.seq is not None]
        if not rows:
            return Page([], seq)
        return Page(entries, entries[-1].seq if len(entries) == limit else rows[0].last_seq)

    def _store(self, batch: Batch) -> Stored | Obstacles:
        with self.database.write() as connection:
            account_ids = batch.account_ids
            bases = dict(_select_in(connection, _BASES, account_ids))
            ids = [row.message.id.hex for row in batch.rows]
            known = {UUID(row[0]): _known(row) for row in _select_in(connection, _KNOWN, ids)}
            if known or len(bases) < len(account_ids):
                return Obstacles(known, frozenset(bases))
            connection.exec_driver_sql(
                _GROW,
                [
                    {"id": account_id, "entries": growth.entries, "leading": growth.leading_sent}
                    for account_id, growth in batch.growths.items()
                ],
            )
            connection.exec_driver_sql(_INSERT, [_values(row, bases) for row in batch.rows])
        return Stored(bases)

    def _deliver(self, acks: Sequence[Ack], at: datetime) -> Receipts:
        receipts: Receipts = []
        with self.database.write() as connection:
            ids = [ack.owner.account_id for ack in acks]
            states = {row[0]: row for row in _select_in(connection, _STATES, ids)}
            for ack in acks:
                state = states.get(ack.owner.account_id)
                if state is None or ack.seq <= state[2]:
                    continue
                account_id, last_seq, delivered_seq = state
                high = min(ack.seq, last_seq)
                found = connection.exec_driver_sql(
                    _ARRIVED, (account_id, delivered_seq, high, sqlite_text(at))
                )
                receipts += self._mark(connection, "delivered", found.all(), at)
                connection.exec_driver_sql(
                    "UPDATE e2emsg_accounts SET delivered_seq = ? WHERE id = ?", (high, account_id)
                )
        return receipts

    def _read(self, reads: Sequence[Read], at: datetime) -> tuple[set[tuple[int, UUID]], Receipts]:
        marked: set[tuple[int, UUID]] = set()
        receipts: Receipts = []
        with self.database.write() as connection:
            for read in reads:
                ids = [message_id.hex for message_id in read.ids]
                rows = [
                    row
                    for row in _select_in(connection, _MARKS, ids)
                    if row.recipient_id == read.owner.account_id
                ]
                rows.sort(key=lambda row: row.recipient_seq)
                undelivered = [row for row in rows if row.delivered_at is None]
                unread = [row for row in rows if row.read_at is None]
                receipts += self._mark(connection, "delivered", undelivered, at)
                receipts += self._mark(connection, "read", unread, at)
                marked |= {(row.recipient_id, UUID(row.id)) for row in unread}
        return marked, receipts

    def _mark(
        self, connection: Connection, kind: str, rows: Sequence[Any], at: datetime
    ) -> Receipts:
        """Mark messages of one recipient, oldest first, and append their senders' receipts."""
        by_sender: defaultdict[int, list[UUID]] = defaultdict(list)
        for row in rows:
            by_sender[row.sender_id].append(UUID(row.id))
        if not rows:
            return []
        moment, recipient_id = sqlite_text(at), rows[0].recipient_id
        connection.exec_driver_sql(
            f"UPDATE e2emsg_messages SET {kind}_at = ? WHERE id = ?",
            [(moment, row.id) for row in rows],
        )
        by = _user_id(connection, recipient_id)
        receipts = []
        for sender_id, ids in by_sender.items():
            if sender_id == recipient_id:
                continue
            for start in range(0, len(ids), self.ids_in_one_receipt):
                chunk = ids[start : start + self.ids_in_one_receipt]
                seq = _next_seq(connection, sender_id)
                if seq is None:
                    continue
                data = receipt_to_json(by, chunk, at)
                connection.exec_driver_sql(_ADD_EVENT, (sender_id, seq, kind, data, moment))
                owner = _user_id(connection, sender_id)
                receipts.append((owner, ReceiptEntry(seq, kind, by, chunk, at)))
        return receipts


_BASES = "SELECT id, last_seq FROM e2emsg_accounts WHERE id IN ({})"
_STATES = "SELECT id, last_seq, delivered_seq FROM e2emsg_accounts WHERE id IN ({})"
_KNOWN = """
SELECT id, sender_id, recipient_id, encrypted_content, created_at, sender_seq
FROM e2emsg_messages WHERE id IN ({})
"""
_MARKS = """
SELECT id, sender_id, recipient_id, recipient_seq, delivered_at, read_at
FROM e2emsg_messages WHERE id IN ({})
"""


def _select_in(connection: Connection, statement: str, keys: Sequence[Any]) -> Iterator[Any]:
    for start in range(0, len(keys), IDS_IN_ONE_STATEMENT):
        some = tuple(keys[start : start + IDS_IN_ONE_STATEMENT])
        yield from connection.exec_driver_sql(statement.format(",".join("?" * len(some))), some)


def _known(row: Any) -> Known:
    _, sender_id, recipient_id, content, created_at, sender_seq = row
    return Known(sender_id, recipient_id, content, aware(created_at), sender_seq)


def _values(row: Row, bases: dict[int, int]) -> tuple[object, ...]:
    sent = row.sender_offset
    return (
        row.message.id.hex,
        row.sender.account_id,
        row.recipient.account_id,
        row.message.conversation_id,
        row.message.content,
        sqlite_text(row.created_at),
        sqlite_text(row.expires_at),
        None if sent is None else bases[row.sender.account_id] + sent,
        bases[row.recipient.account_id] + row.recipient_offset,
        row.origin,
    )


def _user_id(connection: Connection, account_id: int) -> str:
    statement = "SELECT user_id FROM e2emsg_accounts WHERE id = ?"
    return str(connection.exec_driver_sql(statement, (account_id,)).scalar_one())


def _next_seq(connection: Connection, account_id: int) -> int | None:
    """Grow a log by one; None when the account is gone."""
    statement = "UPDATE e2emsg_accounts SET last_seq = last_seq + 1 WHERE id = ? RETURNING last_seq"
    seq: int | None = connection.exec_driver_sql(statement, (account_id,)).scalar()
    return seq
