"""The tables, as ordinary classes on the extension's own metadata.

`copy_tables` puts them into a host's metadata, so that the host's migrations, `create_all` and
sessions see them. Every constraint and index has a final name (`conv`), which a host's naming
convention leaves alone. Queries of this package use the tables of this module, never a host's copy.

Messages refer to accounts without a foreign key: every insert counts the locked account rows, which
proves the same thing and costs a third less. Times are UTC; SQLite hands them out without a zone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import conv

_Time = sa.DateTime(timezone=True)


class Base(DeclarativeBase):
    """The root of the extension's models."""

    metadata = sa.MetaData()


class Account(Base):
    """The messaging side of a user, and the head of the user's mailbox."""

    __tablename__ = "e2emsg_accounts"
    __table_args__ = (
        sa.PrimaryKeyConstraint("id", name=conv("pk_e2emsg_accounts")),
        sa.UniqueConstraint("user_id", name=conv("uq_e2emsg_accounts_user_id")),
        # Never reuse an id: other processes may remember it.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(sa.Integer, autoincrement=True)
    user_id: Mapped[str] = mapped_column(sa.String(255))
    public_key: Mapped[bytes | None] = mapped_column(sa.LargeBinary)  # 32 bytes, X25519
    key_version: Mapped[int] = mapped_column(sa.Integer)  # grows with every change
    key_updated_at: Mapped[datetime | None] = mapped_column(_Time)
    epoch: Mapped[str] = mapped_column(sa.String(16))  # hex: the incarnation of the mailbox
    last_seq: Mapped[int] = mapped_column(sa.BigInteger)  # the newest position
    delivered_seq: Mapped[int] = mapped_column(sa.BigInteger)  # the newest acknowledged position
    floor_seq: Mapped[int] = mapped_column(sa.BigInteger)  # entries up to here may be gone
    created_at: Mapped[datetime] = mapped_column(_Time)


class Message(Base):
    """A message: ciphertext, its times, and its places in two mailboxes."""

    __tablename__ = "e2emsg_messages"
    __table_args__ = (
        sa.PrimaryKeyConstraint("id", name=conv("pk_e2emsg_messages")),
        sa.UniqueConstraint(
            "recipient_id", "recipient_seq", name=conv("uq_e2emsg_messages_received")
        ),
        sa.UniqueConstraint("sender_id", "sender_seq", name=conv("uq_e2emsg_messages_sent")),
        sa.Index(conv("ix_e2emsg_messages_from"), "recipient_id", "sender_id", "recipient_seq"),
        sa.Index(conv("ix_e2emsg_messages_to"), "sender_id", "recipient_id", "sender_seq"),
        sa.Index(
            conv("ix_e2emsg_messages_expiry"),
            "expires_at",
            postgresql_where=sa.text("expires_at IS NOT NULL"),
            sqlite_where=sa.text("expires_at IS NOT NULL"),
        ),
        sa.Index(
            conv("ix_e2emsg_messages_conversation"),
            "conversation_id",
            "recipient_id",
            "recipient_seq",
            postgresql_where=sa.text("conversation_id IS NOT NULL"),
            sqlite_where=sa.text("conversation_id IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(sa.Uuid)  # made by the sending client
    sender_id: Mapped[int] = mapped_column(sa.Integer)  # account
    recipient_id: Mapped[int] = mapped_column(sa.Integer)  # account
    conversation_id: Mapped[str | None] = mapped_column(sa.String(255))
    encrypted_content: Mapped[bytes] = mapped_column(sa.LargeBinary)
    created_at: Mapped[datetime] = mapped_column(_Time)
    delivered_at: Mapped[datetime | None] = mapped_column(_Time)
    read_at: Mapped[datetime | None] = mapped_column(_Time)
    expires_at: Mapped[datetime | None] = mapped_column(_Time)
    sender_seq: Mapped[int | None] = mapped_column(sa.BigInteger)  # None: sent by `send_many`
    recipient_seq: Mapped[int] = mapped_column(sa.BigInteger)
    origin: Mapped[int | None] = mapped_column(sa.BigInteger)  # the connection that sent it


class Event(Base):
    """An entry that is not a message: receipts."""

    __tablename__ = "e2emsg_events"
    __table_args__ = (sa.PrimaryKeyConstraint("account_id", "seq", name=conv("pk_e2emsg_events")),)

    account_id: Mapped[int] = mapped_column(sa.Integer, autoincrement=False)
    seq: Mapped[int] = mapped_column(sa.BigInteger, autoincrement=False)
    kind: Mapped[str] = mapped_column(sa.String(16))
    data: Mapped[str] = mapped_column(sa.Text)  # JSON
    created_at: Mapped[datetime] = mapped_column(_Time)


class Ticket(Base):
    """A one-time ticket for opening a socket."""

    __tablename__ = "e2emsg_tickets"
    __table_args__ = (
        sa.PrimaryKeyConstraint("digest", name=conv("pk_e2emsg_tickets")),
        sa.Index(conv("ix_e2emsg_tickets_expiry"), "expires_at"),
    )

    digest: Mapped[bytes] = mapped_column(sa.LargeBinary)  # SHA-256 of the ticket's text
    user_id: Mapped[str] = mapped_column(sa.String(255))
    expires_at: Mapped[datetime] = mapped_column(_Time)
    token_expires_at: Mapped[datetime] = mapped_column(_Time)
    claims: Mapped[str] = mapped_column(sa.Text)  # JSON: the token's header and payload


class Worker(Base):
    """A process that serves connections, for as long as it renews its lease."""

    __tablename__ = "e2emsg_workers"
    __table_args__ = (sa.PrimaryKeyConstraint("id", name=conv("pk_e2emsg_workers")),)

    id: Mapped[UUID] = mapped_column(sa.Uuid)
    expires_at: Mapped[datetime] = mapped_column(_Time)


class Connection(Base):
    """A live connection. The primary key is the cap: a user has so many slots, over all workers."""

    __tablename__ = "e2emsg_connections"
    __table_args__ = (
        sa.PrimaryKeyConstraint("account_id", "slot", name=conv("pk_e2emsg_connections")),
        sa.Index(conv("ix_e2emsg_connections_worker"), "worker_id"),
    )

    account_id: Mapped[int] = mapped_column(sa.Integer, autoincrement=False)
    slot: Mapped[int] = mapped_column(sa.Integer, autoincrement=False)  # from 0
    id: Mapped[UUID] = mapped_column(sa.Uuid)
    worker_id: Mapped[UUID] = mapped_column(sa.Uuid)
    close_code: Mapped[int | None] = mapped_column(sa.Integer)  # its worker shall close it


class Counter(Base):
    """How much of a limit is used up in the present window of time."""

    __tablename__ = "e2emsg_counters"
    __table_args__ = (
        sa.PrimaryKeyConstraint("digest", name=conv("pk_e2emsg_counters")),
        sa.Index(conv("ix_e2emsg_counters_expiry"), "expires_at"),
    )

    digest: Mapped[bytes] = mapped_column(sa.LargeBinary)  # SHA-256 of what is counted
    used: Mapped[int] = mapped_column(sa.BigInteger)
    expires_at: Mapped[datetime] = mapped_column(_Time)


class KeyBackup(Base):
    """A user's encrypted identity key, for the next device. Only its recovery code opens it."""

    __tablename__ = "e2emsg_key_backups"
    __table_args__ = (sa.PrimaryKeyConstraint("account_id", name=conv("pk_e2emsg_key_backups")),)

    account_id: Mapped[int] = mapped_column(sa.Integer, autoincrement=False)
    blob: Mapped[bytes | None] = mapped_column(sa.LargeBinary)  # None: deleted
    version: Mapped[int] = mapped_column(sa.BigInteger)  # grows with every change
    updated_at: Mapped[datetime] = mapped_column(_Time)


accounts = Base.metadata.tables["e2emsg_accounts"]
messages = Base.metadata.tables["e2emsg_messages"]
events = Base.metadata.tables["e2emsg_events"]
tickets = Base.metadata.tables["e2emsg_tickets"]
workers = Base.metadata.tables["e2emsg_workers"]
connections = Base.metadata.tables["e2emsg_connections"]
counters = Base.metadata.tables["e2emsg_counters"]
key_backups = Base.metadata.tables["e2emsg_key_backups"]


def _on_postgresql(table: sa.Table, change: str) -> None:
    """Have a table changed when create_all() has made it, in a host's metadata as well."""
    ddl: Any = sa.DDL
    statement = ddl(f"ALTER TABLE %(fullname)s {change}").execute_if(dialect="postgresql")
    sa.event.listen(table, "after_create", statement, propagate=True)


# About living processes, and may be gone after a crash: without a log nobody waits for the disk.
for _table in (workers, connections, counters):
    _on_postgresql(_table, "SET UNLOGGED")
# A mark that finds room in the page of its row touches no index.
for _table in (accounts, messages):
    _on_postgresql(_table, "SET (fillfactor = 50)")


def copy_tables(metadata: sa.MetaData) -> None:
    """Add the tables to a host's metadata, once."""
    for table in Base.metadata.sorted_tables:
        if table.name not in metadata.tables:
            table.to_metadata(metadata)
