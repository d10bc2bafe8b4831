"""Cursors: where a connection starts (docs/protocol.md 2, 3 `hello`, 4.1)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.acceptance.client import SocketClient
from tests.acceptance.people import Person
from tests.acceptance.rest import HANDSHAKE, raw_get, segment

MALFORMED_CURSORS = [
    "x",
    ":",
    "5",
    ":5",
    "0123456789abcdef",
    "0123456789abcdef:",
    "0123456789abcdef:-1",
    "0123456789abcdef:+1",
    "0123456789abcdef:1.0",
    "0123456789abcdef:1e3",
    "0123456789abcdef:one",
    "0123456789abcdef: 1",
    "0123456789abcdef:1:1",
    "0123456789abcdef:1\n",
    "0123456789abcde:1",
    "0123456789abcdef0:1",
    "0123456789abcdeg:1",
    "0123456789abcdef:\u0661",
    "\x00",
]


def fill(sender: Person, recipient: Person, count: int) -> list[str]:
    """Store so many messages while the recipient is away; their ids."""
    with_socket = sender.connect()
    ids = [with_socket.send(recipient.id) for _ in range(count)]
    for message_id in ids:
        with_socket.accepted(message_id)
    return ids


def epoch_of(person: Person) -> str:
    """The epoch of somebody's mailbox, as their hello says it."""
    client = person.connect()
    client.close()
    return str(client.hello["epoch"])


def assert_tells_a_reset(client: SocketClient, head: int) -> None:
    """The connection said `reset` and goes on, without a hole, from the `after` it named."""
    assert client.hello["reset"] is True
    assert client.hello["head"] == head
    after = client.hello["after"]
    assert [frame["seq"] for frame in client.drain()] == list(range(after + 1, head + 1))


def test_a_cursor_resumes_right_after_it(alice: Person, bob: Person) -> None:
    ids = fill(alice, bob, 6)
    theirs = bob.connect(f"{epoch_of(bob)}:4")
    assert (theirs.hello["after"], theirs.hello["reset"]) == (4, False)
    assert [frame["id"] for frame in theirs.drain()] == ids[4:]


def test_a_cursor_at_the_head_gets_only_what_is_new(alice: Person, bob: Person) -> None:
    fill(alice, bob, 3)
    theirs = bob.connect(f"{epoch_of(bob)}:3")
    assert (theirs.hello["after"], theirs.hello["reset"]) == (3, False)
    assert theirs.expect("caught_up")["head"] == 3
    assert theirs.message(alice.connect().store(bob.id)["id"])["seq"] == 4


def test_a_cursor_at_zero_reads_the_mailbox_again_even_after_acks(
    alice: Person, bob: Person
) -> None:
    ids = fill(alice, bob, 3)
    theirs = bob.connect()
    theirs.drain()
    theirs.close()
    again = bob.connect(f"{theirs.hello['epoch']}:0")
    assert (again.hello["after"], again.hello["reset"]) == (0, False)
    assert [frame["id"] for frame in again.drain()] == ids


def test_a_dropped_connection_resumes_without_loss(alice: Person, bob: Person) -> None:
    ours, cursor, received = alice.connect(), None, []
    sent = []
    for _ in range(5):
        theirs = bob.connect(cursor)
        sent += [ours.send(bob.id) for _ in range(7)]
        # Some of them arrive, the rest is on its way when the network goes.
        received += [frame["id"] for frame in theirs.entries(3)]
        cursor = theirs.cursor
        received += [frame["id"] for frame in theirs.seen if frame["type"] == "message"][3:]
        theirs.abandon()
    stored = [ours.accepted(message_id)["id"] for message_id in sent]
    received += [frame["id"] for frame in bob.connect(cursor).drain()]
    assert list(dict.fromkeys(received)) == stored


def test_a_cursor_of_another_epoch_is_told_a_reset(alice: Person, bob: Person) -> None:
    fill(alice, bob, 3)
    epoch = epoch_of(bob)
    other = ("0" if epoch[0] != "0" else "1") + epoch[1:]
    theirs = bob.connect(f"{other}:2")
    assert theirs.hello["epoch"] == epoch
    assert_tells_a_reset(theirs, head=3)


def test_a_cursor_ahead_of_the_head_is_told_a_reset(alice: Person, bob: Person) -> None:
    fill(alice, bob, 3)
    assert_tells_a_reset(bob.connect(f"{epoch_of(bob)}:4"), head=3)


def test_a_cursor_far_ahead_is_told_a_reset(alice: Person, bob: Person) -> None:
    fill(alice, bob, 2)
    assert_tells_a_reset(bob.connect(f"{epoch_of(bob)}:9007199254740991"), head=2)


def test_another_persons_cursor_is_told_a_reset(alice: Person, bob: Person) -> None:
    fill(alice, bob, 2)
    assert_tells_a_reset(bob.connect(f"{epoch_of(alice)}:1"), head=2)


def test_no_cursor_starts_after_the_last_ack(alice: Person, bob: Person) -> None:
    ids = fill(alice, bob, 5)
    ours, theirs = alice.connect(), bob.connect()
    theirs.entries(5)
    theirs.ack(3)
    ours.receipts("delivered", ids[:3])  # the ack is on disk now
    theirs.abandon()
    again = bob.connect()
    assert (again.hello["after"], again.hello["reset"]) == (3, False)
    assert [frame["id"] for frame in again.drain()] == ids[3:]


def test_no_cursor_starts_after_the_furthest_ack_of_any_connection(
    alice: Person, bob: Person
) -> None:
    ids = fill(alice, bob, 5)
    ours, phone, laptop = alice.connect(), bob.connect(), bob.connect()
    phone.entries(5)
    laptop.entries(5)
    phone.ack(4)
    ours.receipts("delivered", ids[:4])
    laptop.ack(2)
    laptop.round_trip()
    assert bob.connect().hello["after"] == 4


def test_no_cursor_and_no_ack_starts_at_the_beginning(alice: Person, bob: Person) -> None:
    ids = fill(alice, bob, 3)
    for _ in range(2):
        theirs = bob.connect()
        assert theirs.hello["after"] == 0
        assert [frame["id"] for frame in theirs.entries(3)] == ids
        theirs.abandon()


def test_a_cursor_gives_back_what_was_sent_from_here_before(alice: Person, bob: Person) -> None:
    ids = fill(alice, bob, 3)
    copies = alice.connect(f"{epoch_of(alice)}:0").drain()
    assert [(frame["id"], frame["sender"]) for frame in copies] == [(i, alice.id) for i in ids]


def test_a_client_without_cursor_does_not_get_its_own_messages_back(
    alice: Person, bob: Person
) -> None:
    fill(alice, bob, 3)
    again = alice.connect()
    assert (again.hello["head"], again.hello["after"]) == (3, 3)
    assert again.drain() == []


@pytest.mark.parametrize("cursor", MALFORMED_CURSORS, ids=lambda cursor: ascii(cursor)[:30])
def test_a_malformed_cursor_is_refused_before_the_upgrade(alice: Person, cursor: str) -> None:
    bearer = ("Authorization", f"Bearer {alice.token()}")
    target = f"/api/ws?cursor={segment(cursor)}"
    answer = raw_get(alice.server.url, target, [*HANDSHAKE, bearer])
    assert answer.status == 400, answer
    assert (answer.code, answer.after) == ("bad_request", b"")


@pytest.mark.parametrize(
    "seq", [2**63 - 1, 2**63, 2**64, 10**3000], ids=["2^63-1", "2^63", "2^64", "10^3000"]
)
def test_an_absurd_position_is_malformed_or_ahead_but_no_fault(alice: Person, seq: int) -> None:
    bearer = ("Authorization", f"Bearer {alice.token()}")
    target = f"/api/ws?cursor={epoch_of(alice)}:{seq}"
    answer = raw_get(alice.server.url, target, [*HANDSHAKE, bearer])
    assert answer.status in (101, 400), answer


def test_positions_never_go_back_over_reconnects(alice: Person, bob: Person) -> None:
    ours, heads = alice.connect(), []
    for _ in range(4):
        ours.store(bob.id)
        heads.append(bob.connect().hello["head"])
    assert all(before < after for before, after in pairwise(heads))
