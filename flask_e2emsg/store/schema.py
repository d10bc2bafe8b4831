"""The tables as versioned steps for a host's own migrations.

A host's revision calls `upgrade(op, since=0, to=1)` and `downgrade(op, since=1, to=0)`, so its
history stays linear and plain `flask db upgrade` works. A released step never changes and spells
its tables out; what the models say today is none of its business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import conv

Step = Callable[[Any], None]


def upgrade(op: Any, *, since: int, to: int) -> None:
    """Bring the tables from version `since` to version `to`. `op` is Alembic's.

    Raises:
        ValueError: there are no such versions, or they are in the wrong order.
    """
    _check(since, to, low=since, high=to)
    for step, _ in _STEPS[since:to]:
        step(op)


def downgrade(op: Any, *, since: int, to: int) -> None:
    """Take the tables from version `since` back to version `to`. `op` is Alembic's.

    Raises:
        ValueError: there are no such versions, or they are in the wrong order.
    """
    _check(since, to, low=to, high=since)
    for _, step in reversed(_STEPS[to:since]):
        step(op)


def _check(since: int, to: int, low: int, high: int) -> None:
    if not 0 <= low < high <= VERSION:
        raise ValueError(
            f"There are no schema steps from {since} to {to}; the newest is {VERSION}."
        )


def _create_log(op: Any) -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "e2emsg_accounts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=True),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("key_updated_at", time, nullable=True),
        sa.Column("epoch", sa.String(16), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("delivered_seq", sa.BigInteger(), nullable=False),
        sa.Column("floor_seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=conv("pk_e2emsg_accounts")),
        sa.UniqueConstraint("user_id", name=conv("uq_e2emsg_accounts_user_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "e2emsg_messages",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sender_id", sa.Integer(), nullable=False),
        sa.Column("recipient_id", sa.Integer(), nullable=False),
        sa.Column("conversation_id", sa.String(255), nullable=True),
        sa.Column("encrypted_content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("delivered_at", time, nullable=True),
        sa.Column("read_at", time, nullable=True),
        sa.Column("expires_at", time, nullable=True),
        sa.Column("sender_seq", sa.BigInteger(), nullable=True),
        sa.Column("recipient_seq", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=conv("pk_e2emsg_messages")),
        sa.UniqueConstraint(
            "recipient_id", "recipient_seq", name=conv("uq_e2emsg_messages_received")
        ),
        sa.UniqueConstraint("sender_id", "sender_seq", name=conv("uq_e2emsg_messages_sent")),
    )
    op.create_index(
        conv("ix_e2emsg_messages_from"),
        "e2emsg_messages",
        ["recipient_id", "sender_id", "recipient_seq"],
    )
    op.create_index(
        conv("ix_e2emsg_messages_to"),
        "e2emsg_messages",
        ["sender_id", "recipient_id", "sender_seq"],
    )
    _create_partial_index(op, "ix_e2emsg_messages_expiry", ["expires_at"])
    _create_partial_index(
        op,
        "ix_e2emsg_messages_conversation",
        ["conversation_id", "recipient_id", "recipient_seq"],
    )
    op.create_table(
        "e2emsg_events",
        sa.Column("account_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "seq", name=conv("pk_e2emsg_events")),
    )
    op.create_table(
        "e2emsg_tickets",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("token_expires_at", time, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=conv("pk_e2emsg_tickets")),
    )
    op.create_index(conv("ix_e2emsg_tickets_expiry"), "e2emsg_tickets", ["expires_at"])


def _create_partial_index(op: Any, name: str, columns: list[str]) -> None:
    present = sa.text(f"{columns[0]} IS NOT NULL")
    op.create_index(
        conv(name), "e2emsg_messages", columns, postgresql_where=present, sqlite_where=present
    )


def _drop_log(op: Any) -> None:
    for table in ("e2emsg_tickets", "e2emsg_events", "e2emsg_messages", "e2emsg_accounts"):
        op.drop_table(table)


_STEPS: tuple[tuple[Step, Step], ...] = ((_create_log, _drop_log),)
VERSION = len(_STEPS)
