"""Hello, live delivery and the offline backlog (docs/protocol.md 3 and 4)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.acceptance.client import DEADLINE_SECONDS
from tests.acceptance.people import People, Person
from tests.acceptance.wire import is_uuid, new_content, new_id, to_time


def test_hello_is_the_first_frame_and_has_its_members(people: People) -> None:
    newcomer = people.new()
    hello = newcomer.connect().hello
    assert hello["user_id"] == newcomer.id
    assert (hello["head"], hello["after"], hello["reset"]) == (0, 0, False)
    assert (hello["heartbeat"], hello["max_in_flight"]) == (25, 256)
    assert hello["max_frame_bytes"] == 131_072


def test_hello_says_when_the_token_ends(alice: Person) -> None:
    before = datetime.now(UTC)
    hello = alice.connect(token=alice.token(expires_in=600)).hello
    left = to_time(hello["expires_at"]) - before
    assert timedelta(seconds=598) < left <= timedelta(seconds=601)


def test_each_connection_has_its_own_id_and_the_mailbox_one_epoch(alice: Person) -> None:
    first, second = alice.connect().hello, alice.connect().hello
    assert is_uuid(first["connection_id"])
    assert first["connection_id"] != second["connection_id"]
    assert first["epoch"] == second["epoch"]


def test_an_empty_mailbox_is_caught_up_at_once(people: People) -> None:
    assert people.new().connect().expect("caught_up")["head"] == 0


def test_a_message_reaches_a_connected_recipient(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    content = new_content()
    accepted = ours.store(bob.id, content)
    assert (accepted["seq"], accepted["duplicate"]) == (1, False)
    assert theirs.message(accepted["id"]) == {
        "type": "message",
        "seq": 1,
        "id": accepted["id"],
        "sender": alice.id,
        "recipient": bob.id,
        "conversation_id": None,
        "encrypted_content": content,
        "created_at": accepted["created_at"],
        "expires_at": None,
    }


def test_created_at_is_the_time_of_the_server(alice: Person, bob: Person) -> None:
    created_at = to_time(alice.connect().store(bob.id)["created_at"])
    assert abs(datetime.now(UTC) - created_at) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "conversation_id", ["c", "team/7?x=#é", "😀" * 255], ids=["c", "odd", "255"]
)
def test_a_conversation_id_travels_unchanged(
    alice: Person, bob: Person, conversation_id: str
) -> None:
    theirs = bob.connect()
    alice.connect().store(bob.id, conversation_id=conversation_id)
    assert theirs.message()["conversation_id"] == conversation_id


def test_content_of_every_length_up_to_the_frame_limit_arrives(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    for size in (1, 2, 3, 4, 255, 1_000, 65_536, 97_000):
        content = new_content(size)
        assert theirs.message(ours.store(bob.id, content)["id"])["encrypted_content"] == content


def test_expires_in_becomes_expires_at(alice: Person, bob: Person) -> None:
    theirs = bob.connect()
    accepted = alice.connect().store(bob.id, expires_in=3600)
    expires_at = to_time(theirs.message()["expires_at"])
    assert expires_at - to_time(accepted["created_at"]) == timedelta(seconds=3600)


def test_every_connection_of_the_recipient_gets_the_message(alice: Person, bob: Person) -> None:
    phone, laptop = bob.connect(), bob.connect()
    message_id = alice.connect().store(bob.id)["id"]
    assert phone.message(message_id) == laptop.message(message_id)


def test_the_senders_other_connection_gets_the_sent_entry(alice: Person, bob: Person) -> None:
    here, there = alice.connect(), alice.connect()
    accepted = here.store(bob.id)
    copy = there.message(accepted["id"])
    assert (copy["sender"], copy["recipient"], copy["seq"]) == (alice.id, bob.id, accepted["seq"])
    assert copy["created_at"] == accepted["created_at"]


def test_the_sending_connection_does_not_get_its_own_sent_entry(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    accepted = ours.store(bob.id)
    theirs.store(alice.id)
    # Positions are pushed in order: this one would have come after the own entry.
    answer = ours.message()
    assert (answer["sender"], answer["seq"]) == (bob.id, accepted["seq"] + 1)
    assert [frame["type"] for frame in ours.seen if "seq" in frame].count("message") == 1


def test_a_message_to_oneself_reaches_the_other_connection(alice: Person) -> None:
    here, there = alice.connect(), alice.connect()
    accepted = here.store(alice.id)
    note = there.message(accepted["id"])
    assert (note["sender"], note["recipient"]) == (alice.id, alice.id)


def test_a_pipelined_burst_keeps_its_order(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    sent = [ours.send(bob.id) for _ in range(200)]
    positions = [ours.accepted(message_id)["seq"] for message_id in sent]
    assert positions == list(range(1, 201))
    received = theirs.entries(200)
    assert [frame["id"] for frame in received] == sent
    assert [frame["seq"] for frame in received] == positions


def test_many_senders_at_once_leave_no_hole_in_a_mailbox(people: People, bob: Person) -> None:
    theirs = bob.connect()
    senders = [people.new("sender").connect() for _ in range(6)]

    def send_all(index: int) -> list[str]:
        ids = [senders[index].send(bob.id) for _ in range(20)]
        return [str(senders[index].accepted(message_id)["id"]) for message_id in ids]

    with ThreadPoolExecutor(len(senders)) as pool:
        sent = list(pool.map(send_all, range(len(senders))))
    received = theirs.entries(120)
    assert [frame["seq"] for frame in received] == list(range(1, 121))
    order = [frame["id"] for frame in received]
    for ids in sent:
        assert [message_id for message_id in order if message_id in ids] == ids


def test_two_connections_of_a_user_see_the_same_order(people: People, bob: Person) -> None:
    phone, laptop = bob.connect(), bob.connect()
    senders = [people.new("sender").connect() for _ in range(3)]
    for _ in range(10):
        for sender in senders:
            sender.send(bob.id)
    seen = [[(frame["seq"], frame["id"]) for frame in phone.entries(30)]]
    seen += [[(frame["seq"], frame["id"]) for frame in laptop.entries(30)]]
    assert seen[0] == seen[1]


def test_an_offline_backlog_comes_before_caught_up(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    stored = [ours.store(bob.id)["id"] for _ in range(5)]
    theirs = bob.connect()
    assert theirs.hello["head"] == 5
    assert [frame["id"] for frame in theirs.drain()] == stored
    assert [frame["type"] for frame in theirs.seen] == ["hello", *["message"] * 5, "caught_up"]


def test_a_long_backlog_needs_acks_and_then_is_caught_up(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    sent = [ours.send(bob.id) for _ in range(600)]
    for message_id in sent:
        ours.accepted(message_id)
    theirs = bob.connect()
    assert [frame["id"] for frame in theirs.drain()] == sent


def test_live_messages_follow_the_backlog_on_the_same_connection(
    alice: Person, bob: Person
) -> None:
    ours = alice.connect()
    before = ours.store(bob.id)["id"]
    theirs = bob.connect()
    assert [frame["id"] for frame in theirs.drain()] == [before]
    after = ours.store(bob.id)["id"]
    assert theirs.message()["id"] == after
    theirs.round_trip()
    assert [frame["type"] for frame in theirs.seen].count("caught_up") == 1


def test_the_backlog_holds_what_was_sent_while_it_was_read(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    sent = [ours.send(bob.id) for _ in range(300)]
    theirs = bob.connect()
    sent += [ours.send(bob.id) for _ in range(100)]
    received = {frame["id"] for frame in theirs.drain()}
    while len(received) < 400:
        received.add(theirs.message(seconds=DEADLINE_SECONDS)["id"])
        theirs.ack()
    assert received == set(sent)


def test_a_user_that_was_never_seen_is_an_unknown_recipient(people: People, alice: Person) -> None:
    ours = alice.connect()
    message_id = ours.send(people.new("nobody").id)
    assert ours.error("unknown_recipient")["ref"] == message_id
    ours.round_trip()


def test_a_user_can_be_written_to_after_the_first_connection(people: People, alice: Person) -> None:
    newcomer = people.new()
    newcomer.connect().close()
    accepted = alice.connect().store(newcomer.id)
    assert [frame["id"] for frame in newcomer.connect().drain()] == [accepted["id"]]


def test_a_claimed_sender_changes_nothing(alice: Person, bob: Person, carol: Person) -> None:
    theirs, ours = bob.connect(), alice.connect()
    message_id = ours.send(bob.id, sender=carol.id, device="x")
    ours.accepted(message_id)
    assert theirs.message(message_id)["sender"] == alice.id


def test_a_stranger_receives_nothing(alice: Person, bob: Person, carol: Person) -> None:
    stranger, theirs = carol.connect(), bob.connect()
    theirs.message(alice.connect().store(bob.id)["id"])
    stranger.round_trip()
    stranger.assert_silent(0.2)
    assert carol.connect().hello["head"] == 0


def test_unknown_members_are_ignored(alice: Person, bob: Person) -> None:
    accepted = alice.connect().store(bob.id, colour="blue", nested={"deep": [1, 2.5, None, True]})
    assert bob.connect().drain()[0].keys().isdisjoint({"colour", "nested"})
    assert accepted["duplicate"] is False


def test_a_server_that_is_asked_twice_for_the_same_id_stays_one_message(
    alice: Person, bob: Person
) -> None:
    ours, theirs, message_id = alice.connect(), bob.connect(), new_id()
    content = new_content()
    for _ in range(3):
        ours.send(bob.id, content, message_id=message_id)
    answers = [ours.accepted(message_id) for _ in range(3)]
    assert [answer["duplicate"] for answer in answers] == [False, True, True]
    assert len({(answer["seq"], answer["created_at"]) for answer in answers}) == 1
    theirs.message(message_id)
    assert theirs.message(ours.store(bob.id)["id"])["seq"] == 2
