"""PostgreSQL crashes and comes back: nothing that was accepted is lost (docs/protocol.md 4.6)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import Hosting
from tests.acceptance.outbox import Outbox, assert_all_arrived_once, read_all
from tests.acceptance.people import People, Person
from tests.servers import GunicornServer, PostgresServer

FIRST_ACK_SECONDS = 5.0  # after the database is ready again


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL of this module's own, to be crashed."""
    database = PostgresServer()
    if not database.is_ours:
        pytest.skip("TEST_DATABASE_URL names a server that is not ours to crash")
    yield database
    database.stop()


@pytest.fixture(scope="module")
def server(
    fragile: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GunicornServer]:
    hosting = Hosting(tmp_path_factory.mktemp("crash"), fragile)
    with hosting.gunicorn("postgresql") as running:
        yield running


@pytest.fixture
def people(server: GunicornServer, _quiet_log: None) -> Iterator[People]:
    with People(server) as crowd:
        yield crowd
        crowd.abandon_the_lost()


def test_what_was_accepted_is_there_after_a_crash_of_the_database(
    fragile: PostgresServer, alice: Person, bob: Person
) -> None:
    outbox = Outbox(alice, bob)
    for _ in range(3):
        outbox.send(10)
        outbox.settle()
        fragile.crash_and_restart()
    assert_all_arrived_once(outbox, read_all(bob))


def test_what_was_on_its_way_is_retried_and_arrives_once(
    fragile: PostgresServer, alice: Person, bob: Person
) -> None:
    outbox = Outbox(alice, bob)
    for _ in range(3):
        outbox.send_during(fragile.crash_and_restart)
        ready = time.monotonic()
        outbox.send(1)
        outbox.settle()
        assert time.monotonic() - ready < FIRST_ACK_SECONDS
    mailbox = read_all(bob)
    assert [frame["seq"] for frame in mailbox] == list(range(1, len(mailbox) + 1))
    arrived = {frame["id"]: frame["encrypted_content"] for frame in mailbox}
    assert arrived == outbox.contents


def test_a_recipient_that_stays_connected_gets_what_is_sent_after_the_crash(
    fragile: PostgresServer, alice: Person, bob: Person
) -> None:
    theirs, outbox = bob.connect(), Outbox(alice, bob)
    fragile.crash_and_restart()
    outbox.send(5)
    outbox.settle()
    assert [frame["id"] for frame in theirs.entries(5)] == list(outbox.contents)
