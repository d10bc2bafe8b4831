"""From a request to an operation: the host's rules, the recipients, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from uuid import uuid4

import pytest

from flask_e2emsg.delivery.bus import Bus
from flask_e2emsg.delivery.committer import Committer, Done, Operation, Outcome
from flask_e2emsg.delivery.hub import Hub
from flask_e2emsg.delivery.pump import Pump
from flask_e2emsg.delivery.quota import Quotas
from flask_e2emsg.delivery.router import Router, largest_frame
from flask_e2emsg.errors import (
    Forbidden,
    IdConflict,
    Internal,
    QuotaExceeded,
    RateLimited,
    Refusal,
    TooLarge,
    Unavailable,
    UnknownRecipient,
)
from flask_e2emsg.protocol.entries import Message, MessageEntry
from flask_e2emsg.protocol.frames import Outgoing, Typing
from flask_e2emsg.protocol.values import MAX_SEQ, encode_binary, now
from flask_e2emsg.store.accounts import Accounts, MailboxState, Party, Waiting
from flask_e2emsg.store.mailbox import Ack, Append, Appended, Read
from tests.delivery.fakes import ALICE, BOB, Watched, outgoing, parsed, positions, pump, take_all

LIMIT = 4096
QUOTA = 20


class FakeRules:
    """The host: what it forbids, whom it knows, and what it was asked."""

    def __init__(self) -> None:
        self.forbidden: set[tuple[str, str]] = set()
        self.seconds_to_wait: float | None = None
        self.users: set[str] = set()
        self.asked: list[tuple[str, str, str | None]] = []
        self.counted: list[tuple[str, int]] = []
        self.looked_for: list[str] = []

    def may_send(self, sender: str, recipient: str, conversation_id: str | None) -> bool:
        self.asked.append((sender, recipient, conversation_id))
        return (sender, recipient) not in self.forbidden

    def may_send_now(self, sender: str, count: int) -> float | None:
        self.counted.append((sender, count))
        return self.seconds_to_wait

    def knows_user(self, user_id: str) -> bool:
        self.looked_for.append(user_id)
        return user_id in self.users


class FakeAccounts:
    """The accounts in memory."""

    def __init__(self, *parties: Party) -> None:
        self.parties = {party.user_id: party for party in parties}
        self.forgotten: list[str] = []
        self.looked_up: list[set[str]] = []
        self.undelivered = 0

    def known(self, user_id: str) -> Party | None:
        return None

    def remembered(self, user_ids: set[str]) -> dict[str, Party]:
        return {}

    def look_up(self, user_ids: set[str]) -> dict[str, Party]:
        self.looked_up.append(user_ids)
        return {one: self.parties[one] for one in user_ids & self.parties.keys()}

    def waiting(self, recipient: Party, sender: Party, enough: int) -> Waiting:
        return Waiting(self.undelivered, self.undelivered)

    def ensure(self, user_id: str) -> MailboxState:
        party = self.parties.setdefault(user_id, Party(len(self.parties) + 1, user_id))
        return MailboxState(party, "0" * 16, 0, 0, 0)

    def forget(self, user_id: str) -> None:
        self.forgotten.append(user_id)


class FakeCommitter:
    """Answers at once, with what it is told to answer."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.operations: list[Operation] = []

    def submit(self, operation: Operation, done: Done) -> None:
        self.operations.append(operation)
        done(self.outcome)


class FakeBus:
    """Notes what is told to other processes."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, bytes]] = []

    def told(self, user_id: str, frame: bytes) -> None:
        self.frames.append((user_id, frame))


class Office:
    """A router among fakes."""

    def __init__(self, *, hide_refusals: bool = True) -> None:
        self.rules = FakeRules()
        self.accounts = FakeAccounts(ALICE, BOB)
        self.hub = Hub(10, 100)
        self.bus = FakeBus()
        self.sends = FakeCommitter(Appended(now(), True, 7))
        self.marks = FakeCommitter(1)
        self.router = Router(
            self.rules,
            cast(Accounts, self.accounts),
            self.hub,
            cast(Bus, self.bus),
            cast(Committer, self.sends),
            cast(Committer, self.marks),
            Quotas(self.accounts.waiting, of_one_sender=QUOTA, of_all=None),
            None,
            LIMIT,
            hide_refusals,
        )

    def connect(self, owner: Party = ALICE) -> Watched:
        one = pump(owner=owner, acks=self.router.ack)
        self.hub.add(one)
        one.start(0, 0, 100)
        return one

    def appended(self) -> Append:
        [append] = self.sends.operations
        assert isinstance(append, Append)
        return append


@pytest.fixture
def office() -> Office:
    return Office()


def replies(one: Pump) -> list[dict[str, Any]]:
    return parsed(one.take_replies())


def refused_with(office: Office, messages: Sequence[Outgoing], keeps_sent: bool = True) -> Refusal:
    """The refusal of these messages, which must not reach the committer."""
    with pytest.raises(Refusal) as refused:
        office.router.prepare(ALICE, messages, keeps_sent=keeps_sent)
    assert office.sends.operations == []
    return refused.value


def test_a_message_is_stored_for_its_recipient_and_answered(office: Office) -> None:
    mine, message = office.connect(), outgoing(BOB)
    office.router.send(mine, message)
    append = office.appended()
    assert (append.sender, append.recipients, append.messages) == (ALICE, [BOB], [message])
    assert (append.keeps_sent, append.origin) == (True, mine.origin)
    [accepted] = replies(mine)
    assert (accepted["type"], accepted["id"]) == ("accepted", str(message.id))
    assert (accepted["seq"], accepted["duplicate"]) == (7, False)


def test_after_an_answer_the_sender_may_acknowledge_its_own_position(office: Office) -> None:
    mine = office.connect()
    office.router.send(mine, outgoing(BOB))
    mine.ack(7)


@pytest.mark.parametrize("refusal", [IdConflict(), Unavailable(), Internal()], ids=repr)
def test_a_refusal_is_answered_with_the_id_of_the_message(office: Office, refusal: Refusal) -> None:
    mine, message = office.connect(), outgoing(BOB)
    office.sends.outcome = refusal
    office.router.send(mine, message)
    [error] = replies(mine)
    assert (error["type"], error["ref"], error["code"]) == ("error", str(message.id), refusal.code)
    assert refusal.ref is None, "others share this refusal"


def test_every_request_ends_whatever_its_outcome(office: Office) -> None:
    mine = office.connect()
    outcomes: list[Outcome] = [Appended(now(), True, 7), Unavailable(), 1]
    for outcome in outcomes:
        office.sends.outcome = office.marks.outcome = outcome
        office.router.send(mine, outgoing(BOB))
        office.router.send_many(mine, "ref", [outgoing(BOB)])
        office.router.read(mine, [uuid4()])
    mine.take_replies()
    assert mine._unanswered == 0


def test_several_messages_are_one_operation_and_one_answer(office: Office) -> None:
    mine, messages = office.connect(), [outgoing(BOB), outgoing(ALICE)]
    office.sends.outcome = Appended(now(), False, None)
    office.router.send_many(mine, 5, messages)
    append = office.appended()
    assert (append.recipients, append.keeps_sent) == ([BOB, ALICE], False)
    [accepted] = replies(mine)
    assert (accepted["ref"], accepted["duplicate"]) == (5, True)
    assert accepted["ids"] == [str(message.id) for message in messages]


def test_the_error_of_several_names_the_one_to_blame(office: Office) -> None:
    mine, messages = office.connect(), [outgoing(BOB), outgoing(ALICE)]
    culprit = str(messages[1].id)
    office.sends.outcome = IdConflict(message_id=culprit)
    office.router.send_many(mine, "group", messages)
    [error] = replies(mine)
    assert (error["ref"], error["id"], error["code"]) == ("group", culprit, "id_conflict")


def test_the_rate_limit_counts_messages_and_says_how_long_to_wait(office: Office) -> None:
    office.rules.seconds_to_wait = 2.5
    refusal = refused_with(office, [outgoing(BOB), outgoing(BOB)], keeps_sent=False)
    assert isinstance(refusal, RateLimited)
    assert refusal.retry_after == 2.5
    assert RateLimited.retry_after != 2.5
    assert office.rules.counted == [("alice", 2)]


def test_who_refuses_a_sender_does_not_exist_for_it(office: Office) -> None:
    office.rules.forbidden.add(("alice", "bob"))
    assert isinstance(refused_with(office, [outgoing(BOB)]), UnknownRecipient)
    office.router.prepare(BOB, [outgoing(ALICE)], keeps_sent=True)


def test_a_host_may_tell_that_somebody_refuses() -> None:
    office = Office(hide_refusals=False)
    office.rules.forbidden.add(("alice", "bob"))
    assert isinstance(refused_with(office, [outgoing(BOB)]), Forbidden)
    assert isinstance(refused_with(office, [outgoing(Party(0, "nobody"))]), UnknownRecipient)


@pytest.mark.parametrize("user_id", ["bob", "nobody"])
def test_the_same_is_found_of_who_refuses_and_who_does_not_exist(
    office: Office, user_id: str
) -> None:
    office.rules.forbidden.add(("alice", "bob"))
    refused_with(office, [outgoing(Party(0, user_id))])
    [names] = office.accounts.looked_up
    assert len(names) == 1  # A row that is found takes longer than none.
    assert not names & office.accounts.parties.keys()
    assert office.rules.looked_for == [user_id]


@pytest.mark.parametrize(("hides", "kind"), [(True, UnknownRecipient), (False, Forbidden)])
def test_who_refuses_in_one_conversation_only_is_not_unknown_in_the_other(
    hides: bool, kind: type[Refusal], monkeypatch: pytest.MonkeyPatch
) -> None:
    office = Office(hide_refusals=hides)
    monkeypatch.setattr(office.rules, "may_send", lambda _sender, _to, room: room != "shut")
    messages = [Outgoing(uuid4(), "bob", b"x", "eA", room) for room in ("open", "shut")]
    refusal = refused_with(office, messages, keeps_sent=False)
    assert isinstance(refusal, kind)
    assert refusal.message_id == str(messages[1].id)


def test_a_recipient_for_whom_too_much_waits_is_full(office: Office) -> None:
    office.accounts.undelivered = QUOTA
    messages = [outgoing(ALICE)] + [outgoing(BOB) for _ in range(QUOTA)]
    refusal = refused_with(office, messages, keeps_sent=False)
    assert isinstance(refusal, QuotaExceeded)
    assert refusal.message_id in {str(message.id) for message in messages[1:]}


def test_the_host_is_asked_for_every_message_with_its_conversation(office: Office) -> None:
    messages = [
        Outgoing(uuid4(), "bob", b"x", "eA", "room"),
        Outgoing(uuid4(), "alice", b"x", "eA", "room"),
    ]
    office.router.prepare(ALICE, messages, keeps_sent=False)
    assert office.rules.asked == [("alice", "bob", "room"), ("alice", "alice", "room")]


def test_a_forbidden_one_of_several_is_named(office: Office) -> None:
    office.rules.forbidden.add(("alice", "bob"))
    messages = [outgoing(ALICE), outgoing(BOB)]
    assert refused_with(office, messages, keeps_sent=False).message_id == str(messages[1].id)


def test_nobody_learns_of_a_user_to_whom_the_host_forbids_to_write(office: Office) -> None:
    nobody = Party(0, "nobody")
    office.rules.forbidden.add(("alice", "bob"))
    known, unknown = (refused_with(office, [outgoing(party)]) for party in (BOB, nobody))
    assert (type(known), known.message) == (type(unknown), unknown.message)


def test_an_unknown_recipient_is_refused(office: Office) -> None:
    assert isinstance(refused_with(office, [outgoing(Party(0, "nobody"))]), UnknownRecipient)
    assert "nobody" not in office.accounts.parties


def test_a_user_of_the_host_gets_an_account_with_the_first_message(office: Office) -> None:
    office.rules.users.add("carol")
    append = office.router.prepare(ALICE, [outgoing(Party(0, "carol"))], keeps_sent=True)
    assert [party.user_id for party in append.recipients] == ["carol"]


def test_an_account_that_turns_out_to_be_gone_is_forgotten(office: Office) -> None:
    office.sends.outcome = UnknownRecipient()
    office.router.send(office.connect(), outgoing(BOB))
    assert office.accounts.forgotten == ["alice", "bob"]
    with pytest.raises(UnknownRecipient):
        office.router.commit(office.router.prepare(ALICE, [outgoing(BOB)], keeps_sent=True))
    assert office.accounts.forgotten == ["alice", "bob"] * 2


def test_a_message_whose_frame_its_recipient_could_not_take_is_refused(office: Office) -> None:
    room = LIMIT - largest_frame("alice", outgoing(BOB, ""))
    fits = "x" * (room * 3 // 4)
    office.router.prepare(ALICE, [outgoing(BOB, fits)], keeps_sent=True)
    assert isinstance(refused_with(office, [outgoing(BOB, fits + "xxx")]), TooLarge)


@pytest.mark.parametrize(
    "name", ["bob", "b" * 255, "\x1f" * 255, "€" * 255, "\U0001f600" * 255, '"\\' * 100, "é"]
)
@pytest.mark.parametrize("has_more", [False, True])
def test_no_delivered_frame_is_larger_than_was_reckoned(name: str, has_more: bool) -> None:
    conversation_id, expires_at = (name, now()) if has_more else (None, None)
    content = b"x" * 100
    sent = Outgoing(uuid4(), name, content, encode_binary(content), conversation_id)
    delivered = Message(sent.id, name, name, conversation_id, content, now(), expires_at)
    frame = MessageEntry(MAX_SEQ, delivered, None).frame()
    assert len(frame) <= largest_frame(name, sent)


def test_marks_go_their_own_way_and_only_a_failure_is_answered(office: Office) -> None:
    mine, ids = office.connect(), [uuid4()]
    office.router.read(mine, ids)
    assert office.marks.operations == [Read(ALICE, ids)]
    assert office.sends.operations == []
    assert replies(mine) == []
    office.marks.outcome = Unavailable()
    office.router.read(mine, ids)
    assert [frame["code"] for frame in replies(mine)] == ["unavailable"]


def test_an_ack_is_committed_for_its_owner(office: Office) -> None:
    mine = office.connect(BOB)
    office.router.ack(mine, 3)
    assert office.marks.operations == [Ack(BOB, 3)]


def test_a_failed_ack_is_answered(office: Office) -> None:
    mine = office.connect()
    office.marks.outcome = Unavailable()
    office.router.ack(mine, 3)
    assert [frame["code"] for frame in replies(mine)] == ["unavailable"]


def test_waiting_for_the_commit_gives_its_result_or_raises_its_refusal(office: Office) -> None:
    append = office.router.prepare(ALICE, [outgoing(BOB)], keeps_sent=True)
    assert office.router.commit(append) is office.sends.outcome
    office.sends.outcome = IdConflict()
    with pytest.raises(IdConflict):
        office.router.commit(append)
    assert office.router.mark(Ack(BOB, 1)) == 1
    office.marks.outcome = Unavailable()
    with pytest.raises(Unavailable):
        office.router.mark(Ack(BOB, 1))


def test_a_commit_that_never_comes_is_given_up(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_e2emsg.delivery.router.COMMIT_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(office.sends, "submit", lambda *_: None)
    append = office.router.prepare(ALICE, [outgoing(BOB)], keeps_sent=True)
    with pytest.raises(Unavailable):
        office.router.commit(append)


def test_typing_reaches_every_live_connection_and_no_database(office: Office) -> None:
    theirs = [office.connect(BOB), office.connect(BOB)]
    mine = office.connect()
    office.router.typing("alice", Typing("bob", "room", True))
    expected = {"type": "typing", "sender": "alice", "conversation_id": "room", "active": True}
    assert [replies(one) for one in theirs] == [[expected], [expected]]
    assert replies(mine) == []
    [(user_id, frame)] = office.bus.frames
    assert (user_id, parsed([frame])) == ("bob", [expected])
    assert office.sends.operations == office.marks.operations == []


def test_typing_to_somebody_to_whom_the_host_forbids_to_write_is_dropped(office: Office) -> None:
    theirs = office.connect(BOB)
    office.rules.forbidden.add(("alice", "bob"))
    office.router.typing("alice", Typing("bob", None, True))
    assert replies(theirs) == []
    assert office.bus.frames == []


def test_a_recipient_on_the_same_hub_needs_no_database(office: Office) -> None:
    theirs, message = office.connect(BOB), outgoing(BOB)
    stored = Message(message.id, "alice", "bob", None, message.content, now(), None)
    office.hub.publish({"bob": [MessageEntry(1, stored, None)]})
    assert positions(take_all(theirs)) == [1]
