"""A server with a small E2EMSG_MAX_IN_FLIGHT: who does not ack, waits (docs/protocol.md 4.2)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import DATABASES, Hosting
from tests.acceptance.people import Person
from tests.acceptance.wire import new_content
from tests.servers import WebServer

WINDOW = 4
QUIET_SECONDS = 0.3


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, hosting: Hosting) -> Iterator[WebServer]:
    with hosting.gunicorn(request.param, E2EMSG_MAX_IN_FLIGHT=WINDOW) as running:
        yield running


def test_hello_names_the_window(alice: Person) -> None:
    assert alice.connect().hello["max_in_flight"] == WINDOW


def test_a_backlog_stops_at_the_window_until_the_ack(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    stored = [ours.store(bob.id)["id"] for _ in range(10)]
    theirs = bob.connect()
    assert [frame["id"] for frame in theirs.entries(WINDOW)] == stored[:4]
    theirs.assert_silent(QUIET_SECONDS, but=())  # not even caught_up: it is not
    theirs.ack(1)
    assert [frame["id"] for frame in theirs.entries(1)] == stored[4:5]
    theirs.assert_silent(QUIET_SECONDS, but=())
    theirs.ack(5)
    assert [frame["id"] for frame in theirs.entries(4)] == stored[5:9]
    theirs.ack(9)
    assert [frame["id"] for frame in theirs.entries(1)] == stored[9:]
    assert theirs.expect("caught_up")["head"] == 10


def test_live_delivery_stops_at_the_window_until_the_ack(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    theirs.expect("caught_up")
    stored = [ours.store(bob.id)["id"] for _ in range(7)]
    assert [frame["id"] for frame in theirs.entries(WINDOW)] == stored[:4]
    theirs.assert_silent(QUIET_SECONDS)
    theirs.ack()
    assert [frame["id"] for frame in theirs.entries(3)] == stored[4:]


def test_a_full_window_does_not_stop_the_clients_own_sends(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    for _ in range(WINDOW + 3):
        ours.store(bob.id)
    theirs.entries(WINDOW)
    for _ in range(3):
        theirs.store(alice.id)
    theirs.round_trip()
    theirs.assert_silent(QUIET_SECONDS)
    assert len(ours.entries(3)) == 3


def test_own_sends_do_not_fill_the_window(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    for _ in range(3 * WINDOW):
        ours.store(bob.id)
    theirs.store(alice.id)
    assert ours.message()["seq"] == 3 * WINDOW + 1


def test_the_window_is_each_connections_own(alice: Person, bob: Person) -> None:
    ours, phone, laptop = alice.connect(), bob.connect(), bob.connect()
    stored = [ours.store(bob.id)["id"] for _ in range(2 * WINDOW)]
    phone.entries(WINDOW)
    laptop.entries(WINDOW)
    phone.ack()
    assert [frame["id"] for frame in phone.entries(WINDOW)] == stored[WINDOW:]
    laptop.assert_silent(QUIET_SECONDS)


def test_an_ack_beyond_the_window_is_a_bad_request(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    for _ in range(WINDOW + 2):
        ours.store(bob.id)
    theirs = bob.connect()
    theirs.entries(WINDOW)
    theirs.send_frame({"type": "ack", "seq": WINDOW + 1})
    theirs.error("bad_request")


def test_a_long_backlog_drains_through_a_small_window(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    sent = [ours.send(bob.id) for _ in range(100)]
    for message_id in sent:
        ours.accepted(message_id)
    assert [frame["id"] for frame in bob.connect().drain()] == sent


@pytest.mark.parametrize("first_step", range(1, WINDOW + 1))
def test_a_slow_reader_misses_nothing_of_a_long_live_stream(
    alice: Person, bob: Person, first_step: int
) -> None:
    # More than a server would keep at hand for one connection, and whenever there is room again,
    # new messages arrive. The first step moves where the others meet the end of what it kept.
    ours, theirs = alice.connect(), bob.connect()
    theirs.expect("caught_up")
    content = new_content(4_000)
    received: list[str] = []
    sent = [ours.store(bob.id, content)["id"] for _ in range(100)]
    count = first_step
    while len(received) < len(sent):
        received += [frame["id"] for frame in theirs.entries(min(count, len(sent) - len(received)))]
        theirs.ack(len(received))
        if len(sent) < 140:
            sent.append(ours.store(bob.id, content)["id"])
        count = WINDOW
    assert received == sent
