"""Purging: what is past its time goes, and no cursor finds a silent gap."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from hashlib import sha256
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from flask_e2emsg.protocol.entries import ReceiptEntry
from flask_e2emsg.protocol.values import now
from flask_e2emsg.store import purge as purge_module
from flask_e2emsg.store.accounts import Party
from flask_e2emsg.store.database import Conflict
from flask_e2emsg.store.models import accounts, events, messages, tickets
from flask_e2emsg.store.purge import purge
from flask_e2emsg.store.tickets import Ticket, Tickets
from tests.store.process import Process, sending

LONG_AGO = timedelta(days=40)


def age(store: Process, *message_ids: UUID) -> None:
    """Let the messages, and all receipts, have been delivered long ago."""
    then = now() - LONG_AGO
    delivered = messages.c.id.in_(message_ids) & messages.c.delivered_at.is_not(None)
    store.execute(sa.update(messages).where(delivered).values(delivered_at=then))
    store.execute(sa.update(messages).where(messages.c.id.in_(message_ids)).values(created_at=then))
    store.execute(sa.update(events).values(created_at=then))


def expire(store: Process, message_ids: Iterable[UUID]) -> None:
    past = now() - timedelta(seconds=1)
    store.execute(sa.update(messages).where(messages.c.id.in_(message_ids)).values(expires_at=past))


class TestExpiry:
    def test_expired_messages_go_delivered_or_not_and_others_stay(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        expired, kept, later = (
            store.send(alice, bob),
            store.send(alice, bob),
            store.send(alice, bob, expires_in=60),
        )
        expire(store, [expired])
        assert purge(store.database, None) == 1
        with store.database.read() as connection:
            assert set(connection.scalars(sa.select(messages.c.id))) == {kept, later}

    def test_a_cursor_passes_over_what_expired(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        ids = [store.send(alice, bob) for _ in range(3)]
        expire(store, ids[1:])
        purge(store.database, None)
        page = store.mailboxes.entries_after(bob, 0, 10)
        assert ([entry.seq for entry in page.entries], page.through) == ([1], 3)
        assert store.state(bob).floor_seq == 0

    def test_receipts_go_with_the_messages_that_they_tell_of(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        gone, kept = store.send(alice, bob, expires_in=60), store.send(alice, bob)
        store.ack(bob)
        store.send(alice, carol)
        store.ack(carol)
        store.read(bob, gone)
        expire(store, [gone])
        purge(store.database, None)
        receipts = [one for one in store.entries(alice) if isinstance(one, ReceiptEntry)]
        assert [(one.kind, one.by) for one in receipts] == [
            ("delivered", "bob"),
            ("delivered", "carol"),
        ]
        assert list(receipts[0].ids) == [kept]
        page = store.mailboxes.entries_after(alice, 0, 10)
        assert page.through == store.state(alice).last_seq

    def test_many_receipts_go_in_small_units(
        self, store: Process, alice: Party, bob: Party, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(purge_module, "ROWS_AT_ONCE", 7)
        monkeypatch.setattr(purge_module, "TIMES_AT_ONCE", 3)
        ids = [store.send(alice, bob, expires_in=60) for _ in range(20)]
        for seq, message_id in enumerate(ids, 1):
            store.ack(bob, seq)
            store.read(bob, message_id)
        expire(store, ids)
        assert purge(store.database, None) == 20
        assert store.count(events) == 0

    def test_many_go_in_small_units(
        self, store: Process, alice: Party, bob: Party, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(purge_module, "ROWS_AT_ONCE", 10)
        batch = [sending(alice, bob) for _ in range(35)]
        store.append(*batch)
        expire(store, [append.messages[0].id for append in batch])
        assert purge(store.database, None) == 35
        assert store.count(messages) == 0


def test_only_tickets_that_are_no_longer_good_go(store: Process) -> None:
    offered = Tickets(store.database)
    ticket = Ticket("alice", now() + timedelta(hours=1), "[{}, {}]")
    old, good = offered.issue(ticket), offered.issue(ticket)
    past = now() - timedelta(seconds=1)
    digest = sha256(old.encode()).digest()
    store.execute(sa.update(tickets).where(tickets.c.digest == digest).values(expires_at=past))
    purge(store.database, None)
    assert store.count(tickets) == 1
    assert offered.look_at(good) == ticket


def test_somebody_who_is_in_the_way_is_not_the_end(
    store: Process, alice: Party, bob: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = store.send(alice, bob)
    store.ack(bob)
    age(store, message_id)
    write, in_the_way = store.database.write, itertools.cycle([True, True, False])

    def contended() -> AbstractContextManager[Connection]:
        if next(in_the_way):
            raise Conflict
        return write()

    monkeypatch.setattr(store.database, "write", contended)
    assert purge(store.database, 30) == 1
    assert store.state(bob).floor_seq == 1


class TestRetention:
    def test_without_retention_delivered_messages_stay(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        message_id = store.send(alice, bob)
        store.ack(bob)
        age(store, message_id)
        assert purge(store.database, None) == 0
        assert store.positions(bob) == [1]

    def test_old_delivered_messages_go_and_younger_ones_stay(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        old, young = store.send(alice, bob), store.send(alice, bob)
        store.ack(bob)
        age(store, old)
        assert purge(store.database, 30) == 1
        with store.database.read() as connection:
            assert list(connection.scalars(sa.select(messages.c.id))) == [young]

    def test_what_was_never_acknowledged_stays_however_old(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        message_id = store.send(alice, bob)
        age(store, message_id)
        assert purge(store.database, 30) == 0
        assert store.positions(bob) == [1]

    def test_the_floors_of_both_mailboxes_tell_what_went(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        store.send(alice, carol)
        old = store.send(alice, bob)
        store.ack(bob)
        store.ack(alice)
        age(store, old)
        purge(store.database, 30)
        assert store.state(alice).floor_seq == 2
        assert store.state(bob).floor_seq == 1
        assert store.state(carol).floor_seq == 0

    def test_a_floor_never_falls(self, store: Process, alice: Party, bob: Party) -> None:
        old = store.send(alice, bob)
        store.ack(bob)
        store.execute(sa.update(accounts).values(floor_seq=7))
        age(store, old)
        purge(store.database, 30)
        assert store.state(bob).floor_seq == store.state(alice).floor_seq == 7

    def test_a_floor_does_not_rise_over_what_is_not_acknowledged(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        waiting = store.send(carol, alice)
        old = store.send(alice, bob)
        store.ack(bob)
        age(store, waiting, old)
        assert purge(store.database, 30) == 1
        state = store.state(alice)
        assert state.floor_seq <= state.delivered_seq == 0
        assert store.positions(alice) == [1, 3]

    def test_reading_one_message_does_not_give_up_those_before_it(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.send(alice, bob)
        read = store.send(alice, bob)
        store.read(bob, read)
        age(store, read)
        assert purge(store.database, 30) == 1
        assert store.state(bob).floor_seq == 0
        assert store.positions(bob) == [1]

    def test_receipts_of_old_messages_go_with_them_once_acknowledged(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        for acknowledged in (False, True):
            message_id = store.send(alice, bob)
            store.ack(bob)
            if acknowledged:
                store.ack(alice)
            age(store, message_id)
            purge(store.database, 30)
            assert bool(store.positions(alice)) != acknowledged

    def test_old_receipts_below_the_floor_go_too(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        first = store.send(alice, bob)
        store.ack(bob)
        second = store.send(alice, bob)
        store.ack(bob)
        store.ack(alice)
        age(store, first, second)
        purge(store.database, 30)
        assert store.positions(alice) == []
        assert store.state(alice).floor_seq == 3

    def test_fractions_of_a_day_count(self, store: Process, alice: Party, bob: Party) -> None:
        store.send(alice, bob)
        store.ack(bob)
        an_hour_ago = now() - timedelta(hours=1)
        store.execute(sa.update(messages).values(delivered_at=an_hour_ago))
        assert purge(store.database, 2 / 24) == 0
        assert purge(store.database, 0.5 / 24) == 1
