"""Removing what is past its time: expired messages, and old delivered ones where a host asks.

Nothing that a recipient has not acknowledged is removed before its expiry. A mailbox whose older
entries go gets a higher floor, so that a cursor below it is told to reset instead of finding a
silent gap; the floor stays below what the owner has not acknowledged.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta

import sqlalchemy as sa

from ..protocol.values import now
from .database import Conflict, Database
from .leases import FORGET_SECONDS
from .models import accounts, connections, counters, events, messages, tickets, workers
from .times import database_clock

ROWS_AT_ONCE = 500
PAUSE_SECONDS = 0.001
ATTEMPTS = 5


def purge(database: Database, retention_days: float | None) -> int:
    """Delete in small units of work; returns how many messages went."""
    removed = _purge_messages(database, messages.c.expires_at <= now())
    _write(database, sa.delete(tickets).where(tickets.c.expires_at <= now()))
    _write(database, sa.delete(counters).where(counters.c.expires_at <= now()))
    _purge_dead_workers(database)
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
        count = _write(database, sa.delete(messages).where(messages.c.id.in_(some)))
        time.sleep(PAUSE_SECONDS)  # Others want to write, too.
        removed += count
        if count < ROWS_AT_ONCE:
            return removed


def _purge_dead_workers(database: Database) -> None:
    """Workers that have not renewed their lease for long, and then connections of no worker."""
    long_ago = database_clock(database.is_sqlite, -FORGET_SECONDS)
    _write(database, sa.delete(workers).where(workers.c.expires_at <= long_ago))
    has_worker = connections.c.worker_id.in_(sa.select(workers.c.id))
    _write(database, sa.delete(connections).where(~has_worker))


def _raise_floors(database: Database, before: datetime) -> None:
    old = messages.c.delivered_at <= before
    for account_id, seq in (
        (messages.c.recipient_id, messages.c.recipient_seq),
        (messages.c.sender_id, messages.c.sender_seq),
    ):
        newest = (
            sa.select(account_id.label("account"), sa.func.max(seq).label("newest"))
            .where(old, seq.is_not(None))
            .group_by(account_id)
        )
        with database.read() as connection:
            floors = [dict(row) for row in connection.execute(newest).mappings()]
        for floor in floors:
            # One account at a time: many locks at once would stand in the way of senders.
            _write(database, _RAISE_FLOOR, floor)


def _purge_events(database: Database, before: datetime) -> None:
    gone = (
        sa.select(accounts.c.floor_seq)
        .where(accounts.c.id == events.c.account_id)
        .scalar_subquery()
    )
    due = (events.c.created_at <= before) & (events.c.seq <= gone)
    _write(database, sa.delete(events).where(due))


def _write(
    database: Database,
    statement: sa.Delete | sa.Update,
    parameters: Mapping[str, object] | None = None,
) -> int:
    """One unit of work, done again if somebody else was in its way; how many rows it changed."""
    for _ in range(ATTEMPTS - 1):
        with suppress(Conflict), database.write() as connection:
            return connection.execute(statement, parameters).rowcount
    with database.write() as connection:
        return connection.execute(statement, parameters).rowcount


_newest: sa.BindParameter[int] = sa.bindparam("newest", type_=sa.BigInteger)
_floor = sa.case((accounts.c.delivered_seq < _newest, accounts.c.delivered_seq), else_=_newest)
_RAISE_FLOOR = (
    sa.update(accounts)
    .where(accounts.c.id == sa.bindparam("account"), accounts.c.floor_seq < _floor)
    .values(floor_seq=_floor)
)
