"""Removing what is past its time: expired messages, and old delivered ones where a host asks.

Nothing that a recipient has not acknowledged is removed before its expiry. A mailbox whose older
entries go gets a higher floor, so that a cursor below it is told to reset instead of finding a
silent gap.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from ..protocol.values import now
from .database import Database
from .models import accounts, events, messages

ROWS_AT_ONCE = 500


def purge(database: Database, retention_days: float | None) -> int:
    """Delete in small units of work; returns how many messages went."""
    removed = _purge_messages(database, messages.c.expires_at <= now())
    if retention_days is not None:
        before = now() - timedelta(days=retention_days)
        _raise_floors(database, before)
        removed += _purge_messages(database, messages.c.delivered_at <= before)
        _purge_events(database, before)
    return removed


def _purge_messages(database: Database, due: sa.ColumnElement[bool]) -> int:
    removed = 0
    some = sa.select(messages.c.id).where(due).limit(ROWS_AT_ONCE)
    while True:
        with database.write() as connection:
            count = connection.execute(sa.delete(messages).where(messages.c.id.in_(some))).rowcount
        removed += count
        if count < ROWS_AT_ONCE:
            return removed


def _raise_floors(database: Database, before: datetime) -> None:
    old = messages.c.delivered_at <= before
    for account_id, seq in (
        (messages.c.recipient_id, messages.c.recipient_seq),
        (messages.c.sender_id, messages.c.sender_seq),
    ):
        newest = (
            sa.select(sa.func.max(seq)).where(old, account_id == accounts.c.id).scalar_subquery()
        )
        with database.write() as connection:
            connection.execute(
                sa.update(accounts).where(accounts.c.floor_seq < newest).values(floor_seq=newest)
            )


def _purge_events(database: Database, before: datetime) -> None:
    gone = (
        sa.select(accounts.c.floor_seq)
        .where(accounts.c.id == events.c.account_id)
        .scalar_subquery()
    )
    with database.write() as connection:
        connection.execute(
            sa.delete(events).where(events.c.created_at <= before, events.c.seq <= gone)
        )
