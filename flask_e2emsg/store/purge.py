"""Removing what is past its time: expired messages, and old delivered ones where a host asks.

Nothing that a recipient has not acknowledged is removed before its expiry. A mailbox whose older
entries go gets a higher floor, so that a cursor below it is told to reset instead of finding a
silent gap; the floor stays below what the owner has not acknowledged. Receipts go with the messages
that they tell of, where those expired or the receipts were acknowledged.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ..protocol.values import MAX_SEQ, now
from .database import Conflict, Database
from .leases import FORGET_SECONDS
from .models import accounts, connections, counters, events, messages, tickets, workers
from .rows import receipt_from_json, receipt_to_json
from .times import database_clock

ROWS_AT_ONCE = 500
TIMES_AT_ONCE = 100  # of receipts that change in one transaction
PAUSE_SECONDS = 0.001
ATTEMPTS = 5


def purge(database: Database, retention_days: float | None) -> int:
    """Delete in small units of work; returns how many messages went."""
    removed = _purge_messages(database, messages.c.expires_at <= now(), sa.true())
    _write(database, sa.delete(tickets).where(tickets.c.expires_at <= now()))
    _write(database, sa.delete(counters).where(counters.c.expires_at <= now()))
    _purge_dead_workers(database)
    if retention_days is not None:
        before = now() - timedelta(days=retention_days)
        _raise_floors(database, before)
        old = messages.c.delivered_at <= before
        removed += _purge_messages(database, old, events.c.seq <= _acknowledged)
        _purge_events(database, before)
    if removed:
        database.clean_files()
    return removed


def _purge_messages(
    database: Database, due: sa.ColumnElement[bool], receipts: sa.ColumnElement[bool]
) -> int:
    """Delete the messages that are due, and their ids from those of the receipts for them."""
    removed = 0
    some = sa.select(
        messages.c.id,
        messages.c.sender_id,
        messages.c.sender_seq,
        messages.c.delivered_at,
        messages.c.read_at,
    ).where(due)
    while True:
        with database.read() as connection:
            gone = connection.execute(some.limit(ROWS_AT_ONCE)).all()
        if not gone:
            return removed
        # The receipts first: who is interrupted in between finds the messages, and begins again.
        _forget_receipts(database, gone, receipts)
        ids = [row.id for row in gone]
        removed += _write(database, sa.delete(messages).where(messages.c.id.in_(ids)))
        time.sleep(PAUSE_SECONDS)  # Others want to write, too.


def _forget_receipts(
    database: Database, gone: Sequence[Any], which: sa.ColumnElement[bool]
) -> None:
    ids = {row.id for row in gone}
    # A receipt is as old as the mark that it tells of.
    marked = {(row.sender_id, at) for row in gone for at in (row.delivered_at, row.read_at) if at}
    by_sender: defaultdict[int, list[datetime]] = defaultdict(list)
    for sender_id, at in marked:
        by_sender[sender_id].append(at)
    # Receipts come after what they are for, so most of a long log need not be looked at.
    first: dict[int, int] = {}
    for row in gone:
        first[row.sender_id] = min(first.get(row.sender_id, MAX_SEQ), row.sender_seq or 0)
    for sender_id, times in by_sender.items():
        later = (events.c.account_id == sender_id) & (events.c.seq > first[sender_id])
        for start in range(0, len(times), TIMES_AT_ONCE):
            same_time = events.c.created_at.in_(times[start : start + TIMES_AT_ONCE])
            some = sa.select(events).where(later, same_time, which)
            with database.read() as connection:
                receipts = connection.execute(some).all()
            if receipts:
                with database.together():
                    for receipt in receipts:
                        _forget_in(database, receipt, ids)
            time.sleep(PAUSE_SECONDS)


def _forget_in(database: Database, row: Any, ids: Set[UUID]) -> None:
    receipt = receipt_from_json(row.seq, row.kind, row.data)
    left = [message_id for message_id in receipt.ids if message_id not in ids]
    this = (events.c.account_id == row.account_id) & (events.c.seq == row.seq)
    if not left:
        _write(database, sa.delete(events).where(this))
    elif len(left) < len(receipt.ids):
        data = receipt_to_json(receipt.by, left, receipt.at)
        _write(database, sa.update(events).where(this).values(data=data))


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
    due = (events.c.created_at <= before) & (events.c.seq <= _floor_of_owner)
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


def _of_owner(column: sa.Column[int]) -> sa.ScalarSelect[int]:
    return sa.select(column).where(accounts.c.id == events.c.account_id).scalar_subquery()


_acknowledged, _floor_of_owner = (
    _of_owner(accounts.c.delivered_seq),
    _of_owner(accounts.c.floor_seq),
)
_newest: sa.BindParameter[int] = sa.bindparam("newest", type_=sa.BigInteger)
_floor = sa.case((accounts.c.delivered_seq < _newest, accounts.c.delivered_seq), else_=_newest)
_RAISE_FLOOR = (
    sa.update(accounts)
    .where(accounts.c.id == sa.bindparam("account"), accounts.c.floor_seq < _floor)
    .values(floor_seq=_floor)
)
