"""The mailbox's statements on PostgreSQL: one round trip, and one transaction, for a whole batch.

Every statement locks the accounts that it grows in the order of their ids before it changes
anything. The update that follows sees the locked rows as they are now, not as they were when the
statement began (READ COMMITTED re-evaluates them), so bases are right under concurrency. What the
snapshot cannot show, an id that another process stores meanwhile, is caught by the primary key.

Arrays travel as the text that PostgreSQL reads, and all contents of a batch as one value: drivers
spend more on a list than the database on its elements, and psycopg on a list of 4 KiB contents the
most. Texts also have one type, so that one prepared statement serves batches of all sizes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from ..protocol.entries import ReceiptEntry
from .accounts import Party
from .arrays import array, array_of_ids, array_of_texts
from .batch import Batch
from .database import Conflict, asked_again
from .libpq import Value
from .mailbox import (
    Ack,
    Known,
    Mailboxes,
    Obstacles,
    Page,
    Read,
    Stored,
)
from .rows import page_from_rows, receipt_from_json
from .times import aware

# The planner sees neither how long an array is nor that there are many accounts in it (the ranges
# leave nothing out): so one plan, by the primary keys, serves all batches. It would plan each small
# batch anew, which costs as much as the batch, or read through all of some thousand accounts. Rows
# find their account's base by its place, since a plan for few rows would join them one by one.
_ARRAY = re.compile(r"%\(\w+\)s::(\w+\[\])")


def _planned_once(statement: str) -> str:
    return _ARRAY.sub(r"(SELECT \g<0>)::\1", statement)


_STORE = _planned_once("""
WITH locked AS MATERIALIZED (
    SELECT a.id FROM unnest(%(accounts)s::int[]) AS i (id) JOIN e2emsg_accounts a ON a.id = i.id
    WHERE i.id BETWEEN 1 AND 2147483647
    ORDER BY a.id FOR NO KEY UPDATE OF a
), known AS MATERIALIZED (
    SELECT id, sender_id, recipient_id, encrypted_content, created_at, sender_seq
    FROM e2emsg_messages WHERE id = ANY(%(ids)s::uuid[])
), bumped AS (
    UPDATE e2emsg_accounts a
    SET last_seq = a.last_seq + g.entries,
        delivered_seq = a.delivered_seq
            + CASE WHEN a.delivered_seq = a.last_seq THEN g.leading_sent ELSE 0 END
    FROM unnest(%(grown)s::int[], %(entries)s::int[], %(leading)s::int[])
        WITH ORDINALITY AS g (account_id, entries, leading_sent, place)
    WHERE a.id = g.account_id AND g.account_id BETWEEN 1 AND 2147483647
        AND (SELECT count(*) FROM locked) = cardinality(%(accounts)s::int[])
        AND NOT EXISTS (SELECT FROM known)
    RETURNING a.id, a.last_seq - g.entries AS base, g.place
), stored AS (
    INSERT INTO e2emsg_messages (id, sender_id, recipient_id, conversation_id, encrypted_content,
        created_at, expires_at, origin, sender_seq, recipient_seq)
    SELECT r.id, r.sender_id, r.recipient_id, r.conversation_id,
        substr(%(contents)s::bytea, r.start, r.size),
        %(created_at)s::timestamptz, r.expires_at, r.origin,
        CASE WHEN r.sender_offset > 0 THEN b.bases[r.sender_place] + r.sender_offset END,
        b.bases[r.recipient_place] + r.recipient_offset
    FROM (SELECT array_agg(base ORDER BY place) AS bases FROM bumped) AS b, unnest(
        %(ids)s::uuid[], %(senders)s::int[], %(recipients)s::int[], %(conversations)s::text[],
        %(starts)s::int[], %(sizes)s::int[], %(expiries)s::timestamptz[], %(origins)s::bigint[],
        %(sender_places)s::int[], %(recipient_places)s::int[],
        %(sender_offsets)s::int[], %(recipient_offsets)s::int[]
    ) AS r (id, sender_id, recipient_id, conversation_id, start, size, expires_at, origin,
        sender_place, recipient_place, sender_offset, recipient_offset)
    WHERE b.bases IS NOT NULL
)
SELECT 'base' AS kind, id AS account_id, base, NULL::uuid AS id, NULL::int AS sender_id,
    NULL::int AS recipient_id, NULL::bytea AS content, NULL::timestamptz AS created_at,
    NULL::bigint AS sender_seq
FROM bumped
UNION ALL SELECT 'known', NULL, NULL, id, sender_id, recipient_id, encrypted_content,
    created_at, sender_seq FROM known
UNION ALL SELECT 'account', id, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM locked WHERE NOT EXISTS (SELECT FROM bumped)
""")

# The same for one message from one account to another: a third of the cost. The account with the
# lower id is locked first, since the other update asks for it. It stores nothing when an account is
# missing, and fails when the id is known.
_STORE_ONE = """
WITH lower AS (
    UPDATE e2emsg_accounts SET last_seq = last_seq + 1, delivered_seq = delivered_seq
        + CASE WHEN delivered_seq = last_seq THEN %(lower_leading)s ELSE 0 END
    WHERE id = %(lower)s AND EXISTS (SELECT FROM e2emsg_accounts WHERE id = %(higher)s)
    RETURNING id, last_seq
), higher AS (
    UPDATE e2emsg_accounts SET last_seq = last_seq + 1, delivered_seq = delivered_seq
        + CASE WHEN delivered_seq = last_seq THEN 1 - %(lower_leading)s ELSE 0 END
    WHERE id = %(higher)s AND EXISTS (SELECT FROM lower)
    RETURNING id, last_seq
), stored AS (
    INSERT INTO e2emsg_messages (id, sender_id, recipient_id, conversation_id, encrypted_content,
        created_at, expires_at, origin, sender_seq, recipient_seq)
    SELECT %(id)s::uuid, sender.id, recipient.id, %(conversation)s::text, %(content)s::bytea,
        %(created_at)s::timestamptz, %(expires_at)s::timestamptz, %(origin)s::bigint,
        sender.last_seq, recipient.last_seq
    FROM {sender} AS sender, {recipient} AS recipient
)
SELECT id, last_seq - 1 FROM lower UNION ALL SELECT id, last_seq - 1 FROM higher
"""
_STORE_ONE_UPWARD = _STORE_ONE.format(sender="lower", recipient="higher")
_STORE_ONE_DOWNWARD = _STORE_ONE.format(sender="higher", recipient="lower")

# Marks messages and tells their senders. `reach` are the mailboxes whose acknowledged position
# moves, `found` the messages to mark. A CTE runs only when it is asked for: each update asks for
# `locked`, and so cannot begin before all locks are held.
_MARK = """
WITH reach AS MATERIALIZED ({reach}), found AS MATERIALIZED ({found}),
locked AS MATERIALIZED (
    SELECT id FROM e2emsg_accounts
    WHERE id IN (SELECT id FROM reach UNION SELECT sender_id FROM found
        UNION SELECT recipient_id FROM found)
    ORDER BY id FOR NO KEY UPDATE
), marked AS (
    UPDATE e2emsg_messages m SET {column} = %(at)s::timestamptz
    FROM found f
    WHERE m.id = f.id AND m.{column} IS NULL AND (SELECT count(*) FROM locked) >= 0
    RETURNING m.id, m.sender_id, m.recipient_id, m.recipient_seq
), numbered AS (
    SELECT id, sender_id, recipient_id, recipient_seq, (row_number() OVER (
        PARTITION BY sender_id, recipient_id ORDER BY recipient_seq) - 1) / %(chunk)s AS chunk
    FROM marked WHERE sender_id <> recipient_id
), receipts AS (
    SELECT sender_id, recipient_id, chunk, json_agg(id ORDER BY recipient_seq)::text AS ids
    FROM numbered GROUP BY sender_id, recipient_id, chunk
), growth AS (
    SELECT id, max(high) AS high, count(ids) AS entries,
        array_agg(recipient_id ORDER BY recipient_id, chunk) FILTER (WHERE ids IS NOT NULL) AS by,
        array_agg(ids ORDER BY recipient_id, chunk) FILTER (WHERE ids IS NOT NULL) AS ids
    FROM (SELECT id, high, NULL::int AS recipient_id, NULL::bigint AS chunk, NULL::text AS ids
        FROM reach UNION ALL SELECT sender_id, 0, recipient_id, chunk, ids FROM receipts) AS every
    GROUP BY id
), bumped AS (
    UPDATE e2emsg_accounts a
    SET last_seq = a.last_seq + g.entries, delivered_seq = GREATEST(a.delivered_seq, g.high)
    FROM growth g WHERE a.id = g.id AND (SELECT count(*) FROM locked) >= 0
    RETURNING a.id, a.user_id, a.last_seq - g.entries AS base, g.by, g.ids
), told AS MATERIALIZED (
    SELECT b.id, b.user_id, b.base + r.place AS seq, json_build_object(
        'by', (SELECT user_id FROM e2emsg_accounts WHERE id = r.recipient_id),
        'ids', r.ids::json, 'at', %(at_text)s::text)::text AS data
    FROM bumped b CROSS JOIN unnest(b.by, b.ids) WITH ORDINALITY AS r (recipient_id, ids, place)
), written AS (
    INSERT INTO e2emsg_events (account_id, seq, kind, data, created_at)
    SELECT id, seq, %(kind)s, data, %(at)s::timestamptz FROM told
)
SELECT user_id, seq, data, NULL::int AS recipient_id, NULL::uuid AS id FROM told
{marks}"""
_MARKS = "UNION ALL SELECT NULL, NULL, NULL, recipient_id, id FROM marked"


def _marking(**parts: str) -> str:
    return _planned_once(_MARK.format(**parts))


_DELIVER = _marking(
    column="delivered_at",
    marks="",
    reach="""
    SELECT a.id, a.delivered_seq AS low, LEAST(i.seq, a.last_seq) AS high
    FROM unnest(%(accounts)s::int[], %(seqs)s::bigint[]) AS i (account_id, seq)
    JOIN e2emsg_accounts a ON a.id = i.account_id
    WHERE i.account_id BETWEEN 1 AND 2147483647 AND i.seq > a.delivered_seq""",
    found="""
    SELECT m.id, m.sender_id, m.recipient_id FROM reach r JOIN e2emsg_messages m
        ON m.recipient_id = r.id AND m.recipient_seq > r.low AND m.recipient_seq <= r.high
    WHERE m.delivered_at IS NULL
        AND (m.expires_at IS NULL OR m.expires_at > %(at)s::timestamptz)""",
)
_BY_ID = """
    SELECT m.id, m.sender_id, m.recipient_id
    FROM unnest(%(ids)s::uuid[], %(accounts)s::int[]) AS i (id, account_id)
    JOIN e2emsg_messages m ON m.id = i.id AND m.recipient_id = i.account_id
    WHERE m.{column} IS NULL"""
_NOBODY = "SELECT 0 AS id, 0::bigint AS high WHERE false"
_DELIVER_READ = _marking(
    column="delivered_at", marks="", reach=_NOBODY, found=_BY_ID.format(column="delivered_at")
)
_READ = _marking(
    column="read_at", marks=_MARKS, reach=_NOBODY, found=_BY_ID.format(column="read_at")
)

_ENTRIES = """
WITH page AS (
    (SELECT recipient_seq AS seq, 'received' AS place, id, sender_id AS other_id, conversation_id,
        encrypted_content, created_at, expires_at, origin, NULL AS kind, NULL AS data
    FROM e2emsg_messages WHERE recipient_id = %(me)s AND recipient_seq > %(seq)s
        AND (expires_at IS NULL OR expires_at > now())
    ORDER BY recipient_seq LIMIT %(limit)s)
    UNION ALL
    (SELECT sender_seq, 'sent', id, recipient_id, conversation_id,
        encrypted_content, created_at, expires_at, origin, NULL, NULL
    FROM e2emsg_messages WHERE sender_id = %(me)s AND sender_seq > %(seq)s
        AND (expires_at IS NULL OR expires_at > now())
    ORDER BY sender_seq LIMIT %(limit)s)
    UNION ALL
    (SELECT seq, 'event', NULL, NULL, NULL, NULL, NULL, NULL, NULL, kind, data
    FROM e2emsg_events WHERE account_id = %(me)s AND seq > %(seq)s
    ORDER BY seq LIMIT %(limit)s)
)
SELECT a.last_seq, page.seq, page.place, page.id, other.user_id, page.conversation_id,
    page.encrypted_content, page.created_at, page.expires_at, page.origin, page.kind, page.data
FROM e2emsg_accounts a
LEFT JOIN (SELECT * FROM page ORDER BY seq LIMIT %(limit)s) AS page ON true
LEFT JOIN e2emsg_accounts other ON other.id = page.other_id
WHERE a.id = %(me)s ORDER BY page.seq
"""


class PostgreSQLMailboxes(Mailboxes):
    """Mailboxes in PostgreSQL, through psycopg or psycopg2."""

    @asked_again
    def entries_after(self, owner: Party, seq: int, limit: int) -> Page:
        """See Mailboxes.entries_after."""
        parameters: dict[str, Value] = {"me": owner.account_id, "seq": seq, "limit": limit}
        rows = self.database.ask_in_turn(_ENTRIES, parameters)
        return page_from_rows(rows, owner, seq, limit)

    def _store(self, batch: Batch) -> Stored | Obstacles:
        return self._store_one(batch) or self._store_all(batch)

    def _store_one(self, batch: Batch) -> Stored | None:
        """Store a lone message the quick way; None, and nothing stored, if that cannot be."""
        row = batch.rows[0]
        sender_id, recipient_id = row.sender.account_id, row.recipient.account_id
        if len(batch.rows) > 1 or row.sender_offset is None or sender_id == recipient_id:
            return None
        is_upward = sender_id < recipient_id
        parameters: dict[str, Value] = {
            "lower": min(sender_id, recipient_id),
            "higher": max(sender_id, recipient_id),
            "lower_leading": int(is_upward),
            "id": str(row.message.id),
            "conversation": row.message.conversation_id,
            "content": row.message.content,
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            "origin": row.origin,
        }
        try:
            statement = _STORE_ONE_UPWARD if is_upward else _STORE_ONE_DOWNWARD
            bases: dict[int, int] = dict(self.database.ask(statement, parameters))
        except Conflict:
            return None
        return Stored(bases) if len(bases) == 2 else None  # Else an account has just gone.

    def _store_all(self, batch: Batch) -> Stored | Obstacles:
        answer = self.database.ask(_STORE, _parameters(batch))
        bases = {account_id: base for kind, account_id, base, *_ in answer if kind == "base"}
        if bases:
            return Stored(bases)
        known = {}
        for kind, _, _, message_id, sender_id, recipient_id, content, created_at, seq in answer:
            if kind == "known":
                known[UUID(str(message_id))] = Known(
                    sender_id, recipient_id, bytes(content), aware(created_at), seq
                )
        return Obstacles(known, frozenset(row[1] for row in answer if row[0] == "account"))

    def _deliver(self, acks: Sequence[Ack], at: datetime) -> list[tuple[str, ReceiptEntry]]:
        _, receipts = self._mark(
            _DELIVER,
            "delivered",
            at,
            {
                "accounts": array(ack.owner.account_id for ack in acks),
                "seqs": array(ack.seq for ack in acks),
            },
        )
        return receipts

    def _read(
        self, reads: Sequence[Read], at: datetime
    ) -> tuple[set[tuple[int, UUID]], list[tuple[str, ReceiptEntry]]]:
        parameters = {
            "ids": array_of_ids(message_id for read in reads for message_id in read.ids),
            "accounts": array(read.owner.account_id for read in reads for _ in read.ids),
        }
        _, delivered = self._mark(_DELIVER_READ, "delivered", at, parameters)
        marked, read = self._mark(_READ, "read", at, parameters)
        return marked, delivered + read

    def _mark(
        self, statement: str, kind: str, at: datetime, parameters: dict[str, str]
    ) -> tuple[set[tuple[int, UUID]], list[tuple[str, ReceiptEntry]]]:
        moment = at.isoformat()
        common: dict[str, Value] = {
            "kind": kind,
            "at": moment,
            "at_text": moment,
            "chunk": self.ids_in_one_receipt,
        }
        answer = self.database.ask(statement, common | parameters)
        marked, receipts = set(), []
        for user_id, seq, data, recipient_id, message_id in answer:
            if user_id is None:
                marked.add((recipient_id, UUID(str(message_id))))
            else:
                receipts.append((user_id, receipt_from_json(seq, kind, data)))
        return marked, receipts


def _parameters(batch: Batch) -> dict[str, Value]:
    rows, growths = batch.rows, batch.growths.values()
    places = {account_id: place for place, account_id in enumerate(batch.growths, start=1)}
    messages = [row.message for row in rows]
    senders = [row.sender.account_id for row in rows]
    recipients = [row.recipient.account_id for row in rows]
    contents = [message.content for message in messages]
    sizes = [len(content) for content in contents]
    return {
        "accounts": array(batch.account_ids),
        "grown": array(batch.growths),
        "entries": array([growth.entries for growth in growths]),
        "leading": array([growth.leading_sent for growth in growths]),
        "created_at": rows[0].created_at.isoformat(),
        "ids": array_of_ids(message.id for message in messages),
        "senders": array(senders),
        "recipients": array(recipients),
        "conversations": array_of_texts([message.conversation_id for message in messages]),
        "contents": b"".join(contents),
        "starts": array(itertools.accumulate(sizes[:-1], initial=1)),
        "sizes": array(sizes),
        "expiries": array_of_texts([row.expires_at for row in rows]),
        "origins": array(["NULL" if row.origin is None else row.origin for row in rows]),
        "sender_places": array([places.get(sender, 0) for sender in senders]),
        "recipient_places": array([places[recipient] for recipient in recipients]),
        "sender_offsets": array([row.sender_offset or 0 for row in rows]),
        "recipient_offsets": array([row.recipient_offset for row in rows]),
    }
