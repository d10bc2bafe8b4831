"""Reading back: pages of conversations, what is unread, and the list of conversations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from flask_e2emsg.protocol.values import now
from flask_e2emsg.store.accounts import Party
from flask_e2emsg.store.history import HistoryPage, Span, StoredMessage
from flask_e2emsg.store.mailbox import Append
from flask_e2emsg.store.models import messages
from tests.store.process import Process, outgoing, sending_many


def texts(page: HistoryPage) -> list[str]:
    return [message.content.decode() for message in page.messages]


def walk(read: Callable[[int | None], HistoryPage]) -> list[StoredMessage]:
    """Every message of the pages, following `next` to the end."""
    found: list[StoredMessage] = []
    position: int | None = None
    while True:
        page = read(position)
        found += page.messages
        assert page.has_more is (page.next is not None)
        if page.next is None:
            return found
        assert page.next != position, "the pages do not move on"
        position = page.next


def walk_back(read: Callable[[Span], HistoryPage], limit: int) -> list[StoredMessage]:
    return walk(lambda position: read(Span(limit, before=position)))


def walk_forth(read: Callable[[Span], HistoryPage], limit: int) -> list[StoredMessage]:
    return walk(lambda position: read(Span(limit, after=position or 0)))


def expire(store: Process, message_id: UUID) -> None:
    past = now() - timedelta(seconds=1)
    store.execute(sa.update(messages).where(messages.c.id == message_id).values(expires_at=past))


@pytest.fixture
def talk(store: Process, alice: Party, bob: Party, carol: Party) -> list[str]:
    """Alice and Bob talk in turns, with Carol in between; what Alice and Bob said."""
    said = []
    for n in range(10):
        writer, reader = (alice, bob) if n % 2 else (bob, alice)
        store.send(writer, reader, f"line {n}")
        store.send(carol, alice, "by the way")
        said.append(f"line {n}")
    return said


class TestWithContact:
    def test_both_sides_see_both_directions_in_the_same_order(
        self, store: Process, alice: Party, bob: Party, talk: list[str]
    ) -> None:
        for owner, contact in ((alice, bob), (bob, alice)):
            newest_first = store.history.with_contact(owner, contact, Span(100))
            oldest_first = store.history.with_contact(owner, contact, Span(100, after=0))
            assert texts(newest_first) == talk[::-1]
            assert texts(oldest_first) == talk

    def test_positions_are_those_of_the_own_mailbox(
        self, store: Process, alice: Party, bob: Party, talk: list[str]
    ) -> None:
        in_mailbox = {entry.frame(): entry.seq for entry in store.entries(alice)}
        page = store.history.with_contact(alice, bob, Span(100, after=0))
        assert [message.position for message in page.messages] == [
            1,
            3,
            5,
            7,
            9,
            11,
            13,
            15,
            17,
            19,
        ]
        assert {message.position for message in page.messages} <= set(in_mailbox.values())
        page = store.history.with_contact(bob, alice, Span(100, after=0))
        assert [message.position for message in page.messages] == list(range(1, 11))

    @pytest.mark.parametrize("limit", [1, 3, 5, 10, 11])
    def test_pages_backwards_join_without_gap_or_overlap(
        self, store: Process, alice: Party, bob: Party, talk: list[str], limit: int
    ) -> None:
        read = functools.partial(store.history.with_contact, alice, bob)
        assert [message.content.decode() for message in walk_back(read, limit)] == talk[::-1]

    @pytest.mark.parametrize("limit", [1, 3, 5, 10, 11])
    def test_pages_forwards_join_without_gap_or_overlap(
        self, store: Process, alice: Party, bob: Party, talk: list[str], limit: int
    ) -> None:
        read = functools.partial(store.history.with_contact, alice, bob)
        assert [message.content.decode() for message in walk_forth(read, limit)] == talk

    def test_pages_of_a_monologue_join_too(self, store: Process, alice: Party, bob: Party) -> None:
        said = [store.send(alice, bob) for _ in range(5)]
        for owner, contact in ((alice, bob), (bob, alice)):
            read = functools.partial(store.history.with_contact, owner, contact)
            assert [message.id for message in walk_forth(read, limit=2)] == said
            assert [message.id for message in walk_back(read, limit=2)] == said[::-1]

    def test_paging_backwards_is_not_disturbed_by_what_arrives(
        self, store: Process, alice: Party, bob: Party, talk: list[str]
    ) -> None:
        def read(position: int | None) -> HistoryPage:
            page = store.history.with_contact(alice, bob, Span(3, before=position))
            store.send(bob, alice, "meanwhile")
            store.send(alice, bob, "meanwhile")
            return page

        assert [message.content.decode() for message in walk(read)] == talk[::-1]

    def test_paging_forwards_meets_what_arrives_at_the_end(
        self, store: Process, alice: Party, bob: Party, talk: list[str]
    ) -> None:
        arriving = iter(["new 1", "new 2"])

        def read(position: int | None) -> HistoryPage:
            page = store.history.with_contact(alice, bob, Span(4, after=position or 0))
            if text := next(arriving, None):
                store.send(bob, alice, text)
            return page

        found = [message.content.decode() for message in walk(read)]
        assert found == [*talk, "new 1", "new 2"]

    def test_times_show_delivery_and_reading_to_both(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        message_id = store.send(alice, bob)
        store.read(bob, message_id)
        for owner, contact in ((alice, bob), (bob, alice)):
            [message] = store.history.with_contact(owner, contact, Span(10)).messages
            assert message.delivered_at == message.read_at is not None
            assert message.read_at >= message.created_at
            assert message.created_at.utcoffset() == timedelta(0)

    def test_a_message_to_oneself_stands_there_once(self, store: Process, alice: Party) -> None:
        store.send(alice, alice, "note")
        assert texts(store.history.with_contact(alice, alice, Span(10))) == ["note"]

    def test_what_has_expired_is_gone(self, store: Process, alice: Party, bob: Party) -> None:
        expire(store, store.send(alice, bob, "secret"))
        store.send(alice, bob, "hello", expires_in=60)
        for owner, contact in ((alice, bob), (bob, alice)):
            assert texts(store.history.with_contact(owner, contact, Span(10))) == ["hello"]

    def test_what_was_sent_to_many_shows_on_their_side_only(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        store.append(sending_many(alice, [bob, alice]))
        assert store.history.with_contact(alice, bob, Span(10)).messages == []
        assert texts(store.history.with_contact(bob, alice, Span(10))) == ["hello"]
        assert texts(store.history.with_contact(alice, alice, Span(10))) == ["hello"]

    def test_strangers_find_nothing(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        store.send(alice, bob)
        for contact in (alice, bob, carol):
            assert store.history.with_contact(carol, contact, Span(10)).messages == []


class TestInConversation:
    def test_it_holds_what_came_and_the_own_messages_of_that_conversation(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        store.send(alice, bob, "not here")
        store.send(alice, bob, "one", conversation_id="trip")
        store.send(carol, alice, "two", conversation_id="trip")
        store.send(carol, alice, "elsewhere", conversation_id="work")
        page = store.history.in_conversation(alice, "trip", Span(10, after=0))
        assert texts(page) == ["one", "two"]
        assert texts(store.history.in_conversation(bob, "trip", Span(10))) == ["one"]
        assert texts(store.history.in_conversation(carol, "trip", Span(10))) == ["two"]

    def test_own_copies_stand_for_what_was_sent_to_many(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        people = [bob, carol, alice]
        copies = [outgoing(party, party.user_id, conversation_id="group") for party in people]
        store.append(Append(alice, people, copies, keeps_sent=False))
        assert texts(store.history.in_conversation(alice, "group", Span(10))) == ["alice"]
        assert texts(store.history.in_conversation(carol, "group", Span(10))) == ["carol"]

    def test_pages_join_in_both_directions(self, store: Process, alice: Party, bob: Party) -> None:
        for n in range(7):
            store.send(*((alice, bob) if n % 2 else (bob, alice)), f"{n}", conversation_id="c")
            store.send(alice, bob, "other")
        read = functools.partial(store.history.in_conversation, alice, "c")
        forth = walk_forth(read, limit=2)
        assert [message.content.decode() for message in forth] == [str(n) for n in range(7)]
        assert walk_back(read, limit=2) == forth[::-1]


class TestUnread:
    def test_unread_messages_of_one_contact_up_to_a_position(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        first, read = store.send(bob, alice), store.send(bob, alice)
        store.send(carol, alice)
        store.send(alice, bob)
        fifth, _later = store.send(bob, alice), store.send(bob, alice)
        store.read(alice, read)
        assert store.history.unread_from(alice, bob, up_to=5, limit=10) == [first, fifth]

    def test_no_more_than_asked_for_oldest_first(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        ids = [store.send(bob, alice) for _ in range(5)]
        assert store.history.unread_from(alice, bob, up_to=5, limit=2) == ids[:2]

    def test_what_has_expired_needs_no_reading(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        expire(store, store.send(bob, alice))
        assert store.history.unread_from(alice, bob, up_to=5, limit=10) == []


class TestConversations:
    def test_each_shows_its_newest_message_and_they_are_newest_first(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        store.send(bob, alice, "old")
        store.send(carol, alice, "from carol")
        store.send(alice, bob, "in the group", conversation_id="group")
        store.send(alice, bob, "new")
        found = store.history.conversations(alice, None, 10)
        assert [(c.contact_id, c.conversation_id, c.last.content) for c in found] == [
            ("bob", None, b"new"),
            ("bob", "group", b"in the group"),
            ("carol", None, b"from carol"),
        ]

    def test_a_group_is_one_conversation_whoever_writes(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        store.send(bob, alice, "one", conversation_id="group")
        store.send(carol, alice, "two", conversation_id="group")
        [conversation] = store.history.conversations(alice, None, 10)
        assert (conversation.contact_id, conversation.last.content) == ("carol", b"two")
        assert conversation.unread == 2

    def test_unread_counts_what_others_wrote_and_i_have_not_read(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        read, _, expired = [store.send(bob, alice) for _ in range(3)]
        store.send(alice, bob)
        store.read(alice, read)
        expire(store, expired)
        assert [c.unread for c in store.history.conversations(alice, None, 10)] == [1]
        assert [c.unread for c in store.history.conversations(bob, None, 10)] == [1]

    def test_own_copies_are_not_unread(self, store: Process, alice: Party, bob: Party) -> None:
        store.append(sending_many(alice, [bob, alice]))
        store.send(alice, alice)
        [conversation] = store.history.conversations(alice, None, 10)
        assert (conversation.contact_id, conversation.unread) == ("alice", 0)

    def test_pages_join_without_gap_or_overlap(self, store: Process, alice: Party) -> None:
        contacts = [store.user(f"contact {n}") for n in range(7)]
        for contact in contacts:
            store.send(contact, alice)
            store.send(alice, contact)
        seen: list[str] = []
        before: int | None = None
        while page := store.history.conversations(alice, before, 3):
            seen += [conversation.contact_id for conversation in page]
            before = page[-1].last.position
        assert seen == [contact.user_id for contact in contacts[::-1]]

    def test_strangers_have_none(
        self, store: Process, alice: Party, bob: Party, carol: Party
    ) -> None:
        store.send(alice, bob)
        assert store.history.conversations(carol, None, 10) == []
