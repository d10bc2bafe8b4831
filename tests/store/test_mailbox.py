"""Appending to mailboxes and reading them: what one process does after another."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from flask_e2emsg.errors import IdConflict, UnknownRecipient
from flask_e2emsg.protocol.entries import Entry, MessageEntry, ReceiptEntry
from flask_e2emsg.protocol.values import now
from flask_e2emsg.store.accounts import Party
from flask_e2emsg.store.batch import Batch
from flask_e2emsg.store.mailbox import Ack, Append, Appended, Obstacles, Read, Stored
from flask_e2emsg.store.models import accounts, events, messages
from tests.store.process import Process, outgoing, sending, sending_many


def texts(entries: list[Entry]) -> list[str]:
    """The contents of the messages among the entries."""
    return [e.message.content.decode() for e in entries if isinstance(e, MessageEntry)]


def receipts(entries: list[Entry]) -> list[ReceiptEntry]:
    return [entry for entry in entries if isinstance(entry, ReceiptEntry)]


def message_row(store: Process, message_id: UUID) -> sa.Row[tuple[object, ...]]:
    with store.database.read() as connection:
        return connection.execute(sa.select(messages).where(messages.c.id == message_id)).one()


def expire(store: Process, *message_ids: UUID) -> None:
    """Let the time of these messages be over."""
    past = now() - timedelta(seconds=1)
    store.execute(sa.update(messages).where(messages.c.id.in_(message_ids)).values(expires_at=past))


class TestAppend:
    def test_a_message_stands_in_both_mailboxes(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        message_id = store.send(alice, bob, "hi", conversation_id="c1")
        [sent], [received] = store.entries(alice), store.entries(bob)
        assert isinstance(sent, MessageEntry)
        assert isinstance(received, MessageEntry)
        assert sent.message == received.message
        message = received.message
        assert (message.id, message.content, message.conversation_id) == (message_id, b"hi", "c1")
        assert (message.sender, message.recipient) == ("alice", "bob")

    def test_positions_count_up_from_one_in_each_mailbox(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        for recipient in (bob, carol, bob):
            store.send(alice, recipient)
        store.send(bob, alice)
        assert store.positions(alice) == [1, 2, 3, 4]
        assert store.positions(bob) == [1, 2, 3]
        assert store.positions(carol) == [1]

    def test_a_batch_keeps_the_order_in_which_it_was_given(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        batch = [sending(alice if n % 3 else carol, bob, f"text {n}") for n in range(100)]
        outcomes = store.append(*batch)
        assert texts(store.entries(bob)) == [f"text {n}" for n in range(100)]
        assert store.positions(bob) == list(range(1, 101))
        from_carol = [o for n, o in enumerate(outcomes) if n % 3 == 0]
        assert [o.sent_seq for o in from_carol if isinstance(o, Appended)] == list(range(1, 35))

    def test_a_batch_may_be_larger_than_a_statement_takes_parameters(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        batch = [sending(alice, bob) for _ in range(2100)]
        assert all(isinstance(outcome, Appended) for outcome in store.append(*batch))
        again = store.append(*batch)
        assert {outcome.is_new for outcome in again if isinstance(outcome, Appended)} == {False}
        assert store.positions(bob) == list(range(1, 2101))

    def test_an_entry_reads_later_as_it_was_handed_out_at_the_commit(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        message = outgoing(bob, "bytes", conversation_id="c", expires_in=60)
        committed = store.mailboxes.append([Append(alice, [bob], [message], True, origin=77)])
        for owner in (alice, bob):
            handed_out, read = committed.entries[owner.user_id], store.entries(owner)
            assert [entry.frame() for entry in handed_out] == [entry.frame() for entry in read]
            assert [entry.origin for entry in handed_out] == [entry.origin for entry in read]
        assert [entry.origin for entry in store.entries(alice)] == [77]
        assert [entry.origin for entry in store.entries(bob)] == [None]

    def test_a_message_to_oneself_is_sent_and_received(self, store: Process, alice: Party) -> None:
        store.send(alice, alice, "note")
        sent, received = store.mailboxes.entries_after(alice, 0, 10).entries
        assert (sent.seq, received.seq) == (1, 2)
        assert texts([sent, received]) == ["note", "note"]

    def test_a_message_expires_when_its_sender_said(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.send(alice, bob, expires_in=90)
        [entry] = store.entries(bob)
        assert isinstance(entry, MessageEntry)
        assert entry.message.expires_at == entry.message.created_at + timedelta(seconds=90)


class TestIdempotency:
    def test_a_retry_is_stored_once_and_gets_the_same_answer(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        append = sending(alice, bob)
        [first], [again] = store.append(append), store.append(append)
        assert isinstance(first, Appended)
        assert again == Appended(first.created_at, False, first.sent_seq)
        assert store.positions(bob) == store.positions(alice) == [1]

    def test_a_retry_in_the_same_batch_is_stored_once_too(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        append = sending(alice, bob)
        first, again, other = store.append(append, append, sending(alice, bob))
        assert isinstance(first, Appended)
        assert (first.is_new, again) == (True, Appended(first.created_at, False, first.sent_seq))
        assert isinstance(other, Appended)
        assert other.sent_seq == 2
        assert store.positions(bob) == [1, 2]

    def test_many_retries_in_the_same_batch_cost_no_transaction_each(
        self, store: Process, alice: Party, bob: Party, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store_batch, batches = store.mailboxes._store, list[Batch]()

        def counted(batch: Batch) -> Stored | Obstacles:
            batches.append(batch)
            return store_batch(batch)

        monkeypatch.setattr(store.mailboxes, "_store", counted)
        append = sending(alice, bob)
        first, *again = store.append(*[append] * 64)
        assert isinstance(first, Appended)
        assert first.is_new
        assert again == [Appended(first.created_at, False, first.sent_seq)] * 63
        assert len(batches) == 1
        assert store.positions(bob) == [1]

    def test_what_refuses_a_message_refuses_its_retries_in_the_same_batch(
        self, store: Process, alice: Party
    ) -> None:
        outcomes = store.append(*[sending(alice, Party(99, "gone"))] * 3)
        assert [type(outcome) for outcome in outcomes] == [UnknownRecipient] * 3

    def test_a_retry_makes_no_second_entry_and_wakes_nobody(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        append = sending(alice, bob)
        store.append(append)
        assert store.mailboxes.append([append]).entries == {}

    @pytest.mark.parametrize("what", ["content", "recipient", "sender"])
    def test_an_id_cannot_be_used_for_something_else(
        self, store: Process, alice: Party, bob: Party, carol: Party, what: str
    ) -> None:
        message_id = store.send(alice, bob, "first")
        before = message_row(store, message_id)
        sender = carol if what == "sender" else alice
        recipient = carol if what == "recipient" else bob
        text = "second" if what == "content" else "first"
        message = outgoing(recipient, text, message_id)
        [outcome] = store.append(Append(sender, [recipient], [message], keeps_sent=True))
        assert isinstance(outcome, IdConflict)
        assert message_row(store, message_id) == before
        assert store.entries(carol) == []

    def test_what_is_refused_in_a_batch_does_not_stop_the_rest(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        taken = outgoing(bob, "other", store.send(alice, bob))
        gone = store.user("gone")
        store.accounts.delete("gone")
        outcomes = store.append(
            sending(alice, bob, "a"),
            Append(alice, [bob], [taken], keeps_sent=True),
            sending(alice, gone),
            sending(bob, alice, "b"),
        )
        assert [type(o) for o in outcomes] == [Appended, IdConflict, UnknownRecipient, Appended]
        assert store.positions(bob) == [1, 2, 3]
        assert texts(store.entries(alice)) == ["hello", "a", "b"]

    def test_a_deleted_user_cannot_send(self, store: Process, alice: Party, bob: Party) -> None:
        store.accounts.delete("alice")
        [outcome] = store.append(sending(alice, bob))
        assert isinstance(outcome, UnknownRecipient)
        assert store.entries(bob) == []


class TestSendMany:
    def test_every_recipient_gets_one_and_the_sender_no_sent_entry(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        [outcome] = store.append(sending_many(alice, [bob, carol]))
        assert isinstance(outcome, Appended)
        assert (outcome.is_new, outcome.sent_seq) == (True, None)
        assert (store.positions(alice), store.positions(bob), store.positions(carol)) == (
            [],
            [1],
            [1],
        )

    def test_an_own_copy_is_received_like_any_other(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.append(sending_many(alice, [bob, alice]))
        [entry] = store.entries(alice)
        assert isinstance(entry, MessageEntry)
        assert (entry.message.sender, entry.message.recipient) == ("alice", "alice")

    def test_all_or_none_when_a_recipient_is_gone(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        gone = store.user("gone")
        store.accounts.delete("gone")
        many = sending_many(alice, [bob, gone, bob])
        [outcome] = store.append(many)
        assert isinstance(outcome, UnknownRecipient)
        assert outcome.message_id == str(many.messages[1].id)
        assert store.entries(bob) == []

    def test_all_or_none_when_an_id_is_taken(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        taken = store.send(alice, carol, "earlier")
        [outcome] = store.append(sending_many(alice, [bob, carol], ids={1: taken}))
        assert isinstance(outcome, IdConflict)
        assert outcome.message_id == str(taken)
        assert store.entries(bob) == []
        assert texts(store.entries(carol)) == ["earlier"]

    def test_a_retry_stores_nothing(self, store: Process, alice: Party, bob: Party) -> None:
        many = sending_many(alice, [bob, bob])
        [first], [again] = store.append(many), store.append(many)
        assert isinstance(first, Appended)
        assert again == Appended(first.created_at, False, None)
        assert store.positions(bob) == [1, 2]

    def test_a_retry_with_more_in_it_stores_what_is_missing(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        known = uuid4()
        store.append(sending_many(alice, [bob], ids={0: known}))
        [outcome] = store.append(sending_many(alice, [bob, carol], ids={0: known}))
        assert isinstance(outcome, Appended)
        assert outcome.is_new
        assert (store.positions(bob), store.positions(carol)) == ([1], [1])

    def test_every_answer_names_the_time_of_the_first_message(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        ids = dict(enumerate((uuid4(), uuid4())))
        [early] = store.append(sending_many(alice, [bob], ids=ids))
        [mixed] = store.append(sending_many(alice, [bob, carol], ids=ids))
        [again] = store.append(sending_many(alice, [bob, carol], ids=ids))
        assert isinstance(early, Appended)
        assert mixed == Appended(early.created_at, True, None)
        assert again == Appended(early.created_at, False, None)


class TestAck:
    def test_an_ack_marks_as_delivered_and_tells_the_sender(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        first, second = store.send(alice, bob), store.send(alice, bob)
        committed = store.ack(bob)
        [receipt] = receipts(store.entries(alice))
        assert (receipt.seq, receipt.kind, receipt.by) == (3, "delivered", "bob")
        assert list(receipt.ids) == [first, second]
        assert [entry.frame() for entry in committed.entries["alice"]] == [receipt.frame()]
        assert message_row(store, first).delivered_at == message_row(store, second).delivered_at
        assert message_row(store, first).delivered_at is not None

    def test_an_ack_reaches_no_further_than_it_says(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        ids = [store.send(alice, bob) for _ in range(3)]
        store.ack(bob, 2)
        assert [message_row(store, i).delivered_at is not None for i in ids] == [True, True, False]
        assert store.state(bob).delivered_seq == 2

    @pytest.mark.parametrize("again", [0, 1, 2])
    def test_what_was_acknowledged_before_changes_nothing(
        self, store: Process, alice: Party, bob: Party, again: int
    ) -> None:
        ids = [store.send(alice, bob) for _ in range(2)]
        store.ack(bob, 2)
        before = [message_row(store, i) for i in ids]
        assert store.ack(bob, again).entries == {}
        assert [message_row(store, i) for i in ids] == before
        assert store.state(bob).delivered_seq == 2
        assert len(receipts(store.entries(alice))) == 1

    def test_an_ack_beyond_the_head_does_not_cover_what_comes_later(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.send(alice, bob)
        store.ack(bob, 10)
        later = store.send(alice, bob)
        assert store.state(bob).delivered_seq == 1
        assert message_row(store, later).delivered_at is None

    def test_of_several_acks_in_a_batch_the_furthest_counts(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        for _ in range(3):
            store.send(alice, bob)
            store.send(alice, carol)
        acks = [Ack(bob, 1), Ack(carol, 2), Ack(bob, 3), Ack(bob, 2)]
        committed = store.mailboxes.ack(acks)
        assert committed.outcomes == [1, 2, 3, 2]
        assert (store.state(bob).delivered_seq, store.state(carol).delivered_seq) == (3, 2)
        by = {r.by: len(r.ids) for r in receipts(store.entries(alice))}
        assert by == {"bob": 3, "carol": 2}
        assert store.positions(alice) == list(range(1, 9))

    def test_every_sender_gets_a_receipt_of_their_own(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        from_alice, from_carol = store.send(alice, bob), store.send(carol, bob)
        store.ack(bob)
        assert [r.ids for r in receipts(store.entries(alice))] == [[from_alice]]
        assert [r.ids for r in receipts(store.entries(carol))] == [[from_carol]]

    def test_many_messages_are_acknowledged_in_receipts_of_five_hundred(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        batch = [sending(alice, bob) for _ in range(1201)]
        store.append(*batch)
        committed = store.ack(bob)
        found = receipts(store.entries(alice, after=1201))
        assert [len(receipt.ids) for receipt in found] == [500, 500, 201]
        assert [i for receipt in found for i in receipt.ids] == [a.messages[0].id for a in batch]
        assert [receipt.seq for receipt in found] == [1202, 1203, 1204]
        assert [e.frame() for e in committed.entries["alice"]] == [r.frame() for r in found]

    def test_nobody_gets_a_receipt_for_a_message_to_oneself(
        self, store: Process, alice: Party
    ) -> None:
        message_id = store.send(alice, alice)
        store.ack(alice)
        store.read(alice, message_id)
        assert message_row(store, message_id).delivered_at is not None
        assert receipts(store.entries(alice)) == []

    def test_a_receipt_is_an_entry_that_needs_an_ack_and_makes_no_receipt(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.send(alice, bob)
        store.ack(bob)
        assert store.state(alice).delivered_seq == 1
        assert store.ack(alice).entries == {}
        assert store.state(alice).delivered_seq == 2
        assert store.positions(bob) == [1]

    def test_a_sender_who_is_gone_needs_no_receipt(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        store.send(alice, bob)
        kept = store.send(carol, bob)
        store.execute(sa.delete(accounts).where(accounts.c.id == alice.account_id))
        store.ack(bob)
        assert store.state(bob).delivered_seq == 2
        assert store.count(events) == 1
        assert [r.ids for r in receipts(store.entries(carol))] == [[kept]]

    def test_an_ack_of_a_user_who_is_gone_does_nothing(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.send(alice, bob)
        store.execute(sa.delete(accounts).where(accounts.c.id == bob.account_id))
        assert store.mailboxes.ack([Ack(bob, 1)]).entries == {}


class TestDeliveredPosition:
    def test_own_entries_count_as_delivered_while_nothing_is_outstanding(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.append(sending(alice, bob), sending(alice, bob))
        store.send(alice, bob)
        assert store.state(alice).delivered_seq == store.state(alice).last_seq == 3

    def test_own_entries_wait_behind_what_is_outstanding(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.send(bob, alice)
        store.send(alice, bob)
        assert store.state(alice).delivered_seq == 0
        store.ack(alice, 2)
        store.send(alice, bob)
        assert store.state(alice).delivered_seq == 3

    def test_in_a_batch_only_own_entries_before_the_first_received_count(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.append(sending(alice, bob), sending(bob, alice), sending(alice, bob))
        assert store.state(alice).delivered_seq == 1
        assert store.state(bob).delivered_seq == 0
        assert store.positions(alice) == store.positions(bob) == [1, 2, 3]


class TestRead:
    def test_reading_implies_delivery_and_tells_both_in_this_order(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        message_id = store.send(alice, bob)
        committed = store.read(bob, message_id)
        row = message_row(store, message_id)
        assert row.delivered_at is not None
        assert row.read_at is not None
        found = receipts(store.entries(alice))
        assert [(r.kind, r.by, list(r.ids)) for r in found] == [
            ("delivered", "bob", [message_id]),
            ("read", "bob", [message_id]),
        ]
        assert committed.outcomes == [1]
        assert [e.frame() for e in committed.entries["alice"]] == [r.frame() for r in found]

    def test_what_was_delivered_keeps_its_time(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        message_id = store.send(alice, bob)
        store.ack(bob)
        long_ago = now() - timedelta(days=1)
        store.execute(sa.update(messages).values(delivered_at=long_ago))
        before = message_row(store, message_id).delivered_at
        store.read(bob, message_id)
        assert message_row(store, message_id).delivered_at == before
        assert [r.kind for r in receipts(store.entries(alice))] == ["delivered", "read"]

    def test_reading_twice_marks_once(self, store: Process, alice: Party, bob: Party) -> None:
        message_id = store.send(alice, bob)
        store.read(bob, message_id)
        before = message_row(store, message_id)
        committed = store.read(bob, message_id)
        assert (committed.outcomes, committed.entries) == ([0], {})
        assert message_row(store, message_id) == before

    def test_an_id_that_is_named_twice_counts_once(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        message_id = store.send(alice, bob)
        reads = [Read(bob, [message_id, message_id]), Read(bob, [message_id])]
        assert store.mailboxes.read(reads).outcomes == [1, 0]
        [_, receipt] = receipts(store.entries(alice))
        assert list(receipt.ids) == [message_id]

    def test_messages_of_others_and_unknown_ids_are_skipped(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        to_carol, mine = store.send(alice, carol), store.send(alice, bob)
        assert store.read(bob, to_carol, uuid4(), mine).outcomes == [1]
        assert store.read(alice, to_carol).outcomes == [0]
        assert message_row(store, to_carol).read_at is None
        assert message_row(store, to_carol).delivered_at is None

    def test_in_a_batch_nobody_is_credited_with_the_reading_of_others(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        to_carol = store.send(alice, carol)
        reads = [Read(bob, [to_carol]), Read(carol, [to_carol])]
        assert store.mailboxes.read(reads).outcomes == [0, 1]

    def test_receipts_name_messages_in_the_order_of_the_mailbox(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        ids = [store.send(alice, bob) for _ in range(5)]
        store.read(bob, *reversed(ids))
        assert [list(r.ids) for r in receipts(store.entries(alice))] == [ids, ids]


class TestEntriesAfter:
    def test_pages_follow_each_other_without_hole_or_repetition(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        for n in range(30):
            store.send(*((alice, bob) if n % 3 else (bob, alice)))
            if n % 5 == 0:
                store.ack(bob)
        seen: list[int] = []
        position = 0
        while True:
            page = store.mailboxes.entries_after(alice, position, 7)
            seen += [entry.seq for entry in page.entries]
            if len(page.entries) < 7:
                break
            position = page.through
        assert seen == list(range(1, store.state(alice).last_seq + 1))
        assert page.through == seen[-1]

    def test_a_full_page_reaches_to_its_last_entry(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        for _ in range(5):
            store.send(alice, bob)
        page = store.mailboxes.entries_after(bob, 1, 2)
        assert ([entry.seq for entry in page.entries], page.through) == ([2, 3], 3)

    def test_what_has_expired_is_passed_over(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        ids = [store.send(alice, bob) for _ in range(4)]
        expire(store, ids[1], ids[3])
        page = store.mailboxes.entries_after(bob, 0, 10)
        assert ([entry.seq for entry in page.entries], page.through) == ([1, 3], 4)
        page = store.mailboxes.entries_after(alice, 3, 10)
        assert (page.entries, page.through) == ([], 4)

    def test_at_the_head_there_is_nothing(self, store: Process, alice: Party, bob: Party) -> None:
        store.send(alice, bob)
        page = store.mailboxes.entries_after(bob, 1, 10)
        assert (page.entries, page.through) == ([], 1)

    def test_the_mailbox_of_a_user_who_is_gone_is_empty(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.send(alice, bob)
        store.accounts.delete("bob")
        page = store.mailboxes.entries_after(bob, 0, 10)
        assert (page.entries, page.through) == ([], 0)

    def test_nobody_sees_the_entries_of_others(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        store.send(alice, bob)
        store.ack(bob)
        assert store.entries(carol) == []
