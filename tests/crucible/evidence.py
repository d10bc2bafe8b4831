"""Everything that the checker judges by: plain data, gathered when all is over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.acceptance.wire import to_base64url
from tests.crucible.journal import Event

_MESSAGES = """
SELECT m.id, s.user_id AS sender, r.user_id AS recipient, m.encrypted_content AS content,
    m.sender_seq, m.recipient_seq
FROM e2emsg_messages m
LEFT JOIN e2emsg_accounts s ON s.id = m.sender_id
LEFT JOIN e2emsg_accounts r ON r.id = m.recipient_id
"""
_EVENTS = (
    "SELECT a.user_id, e.seq FROM e2emsg_events e JOIN e2emsg_accounts a ON a.id = e.account_id"
)
_HEADS = "SELECT user_id, last_seq, delivered_seq FROM e2emsg_accounts"
_IDLE_IN_TRANSACTION = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state LIKE 'idle in transaction%'
"""
_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True)
class Fault:
    """One fault as it was injected; times on the monotonic clock."""

    name: str
    began: float
    ended: float
    master: int | None = None  # which one it hit, where it hit one
    detail: str = ""


@dataclass(frozen=True)
class StoredMessage:
    """A row of the messages table, in the words of the wire."""

    id: str
    sender: str
    recipient: str
    content: str
    sender_seq: int | None
    recipient_seq: int


@dataclass(frozen=True)
class Database:
    """What the database holds at the end."""

    messages: Sequence[StoredMessage] = ()
    heads: Mapping[str, int] = field(default_factory=dict)
    receipts: Mapping[str, Sequence[int]] = field(default_factory=dict)  # their positions, by user


@dataclass(frozen=True)
class Census:
    """What is alive in a worker."""

    connections: int
    objects: Mapping[str, int]
    greenlets: int
    descriptors: int

    @classmethod
    def of(cls, inside: Mapping[str, Any]) -> Census:
        """From what the host answers to `/inside`."""
        return cls(
            inside["registry"], inside["objects"], inside["greenlets"], inside["descriptors"]
        )


@dataclass(frozen=True)
class Evidence:
    """What clients, faults, database, logs and workers tell."""

    journals: Mapping[str, Sequence[Event]]
    faults: Sequence[Fault] = ()
    database: Database = field(default_factory=Database)
    leaks: Sequence[str] = ()  # secrets found in logs
    before: Sequence[Census] = ()  # of each worker, before the first client
    after: Sequence[Census] = ()  # and when all have left
    idle_in_transaction: int = 0
    deadlocks: int = 0
    began: float = 0.0
    ended: float = 0.0  # of the traffic

    def write(self, folder: Path) -> None:
        """What is small enough to be looked at: faults and census."""
        shown = {
            "faults": [asdict(fault) for fault in self.faults],
            "before": [asdict(one) for one in self.before],
            "after": [asdict(one) for one in self.after],
            "idle_in_transaction": self.idle_in_transaction,
            "deadlocks": self.deadlocks,
            "began": self.began,
            "ended": self.ended,
        }
        (folder / "evidence.json").write_text(json.dumps(shown, indent=2))


def read_heads(engine: sa.Engine) -> dict[str, tuple[int, int]]:
    """The newest position, and the newest acknowledged one, by user."""
    with engine.connect() as connection:
        rows = connection.execute(sa.text(_HEADS))
        return {row.user_id: (row.last_seq, row.delivered_seq) for row in rows}


def read_database(engine: sa.Engine) -> Database:
    """Everything in the mailboxes."""
    receipts: dict[str, list[int]] = {}
    with engine.connect() as connection:
        messages = [_stored(row) for row in connection.execute(sa.text(_MESSAGES))]
        for user_id, seq in connection.execute(sa.text(_EVENTS)):
            receipts.setdefault(user_id, []).append(seq)
    heads = {user_id: last for user_id, (last, _) in read_heads(engine).items()}
    return Database(messages, heads, receipts)


def count_idle_in_transaction(engine: sa.Engine) -> int:
    """Connections that hold a transaction open and do nothing; SQLite has no such thing."""
    return _count(engine, _IDLE_IN_TRANSACTION)


def count_deadlocks(engine: sa.Engine) -> int:
    """Those since PostgreSQL last crashed; SQLite has no such thing."""
    return _count(engine, _DEADLOCKS)


def _count(engine: sa.Engine, question: str) -> int:
    if engine.dialect.name == "sqlite":
        return 0
    with engine.connect() as connection:
        return int(connection.execute(sa.text(question)).scalar_one())


def _stored(row: Any) -> StoredMessage:
    text = str(row.id)
    if "-" not in text:
        text = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    content = to_base64url(bytes(row.content))
    return StoredMessage(
        text, row.sender, row.recipient, content, row.sender_seq, row.recipient_seq
    )
