"""Our tables on PostgreSQL, filled by SQL alone: long histories, and how fast they can grow."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg

from . import processes
from .client import Users
from .postgres import Postgres
from .results import Figures
from .servers import make_tables

PAIRS = 32
CONTENT_BYTES = 256
BATCH_ROWS = 512

# Users 0 and 1 are a pair, 2 and 3 are the next, as in the load. What the odd ones have received is
# acknowledged, and the even ones have a receipt for every eight messages after what they have sent.
_FILL = (
    """
    INSERT INTO e2emsg_accounts
        (user_id, key_version, epoch, last_seq, delivered_seq, floor_seq, created_at)
    SELECT 'user-' || n, 0, lpad(to_hex(n), 16, '0'), seq, seq, 0, now()
    FROM generate_series(0, 2 * %(pairs)s - 1) AS n
    CROSS JOIN LATERAL (SELECT %(each)s + (1 - n %% 2) * (%(each)s / 8) AS seq) AS last
    """,
    """
    INSERT INTO e2emsg_messages (id, sender_id, recipient_id, encrypted_content, created_at,
        delivered_at, sender_seq, recipient_seq)
    SELECT (lpad(to_hex(1700000000000 + k), 12, '0') || '70008' || lpad(to_hex(pair), 3, '0')
            || lpad(to_hex(k), 12, '0'))::uuid,
        s.id, r.id, decode(repeat(md5(pair || '/' || k), %(bytes)s / 16), 'hex'),
        now(), now(), k, k
    FROM generate_series(1, %(each)s) AS k CROSS JOIN generate_series(0, %(pairs)s - 1) AS pair
    JOIN e2emsg_accounts s ON s.user_id = 'user-' || 2 * pair
    JOIN e2emsg_accounts r ON r.user_id = 'user-' || 2 * pair + 1
    ORDER BY k, pair
    """,
    """
    INSERT INTO e2emsg_events (account_id, seq, kind, data, created_at)
    SELECT s.id, %(each)s + k, 'delivered', json_build_object('by', 'user-' || 2 * pair + 1,
        'ids', json_build_array(gen_random_uuid()), 'at', now())::text, now()
    FROM generate_series(1, %(each)s / 8) AS k CROSS JOIN generate_series(0, %(pairs)s - 1) AS pair
    JOIN e2emsg_accounts s ON s.user_id = 'user-' || 2 * pair
    """,
)
_MAINTAIN = ("VACUUM ANALYZE", "CHECKPOINT")

# All that anybody would have to write to store a batch in our tables, and nothing else.
_APPEND = """
WITH grown AS (
    UPDATE e2emsg_accounts SET last_seq = last_seq + %(each)s
    WHERE id = ANY(%(senders)b::int[]) OR id = ANY(%(recipients)b::int[])
)
INSERT INTO e2emsg_messages (id, sender_id, recipient_id, encrypted_content, created_at,
    sender_seq, recipient_seq)
SELECT id, sender_id, recipient_id, content, now(), seq, seq
FROM unnest(%(ids)b::uuid[], %(senders)b::int[], %(recipients)b::int[], %(contents)b::bytea[],
    %(seqs)b::bigint[]) AS r (id, sender_id, recipient_id, content, seq)
"""


def make_history(postgres: Postgres, users: Users, stored: int) -> str:
    """A database of ours with about so many stored messages, to be the template of others."""
    name = postgres.create_database()
    make_tables(postgres.url(name), users.secret)
    counts = {"pairs": PAIRS, "each": stored // PAIRS, "bytes": CONTENT_BYTES}
    with psycopg.connect(postgres.url(name), autocommit=True) as connection:
        for statement in _FILL:
            connection.execute(statement, counts)
        for command in _MAINTAIN:
            connection.execute(command)
    return name


def insert_limit(postgres: Postgres, template: str, seconds: float) -> Figures:
    """Rows a second that PostgreSQL stores in our tables when ready batches are all it gets."""
    name, stored, spent = postgres.create_database(template), 0, 0.0
    try:
        with psycopg.connect(postgres.url(name), autocommit=True) as connection:
            batches = _batches(_pairs(connection))
            cpu = processes.cpu_seconds(postgres.pid)
            while spent < seconds:
                batch = next(batches)
                began = time.perf_counter()
                connection.execute(_APPEND, batch, prepare=True)
                spent += time.perf_counter() - began
                stored += BATCH_ROWS
            cpu = processes.cpu_seconds(postgres.pid) - cpu
    finally:
        postgres.drop_database(name)
    return {"rate": stored / spent, "postgres_cpu": cpu / stored * 1000}


def _pairs(connection: psycopg.Connection[Any]) -> tuple[list[int], list[int]]:
    query = "SELECT id FROM e2emsg_accounts ORDER BY substr(user_id, 6)::int"
    ids = [row[0] for row in connection.execute(query)]
    return ids[::2], ids[1::2]


def _batches(pairs: tuple[list[int], list[int]]) -> Iterator[dict[str, object]]:
    """Batches without end, in which every pair has the same share."""
    senders, recipients = pairs
    each = BATCH_ROWS // len(senders)
    first = secrets.randbits(60)
    contents = [secrets.token_bytes(CONTENT_BYTES) for _ in range(BATCH_ROWS)]
    numbers = list(range(BATCH_ROWS))
    for done in itertools.count():
        yield {
            "each": each,
            "ids": [UUID(int=(done * BATCH_ROWS + n) << 60 | first) for n in numbers],
            "senders": [senders[n % len(senders)] for n in numbers],
            "recipients": [recipients[n % len(recipients)] for n in numbers],
            "contents": contents,
            "seqs": [1 + done * each + n // len(senders) for n in numbers],
        }
