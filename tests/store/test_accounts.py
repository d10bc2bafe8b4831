"""Accounts: made on first contact, remembered, and the directory of public keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, timedelta

import pytest
import sqlalchemy as sa

from flask_e2emsg.protocol.values import now
from flask_e2emsg.store.accounts import ROWS_AT_ONCE, Party, Waiting
from flask_e2emsg.store.models import accounts, events, messages
from tests.store.process import Process, sending

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))


class TestEnsure:
    def test_a_new_mailbox_is_empty(self, store: Process) -> None:
        state = store.accounts.ensure("alice")
        assert state.owner.user_id == "alice"
        assert (state.last_seq, state.delivered_seq, state.floor_seq) == (0, 0, 0)
        assert re.fullmatch("[0-9a-f]{16}", state.epoch)

    def test_the_second_time_it_is_the_same(self, store: Process) -> None:
        assert store.accounts.ensure("alice") == store.accounts.ensure("alice")
        assert store.count(accounts) == 1

    def test_every_mailbox_has_an_epoch_of_its_own(self, store: Process) -> None:
        epochs = {store.accounts.ensure(f"user {n}").epoch for n in range(20)}
        assert len(epochs) == 20

    def test_any_text_is_a_user_id_and_no_two_texts_are_the_same(self, store: Process) -> None:
        texts = [
            "1",
            " 1",
            "1 ",
            "01",
            "\u0661",
            "x" * 255,
            "x" * 254,
            "Alice",
            "alice",
            "alic\u00e9",
        ]
        texts += ["alice\u0301", "%", "_", "'", '"', "\\", "/", "\n", "\U0001f600"]
        ids = {text: store.user(text).account_id for text in texts}
        assert len(set(ids.values())) == len(texts)
        for text, account_id in ids.items():
            store.accounts.forget(text)
            assert store.accounts.find(text) == Party(account_id, text)


class TestFind:
    def test_nobody_is_found_before_the_first_contact(self, store: Process) -> None:
        assert store.accounts.find("alice") is None
        assert store.accounts.state("alice") is None
        assert store.accounts.look_up({"alice"}) == {}

    def test_several_are_found_at_once_known_here_or_not(
        self, store: Process, another_process: Callable[[], Process]
    ) -> None:
        alice = store.user("alice")
        bob = another_process().user("bob")
        everybody = {"alice", "bob", "nobody"}
        assert store.accounts.remembered(everybody) == {"alice": alice}
        assert store.accounts.look_up(everybody) == {"alice": alice, "bob": bob}
        assert store.accounts.remembered(everybody) == {"alice": alice, "bob": bob}

    def test_more_are_found_than_a_statement_takes_parameters(self, store: Process) -> None:
        user_ids = {f"user {n}" for n in range(1500)}
        store.user("user 700")
        assert store.accounts.look_up(user_ids).keys() == {"user 700"}

    def test_what_waits_is_counted_in_all_and_from_one_sender(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        for sender, count in ((alice, 3), (carol, 2)):
            for _ in range(count):
                store.send(sender, bob)
        assert store.accounts.waiting(bob, alice, 10) == Waiting(5, 3)
        assert store.accounts.waiting(bob, alice, 2) == Waiting(5, 2)
        store.ack(bob, 2)
        assert store.accounts.waiting(bob, alice, 10) == Waiting(3, 1)
        assert store.accounts.waiting(Party(0, "gone"), alice, 10) == Waiting(0, 0)

    def test_forgetting_makes_the_database_be_asked_again(
        self, store: Process, another_process: Callable[[], Process], alice: Party
    ) -> None:
        another_process().accounts.delete("alice")
        assert store.accounts.find("alice") == alice
        store.accounts.forget("alice")
        assert store.accounts.find("alice") is None

    def test_every_name_is_found_as_it_is(self, store: Process) -> None:
        names = {
            'quo"ted',
            "back\\slash",
            "{curly,comma}",
            "NULL",
            " spaces ",
            "%s %(some)s",
            "é😀",
        }
        known = {name: store.user(name) for name in names}
        assert store.accounts.look_up(names | {"quo", "null", "spaces", "curly"}) == known
        assert [store.accounts.look_up({name}) for name in names] == [
            {name: known[name]} for name in names
        ]

    def test_heads_are_the_newest_positions(self, store: Process, alice: Party, bob: Party) -> None:
        store.send(alice, bob)
        store.send(alice, bob)
        store.send(bob, alice)
        nobody = range(10**6, 10**6 + 2 * ROWS_AT_ONCE)
        ids = [alice.account_id, *nobody, bob.account_id]
        assert store.accounts.heads(ids) == {alice.account_id: 3, bob.account_id: 3}
        assert store.accounts.heads([]) == {}


class TestPublicKey:
    def test_there_is_none_before_it_is_set(self, store: Process) -> None:
        assert store.accounts.public_key("nobody") is None
        store.user("alice")
        assert store.accounts.public_key("alice") is None

    def test_the_first_key_is_version_one_and_makes_the_account(self, store: Process) -> None:
        published = store.accounts.set_public_key("alice", KEY)
        assert store.accounts.public_key("alice") == published
        assert (published.user_id, published.public_key, published.key_version) == ("alice", KEY, 1)
        assert abs(now() - published.updated_at) < timedelta(minutes=1)
        assert published.updated_at.tzinfo is UTC

    def test_the_same_key_again_gives_the_same_answer(self, store: Process) -> None:
        first = store.accounts.set_public_key("alice", KEY)
        hour_ago = first.updated_at - timedelta(hours=1)
        store.execute(sa.update(accounts).values(key_updated_at=hour_ago))
        again = store.accounts.set_public_key("alice", KEY)
        assert (again.key_version, again.updated_at) == (1, hour_ago)

    def test_another_key_is_the_next_version(self, store: Process) -> None:
        store.accounts.set_public_key("alice", KEY)
        store.execute(sa.update(accounts).values(key_updated_at=now() - timedelta(hours=1)))
        changed = store.accounts.set_public_key("alice", OTHER_KEY)
        assert (changed.public_key, changed.key_version) == (OTHER_KEY, 2)
        assert abs(now() - changed.updated_at) < timedelta(minutes=1)

    def test_the_key_of_an_account_leaves_its_mailbox_alone(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.send(alice, bob)
        before = store.state(bob)
        store.accounts.set_public_key("bob", KEY)
        assert store.state(bob) == before


class TestDelete:
    def test_everything_of_the_user_goes_and_nothing_else(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        store.send(alice, bob)
        store.send(bob, alice)
        kept = store.send(bob, carol)
        store.ack(bob)
        store.ack(carol)
        assert store.accounts.delete("alice") is True
        assert store.accounts.find("alice") is None
        with store.database.read() as connection:
            assert list(connection.scalars(sa.select(messages.c.id))) == [kept]
            assert set(connection.scalars(sa.select(events.c.account_id))) == {bob.account_id}

    def test_more_goes_than_one_step_takes(self, store: Process, alice: Party, bob: Party) -> None:
        store.append(*(sending(alice, bob) for _ in range(2 * ROWS_AT_ONCE + 1)))
        store.ack(bob)
        assert store.accounts.delete("alice") is True
        with store.database.read() as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(messages)) == 0
        assert store.positions(bob) == []

    @pytest.mark.parametrize("count", range(4))
    def test_an_interrupted_deletion_can_be_done_again(
        self, store: Process, alice: Party, bob: Party, monkeypatch: pytest.MonkeyPatch, count: int
    ) -> None:
        def interrupted(statement: sa.Executable, parameters: dict[str, int]) -> int:
            if steps.pop() is last:
                raise InterruptedError
            return write(statement, parameters)

        store.send(alice, bob)
        last, write = object(), store.accounts._write
        steps = [last, *map(str, range(count))]
        with monkeypatch.context() as broken:
            broken.setattr(store.accounts, "_write", interrupted)
            with pytest.raises(InterruptedError):
                store.accounts.delete("alice")
        assert store.accounts.delete("alice") is True
        assert store.positions(bob) == []

    def test_a_user_without_an_account_cannot_be_deleted(self, store: Process) -> None:
        assert store.accounts.delete("nobody") is False

    def test_a_user_who_comes_back_is_somebody_new(self, store: Process, alice: Party) -> None:
        before = store.state(alice)
        store.accounts.delete("alice")
        after = store.accounts.ensure("alice")
        assert after.owner.account_id > alice.account_id
        assert after.epoch != before.epoch

    def test_account_ids_are_never_given_again(self, store: Process) -> None:
        ids = []
        for _ in range(3):
            ids.append(store.user("alice").account_id)
            store.accounts.delete("alice")
        assert ids == sorted(set(ids))


def test_after_a_restore_no_cursor_of_before_counts(store: Process) -> None:
    users = [f"user {number}" for number in range(20)]
    before = {user: store.accounts.ensure(user).epoch for user in users}
    assert store.accounts.renew_epochs() == len(users)
    after = {user: store.accounts.ensure(user).epoch for user in users}
    assert len(set(after.values()) | set(before.values())) == 2 * len(users)
    assert all(re.fullmatch("[0-9a-f]{16}", epoch) for epoch in after.values())
