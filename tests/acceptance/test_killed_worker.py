"""kill -9 between and during sends: what was accepted is there, what was not is retried once.

docs/protocol.md 3 `accepted` ("never sent before") and 4.6.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import DATABASES, Hosting
from tests.acceptance.outbox import Outbox, assert_all_arrived_once, read_all
from tests.acceptance.people import People, Person
from tests.acceptance.wire import Frame, new_content
from tests.servers import GunicornServer

KILLS = 4


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, hosting: Hosting) -> Iterator[GunicornServer]:
    with hosting.gunicorn(request.param) as running:
        yield running


@pytest.fixture
def people(server: GunicornServer, _quiet_log: None) -> Iterator[People]:
    with People(server) as crowd:
        yield crowd
        crowd.abandon_the_lost()


def test_a_message_is_there_when_the_worker_dies_right_after_accepted(
    server: GunicornServer, alice: Person, bob: Person
) -> None:
    stored: list[Frame] = []
    for _ in range(KILLS):
        stored.append(alice.reconnect().store(bob.id))
        server.kill_worker()
    mailbox = read_all(bob)
    assert [frame["id"] for frame in mailbox] == [accepted["id"] for accepted in stored]
    assert [frame["created_at"] for frame in mailbox] == [one["created_at"] for one in stored]


def test_what_was_not_accepted_is_retried_and_arrives_once(
    server: GunicornServer, alice: Person, bob: Person
) -> None:
    outbox = Outbox(alice, bob)
    for _ in range(KILLS):
        outbox.send_during(server.kill_worker)
    assert_all_arrived_once(outbox, read_all(bob))


def test_a_send_that_was_stored_but_not_answered_is_a_duplicate_at_the_retry(
    server: GunicornServer, alice: Person, bob: Person
) -> None:
    client, content = alice.reconnect(), new_content()
    theirs = bob.reconnect()
    message_id = client.send(bob.id, content)
    pushed = theirs.message(message_id)  # pushed, so committed; the answer is not looked at
    server.kill_worker()
    again = alice.reconnect()
    retried = again.accepted(again.send(bob.id, content, message_id=message_id))
    assert (retried["duplicate"], retried["created_at"]) == (True, pushed["created_at"])
    assert [frame["id"] for frame in read_all(bob)] == [message_id]


def test_a_recipient_resumes_after_the_kill_without_loss_and_without_holes(
    server: GunicornServer, alice: Person, bob: Person
) -> None:
    outbox, theirs = Outbox(alice, bob), bob.connect()
    received: dict[int, str] = {}

    def receive(count: int) -> None:
        for frame in theirs.entries(count):
            assert received.setdefault(frame["seq"], frame["id"]) == frame["id"]

    for _ in range(KILLS):
        outbox.send(20)
        receive(10)
        theirs.ack()
        server.kill_worker()
        outbox.settle()
        theirs = bob.reconnect(theirs.cursor)
        assert theirs.hello["reset"] is False
        receive(len(outbox.contents) - theirs.hello["after"])
    assert list(received.values()) == list(outbox.contents)
    assert list(received) == list(range(1, len(received) + 1))


def test_epoch_and_acks_outlive_the_worker(
    server: GunicornServer, alice: Person, bob: Person
) -> None:
    ours, theirs = alice.connect(), bob.connect()
    sent = [str(ours.store(bob.id)["id"]) for _ in range(3)]
    theirs.entries(3)
    theirs.ack(2)
    ours.receipts("delivered", sent[:2])
    server.kill_worker()
    again = bob.reconnect()
    assert (again.hello["epoch"], again.hello["after"]) == (theirs.hello["epoch"], 2)
