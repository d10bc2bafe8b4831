"""SQLite has no room: nothing is acknowledged, what is there can be read, and sockets stay open.

docs/protocol.md 6 `unavailable`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.acceptance.conftest import Hosting
from tests.acceptance.outbox import read_all
from tests.acceptance.people import Person
from tests.acceptance.refusals import accepted_within, refused, status_of_post
from tests.acceptance.rest import RestClient
from tests.acceptance.sqlite_host import SQLITE_HOST
from tests.acceptance.wire import new_id
from tests.servers import GunicornServer

RECOVERY_SECONDS = 2.0
NO_MORE, UNLIMITED = 1, 1_000_000  # pages; below what there is, it means what there is
LONG = "A" * 40_000  # has to have pages of its own


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[GunicornServer]:
    env = hosting.environment("sqlite")
    with GunicornServer(SQLITE_HOST, env=env, log_path=hosting.log_path()) as running:
        yield running


@contextmanager
def full_disk(server: GunicornServer) -> Iterator[None]:
    """The database cannot grow inside the block."""
    call = RestClient(server.url)
    call.post("/pragmas", {"max_page_count": NO_MORE})
    try:
        yield
    finally:
        call.post("/pragmas", {"max_page_count": UNLIMITED})


def test_nothing_is_accepted_that_has_no_room_and_what_is_stored_can_be_read(
    server: GunicornServer, alice: Person, bob: Person
) -> None:
    here, there = alice.connect(), bob.connect()
    kept = here.store(bob.id, LONG)
    with full_disk(server):
        ids = [refused(here, bob.id, LONG) for _ in range(5)]
        body = {"id": new_id(), "to": bob.id, "encrypted_content": LONG}
        assert status_of_post(alice, body) == 503
        shown = {one["id"] for one in bob.rest.get(f"/api/messages/{alice.id}").json["messages"]}
        assert shown == {kept["id"]}
        there.expect("message", id=kept["id"])
        assert [frame["id"] for frame in read_all(bob)] == [kept["id"]]
    retried = accepted_within(RECOVERY_SECONDS, here, bob.id, ids[0], LONG)
    assert retried["duplicate"] is False
    there.expect("message", id=ids[0])
    assert [frame["id"] for frame in read_all(bob)] == [kept["id"], ids[0]]
