"""Acks, the window of max_in_flight, and receipts (docs/protocol.md 3 `ack`, `read`, 4.2, 4.4)."""

from __future__ import annotations

import pytest

from tests.acceptance.client import SocketClient
from tests.acceptance.people import Person
from tests.acceptance.rest import segment
from tests.acceptance.wire import new_id


def received(client: SocketClient, count: int) -> list[str]:
    """The ids of the next so many entries, all of them messages."""
    return [str(frame["id"]) for frame in client.entries(count)]


def read(client: SocketClient, *ids: str) -> None:
    client.send_frame({"type": "read", "ids": list(ids)})


def test_an_ack_gives_the_sender_a_delivered_receipt(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    accepted = ours.store(bob.id)
    theirs.message()
    theirs.ack()
    (receipt,) = ours.receipts("delivered", [accepted["id"]])
    assert (receipt["by"], receipt["seq"]) == (bob.id, accepted["seq"] + 1)
    assert receipt["at"] >= accepted["created_at"]


def test_an_ack_is_cumulative(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    sent = [ours.send(bob.id) for _ in range(20)]
    theirs.entries(20)
    theirs.ack(20)
    ours.receipts("delivered", sent)


def test_an_ack_of_a_part_delivers_only_that_part(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    sent = [ours.send(bob.id) for _ in range(4)]
    theirs.entries(4)
    theirs.ack(2)
    ours.receipts("delivered", sent[:2])
    theirs.ack(4)
    ours.receipts("delivered", sent[2:])


def test_receipts_reach_every_connection_of_the_sender_alike(alice: Person, bob: Person) -> None:
    here, there, theirs = alice.connect(), alice.connect(), bob.connect()
    sent = [here.store(bob.id)["id"] for _ in range(3)]
    theirs.entries(3)
    theirs.ack()
    assert here.receipts("delivered", sent) == there.receipts("delivered", sent)


def test_each_sender_gets_receipts_of_its_own_messages_only(
    alice: Person, bob: Person, carol: Person
) -> None:
    ours, hers, theirs = alice.connect(), carol.connect(), bob.connect()
    mine = [ours.store(bob.id)["id"] for _ in range(2)]
    other = [hers.store(bob.id)["id"] for _ in range(2)]
    theirs.entries(4)
    theirs.ack()
    ours.receipts("delivered", mine)
    hers.receipts("delivered", other)


def test_a_receipt_waits_for_a_sender_who_is_away(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    stored = ours.store(bob.id)
    ours.close()
    theirs = bob.connect()
    theirs.message()
    theirs.ack()
    again = alice.reconnect(f"{ours.hello['epoch']}:{stored['seq']}")
    again.receipts("delivered", [stored["id"]])


def test_a_second_ack_by_another_connection_makes_no_second_receipt(
    alice: Person, bob: Person
) -> None:
    ours, phone, laptop = alice.connect(), bob.connect(), bob.connect()
    first = ours.store(bob.id)["id"]
    for client in (phone, laptop):
        client.message(first)
    phone.ack()
    ours.receipts("delivered", [first])
    laptop.ack()
    laptop.round_trip()
    second = ours.store(bob.id)["id"]
    laptop.message(second)
    laptop.ack()
    ours.receipts("delivered", [second])  # fails if it names the first one again


def test_an_ack_below_an_earlier_one_is_ignored(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    sent = [ours.send(bob.id) for _ in range(3)]
    theirs.entries(3)
    for seq in (3, 1, 0, 3):
        theirs.ack(seq)
    ours.receipts("delivered", sent)
    theirs.round_trip()


@pytest.mark.parametrize("beyond", [1, 2**31, 2**53 - 1])
def test_an_ack_beyond_what_was_sent_here_is_a_bad_request(
    alice: Person, bob: Person, beyond: int
) -> None:
    ours, theirs = alice.connect(), bob.connect()
    first = ours.store(bob.id)["id"]
    theirs.message(first)
    theirs.send_frame({"type": "ack", "seq": 1 + beyond})
    assert theirs.error("bad_request")["ref"] is None
    # Neither delivered nor skipped: the connection goes on as if the ack had never come.
    second = ours.store(bob.id)["id"]
    theirs.message(second)
    theirs.ack(1)
    ours.receipts("delivered", [first])


def test_an_ack_in_an_empty_mailbox_is_a_bad_request(alice: Person) -> None:
    client = alice.connect()
    client.send_frame({"type": "ack", "seq": 1})
    client.error("bad_request")
    client.send_frame({"type": "ack", "seq": 0})
    client.round_trip()


def test_an_own_send_can_be_acknowledged_as_soon_as_it_is_accepted(
    alice: Person, bob: Person
) -> None:
    ours = alice.connect()
    for _ in range(50):
        ours.store(bob.id)
        ours.ack()
    ours.round_trip()
    assert ours.position == 50


def test_own_sends_between_pushed_entries_can_be_acknowledged(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    for _ in range(10):
        ours.store(bob.id)
        theirs.message()
        theirs.store(alice.id)
        ours.message()
        ours.ack()
        theirs.ack()
    for client in (ours, theirs):
        client.round_trip()


def test_an_acknowledged_mailbox_stays_readable_by_history(alice: Person, bob: Person) -> None:
    theirs = bob.connect()
    message_id = alice.connect().store(bob.id)["id"]
    theirs.message()
    theirs.ack()
    page = bob.rest.get(f"/api/messages/{segment(alice.id)}").json
    assert [message["id"] for message in page["messages"]] == [message_id]


def test_a_read_gives_the_sender_a_read_receipt(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    sent = [ours.store(bob.id)["id"] for _ in range(3)]
    received(theirs, 3)
    theirs.ack()
    ours.receipts("delivered", sent)
    read(theirs, *sent[:2])
    for receipt in ours.receipts("read", sent[:2]):
        assert receipt["by"] == bob.id


def test_reading_again_makes_no_second_receipt(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    first, second = ours.store(bob.id)["id"], ours.store(bob.id)["id"]
    received(theirs, 2)
    theirs.ack()
    read(theirs, first)
    ours.receipts("read", [first])
    read(theirs, first, first, second)
    ours.receipts("read", [second])  # fails if it names the first one again


def test_reading_what_is_not_ones_own_is_skipped(alice: Person, bob: Person, carol: Person) -> None:
    ours, theirs, nosy = alice.connect(), bob.connect(), carol.connect()
    foreign = ours.store(bob.id)["id"]
    mine = ours.store(carol.id)["id"]
    received(nosy, 1)
    nosy.ack()
    ours.receipts("delivered", [mine])
    read(nosy, foreign, new_id(), mine)
    (receipt,) = ours.receipts("read", [mine])
    assert receipt["by"] == carol.id
    theirs.round_trip()
    nosy.round_trip()


def test_the_sender_cannot_read_for_the_recipient(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    message_id = ours.store(bob.id)["id"]
    received(theirs, 1)
    theirs.ack()
    ours.receipts("delivered", [message_id])
    read(ours, message_id)
    ours.round_trip()
    page = bob.rest.get(f"/api/messages/{segment(alice.id)}").json
    assert page["messages"][0]["read_at"] is None


def test_read_takes_500_ids(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    mine = ours.store(bob.id)["id"]
    received(theirs, 1)
    theirs.ack()
    ours.receipts("delivered", [mine])
    read(theirs, *(new_id() for _ in range(499)), mine)
    ours.receipts("read", [mine])


@pytest.mark.parametrize("count", [0, 501])
def test_read_refuses_none_and_more_than_500_ids(alice: Person, count: int) -> None:
    client = alice.connect()
    read(client, *(new_id() for _ in range(count)))
    client.error("bad_request")
    client.round_trip()


def test_delivered_comes_before_read(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    message_id = ours.store(bob.id)["id"]
    received(theirs, 1)
    theirs.ack()
    read(theirs, message_id)
    delivered, was_read = ours.entries(2)
    assert (delivered["kind"], was_read["kind"]) == ("delivered", "read")
    assert delivered["at"] <= was_read["at"]
