"""The tables as versioned steps for a host's own migrations.

A host's revision calls `upgrade(op, since=0, to=4)` and `downgrade(op, since=4, to=0)`, so its
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
    _create_tickets(op)


def _create_tickets(op: Any, *more: sa.Column[Any]) -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "e2emsg_tickets",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("token_expires_at", time, nullable=False),
        *more,
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


def _create_leases(op: Any) -> None:
    time = sa.DateTime(timezone=True)
    # Tickets live for seconds: to make the table anew is simpler than to alter it everywhere.
    op.drop_table("e2emsg_tickets")
    _create_tickets(op, sa.Column("claims", sa.Text(), nullable=False))
    _create_passing_table(
        op,
        "e2emsg_workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=conv("pk_e2emsg_workers")),
    )
    _create_passing_table(
        op,
        "e2emsg_connections",
        sa.Column("account_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column("close_code", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("account_id", "slot", name=conv("pk_e2emsg_connections")),
    )
    op.create_index(conv("ix_e2emsg_connections_worker"), "e2emsg_connections", ["worker_id"])
    _create_passing_table(
        op,
        "e2emsg_counters",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=conv("pk_e2emsg_counters")),
    )
    op.create_index(conv("ix_e2emsg_counters_expiry"), "e2emsg_counters", ["expires_at"])


def _create_passing_table(op: Any, name: str, *parts: Any) -> None:
    """A table whose rows are about living processes, and may be gone after a crash."""
    # Without a log of its changes, opening a connection does not wait for the disk.
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    op.create_table(name, *parts, prefixes=["UNLOGGED"] if is_postgresql else [])


def _drop_leases(op: Any) -> None:
    for table in ("e2emsg_counters", "e2emsg_connections", "e2emsg_workers"):
        op.drop_table(table)
    op.drop_table("e2emsg_tickets")
    _create_tickets(op)


def _leave_room(op: Any) -> None:
    """Half of every page, so that a mark finds room beside its row and touches no index."""
    if op.get_bind().dialect.name == "postgresql":
        for table in _UPDATED:
            op.execute(f"ALTER TABLE {table} SET (fillfactor = 50)")


def _fill_pages(op: Any) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in _UPDATED:
            op.execute(f"ALTER TABLE {table} RESET (fillfactor)")


def _create_key_backups(op: Any) -> None:
    op.create_table(
        "e2emsg_key_backups",
        sa.Column("account_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=conv("pk_e2emsg_key_backups")),
    )


def _drop_key_backups(op: Any) -> None:
    op.drop_table("e2emsg_key_backups")


_UPDATED = ("e2emsg_accounts", "e2emsg_messages")
_STEPS: tuple[tuple[Step, Step], ...] = (
    (_create_log, _drop_log),
    (_create_leases, _drop_leases),
    (_leave_room, _fill_pages),
    (_create_key_backups, _drop_key_backups),
)
VERSION = len(_STEPS)
