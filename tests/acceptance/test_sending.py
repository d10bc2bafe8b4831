"""`send` and `send_many`: idempotency, conflicts, all or none (docs/protocol.md 3)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance.client import SocketClient
from tests.acceptance.people import People, Person
from tests.acceptance.wire import Frame, new_content, new_id


def batch_to(*recipients: Person) -> list[dict[str, Any]]:
    """One message for each, ready for `send_many`."""
    return [
        {"id": new_id(), "to": person.id, "encrypted_content": new_content()}
        for person in recipients
    ]


def send_many(client: SocketClient, messages: list[dict[str, Any]], **members: Any) -> str:
    """Send the batch without waiting; its `ref`."""
    ref = new_id()
    client.send_frame({"type": "send_many", "ref": ref, "messages": messages, **members})
    return ref


def assert_error_names(error: Frame, ref: str, message_id: str) -> None:
    """The error belongs to the batch and tells which of its messages is to blame."""
    assert error["ref"] in (ref, message_id), error
    assert message_id in (error["ref"], error.get("id")) or message_id in error["message"], error


def assert_empty(*people: Person) -> None:
    """Nothing has ever been stored in these mailboxes."""
    assert [person.connect().hello["head"] for person in people] == [0] * len(people)


def test_a_resend_gets_the_same_answer_and_stores_nothing(alice: Person, bob: Person) -> None:
    ours, content = alice.connect(), new_content()
    first = ours.store(bob.id, content)
    again = ours.accepted(ours.send(bob.id, content, message_id=first["id"]))
    assert again == {**first, "duplicate": True}
    assert [frame["id"] for frame in bob.connect().drain()] == [first["id"]]


def test_a_resend_over_another_connection_gets_the_same_answer(alice: Person, bob: Person) -> None:
    content = new_content()
    ours = alice.connect()
    first = ours.store(bob.id, content)
    ours.abandon()
    again = alice.connect()
    assert again.accepted(again.send(bob.id, content, message_id=first["id"])) == {
        **first,
        "duplicate": True,
    }
    assert bob.connect().hello["head"] == 1


def test_a_resend_long_after_delivery_and_reading_is_still_a_duplicate(
    alice: Person, bob: Person
) -> None:
    ours, theirs, content = alice.connect(), bob.connect(), new_content()
    first = ours.store(bob.id, content)
    theirs.message(first["id"])
    theirs.ack()
    theirs.send_frame({"type": "read", "ids": [first["id"]]})
    ours.receipts("read", [first["id"]])
    again = ours.accepted(ours.send(bob.id, content, message_id=first["id"]))
    assert again == {**first, "duplicate": True}


def test_the_same_send_over_two_connections_at_once_is_one_message(
    alice: Person, bob: Person
) -> None:
    clients = [alice.connect(), alice.connect()]
    content, ids = new_content(), [new_id() for _ in range(20)]

    def send_all(client: SocketClient) -> list[Frame]:
        for message_id in ids:
            client.send(bob.id, content, message_id=message_id)
        return [client.accepted(message_id) for message_id in ids]

    with ThreadPoolExecutor(2) as pool:
        here, there = pool.map(send_all, clients)
    for one, other in zip(here, there, strict=True):
        assert sorted([one["duplicate"], other["duplicate"]]) == [False, True]
        assert (one["seq"], one["created_at"]) == (other["seq"], other["created_at"])
    received = bob.connect().drain()
    assert sorted(frame["id"] for frame in received) == sorted(ids)


def test_one_id_for_other_content_is_an_id_conflict(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    first = ours.store(bob.id)
    ours.send(bob.id, new_content(), message_id=first["id"])
    assert ours.error("id_conflict")["ref"] == first["id"]
    follower = ours.store(bob.id)["id"]
    assert [theirs.message()["id"], theirs.message()["id"]] == [first["id"], follower]


def test_one_id_for_another_recipient_is_an_id_conflict(
    alice: Person, bob: Person, carol: Person
) -> None:
    ours, content = alice.connect(), new_content()
    first = ours.store(bob.id, content)
    ours.send(carol.id, content, message_id=first["id"])
    assert ours.error("id_conflict")["ref"] == first["id"]
    assert_empty(carol)


def test_the_id_of_another_sender_is_an_id_conflict(
    alice: Person, bob: Person, carol: Person
) -> None:
    content = new_content()
    first = alice.connect().store(bob.id, content)
    thief = carol.connect()
    thief.send(bob.id, content, message_id=first["id"])
    assert thief.error("id_conflict")["ref"] == first["id"]
    assert [frame["sender"] for frame in bob.connect().drain()] == [alice.id]


def test_an_id_of_a_refused_send_can_be_used_again(people: People, alice: Person) -> None:
    ours, late, content = alice.connect(), people.new("late"), new_content()
    message_id = ours.send(late.id, content)
    ours.error("unknown_recipient", ref=message_id)
    late.enrol()
    ours.send(late.id, content, message_id=message_id)
    assert ours.accepted(message_id)["duplicate"] is False


def test_a_conflict_in_a_pipelined_burst_hurts_only_itself(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    first = ours.store(bob.id)
    before = [ours.send(bob.id) for _ in range(10)]
    ours.send(bob.id, message_id=first["id"])
    after = [ours.send(bob.id) for _ in range(10)]
    ours.error("id_conflict", ref=first["id"])
    assert [ours.accepted(one)["duplicate"] for one in before + after] == [False] * 20
    assert [frame["id"] for frame in bob.connect().drain()] == [first["id"], *before, *after]


def test_send_many_reaches_everybody_with_one_answer(
    alice: Person, bob: Person, carol: Person
) -> None:
    ours, messages = alice.connect(), batch_to(bob, carol, bob)
    theirs = bob.connect()
    ref = send_many(ours, messages, conversation_id="group")
    accepted = ours.expect("accepted", ref=ref)
    assert accepted["ids"] == [message["id"] for message in messages]
    assert accepted["duplicate"] is False
    received = [theirs.message(), theirs.message()]
    assert [frame["id"] for frame in received] == [messages[0]["id"], messages[2]["id"]]
    for frame in [*received, *carol.connect().drain()]:
        assert (frame["conversation_id"], frame["sender"]) == ("group", alice.id)
        assert frame["created_at"] == accepted["created_at"]


def test_send_many_makes_no_sent_entries(alice: Person, bob: Person, carol: Person) -> None:
    ours, other = alice.connect(), alice.connect()
    ref = send_many(ours, batch_to(bob, carol))
    ours.expect("accepted", ref=ref)
    # The first position of the mailbox is still free for the next entry.
    bob.connect().store(alice.id)
    assert (other.message()["seq"], ours.message()["seq"]) == (1, 1)


def test_send_many_to_oneself_reaches_every_own_connection(alice: Person, bob: Person) -> None:
    here, there = alice.connect(), alice.connect()
    messages = batch_to(bob, alice)
    here.expect("accepted", ref=send_many(here, messages))
    copy = here.message(messages[1]["id"])
    assert copy == there.message(messages[1]["id"])
    assert (copy["seq"], copy["sender"], copy["recipient"]) == (1, alice.id, alice.id)


def test_send_many_again_is_a_duplicate(alice: Person, bob: Person, carol: Person) -> None:
    ours, messages = alice.connect(), batch_to(bob, carol)
    first = ours.expect("accepted", ref=send_many(ours, messages))
    again = ours.expect("accepted", ref=send_many(ours, messages))
    assert again == {**first, "ref": again["ref"], "duplicate": True}
    assert bob.connect().hello["head"] == 1


def test_a_message_of_a_batch_sent_alone_is_a_duplicate(alice: Person, bob: Person) -> None:
    ours, messages = alice.connect(), batch_to(bob)
    first = ours.expect("accepted", ref=send_many(ours, messages))
    ours.send(bob.id, messages[0]["encrypted_content"], message_id=messages[0]["id"])
    again = ours.accepted(messages[0]["id"])
    assert (again["duplicate"], again["created_at"]) == (True, first["created_at"])
    assert bob.connect().hello["head"] == 1


def test_send_many_with_an_unknown_recipient_stores_nothing(
    people: People, alice: Person, bob: Person, carol: Person
) -> None:
    ours = alice.connect()
    messages = batch_to(bob, people.new("nobody"), carol)
    ref = send_many(ours, messages)
    assert_error_names(ours.error("unknown_recipient"), ref, messages[1]["id"])
    assert_empty(bob, carol)


def test_send_many_with_a_conflict_stores_nothing(
    alice: Person, bob: Person, carol: Person
) -> None:
    ours = alice.connect()
    used = ours.store(bob.id)["id"]
    messages = batch_to(carol, bob, carol)
    messages[1]["id"] = used
    ref = send_many(ours, messages)
    assert_error_names(ours.error("id_conflict"), ref, used)
    assert_empty(carol)


def test_send_many_with_a_malformed_message_stores_nothing(
    alice: Person, bob: Person, carol: Person
) -> None:
    ours, messages = alice.connect(), batch_to(bob, carol)
    messages[1]["encrypted_content"] = "not base64!"
    send_many(ours, messages)
    ours.error("bad_request")
    assert_empty(bob, carol)


def test_send_many_with_one_id_twice_stores_nothing(
    alice: Person, bob: Person, carol: Person
) -> None:
    ours, messages = alice.connect(), batch_to(bob, carol)
    messages[1]["id"] = messages[0]["id"]
    send_many(ours, messages)
    assert ours.expect("error")["code"] in ("bad_request", "id_conflict")
    assert_empty(bob, carol)


@pytest.mark.parametrize("count", [1, 256])
def test_send_many_takes_up_to_256_messages(alice: Person, bob: Person, count: int) -> None:
    ours, messages = alice.connect(), batch_to(*[bob] * count)
    accepted = ours.expect("accepted", ref=send_many(ours, messages))
    assert accepted["ids"] == [message["id"] for message in messages]
    assert [frame["id"] for frame in bob.connect().drain()] == accepted["ids"]


@pytest.mark.parametrize("count", [0, 257])
def test_send_many_refuses_none_and_more_than_256(alice: Person, bob: Person, count: int) -> None:
    ours = alice.connect()
    ref = send_many(ours, batch_to(*[bob] * count))
    assert ours.error("bad_request")["ref"] == ref
    assert_empty(bob)


@pytest.mark.parametrize("expires_in", [0, -1, 1.5, True, "60", 10**30, [60]], ids=str)
def test_an_expires_in_that_is_no_number_of_seconds_is_refused(
    alice: Person, bob: Person, expires_in: object
) -> None:
    ours = alice.connect()
    message_id = ours.send(bob.id, expires_in=expires_in)
    assert ours.error("bad_request")["ref"] == message_id
    assert_empty(bob)


def test_null_stands_for_an_absent_optional_member(alice: Person, bob: Person) -> None:
    alice.connect().store(bob.id, conversation_id=None, expires_in=None)
    received = bob.connect().drain()[0]
    assert (received["conversation_id"], received["expires_at"]) == (None, None)
