"""A database that takes no writes for a while: nothing is acknowledged, what is there can be read.

docs/protocol.md 6 `unavailable`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

from tests.acceptance.conftest import Hosting
from tests.acceptance.people import Person
from tests.acceptance.refusals import accepted_within, refused, status_of_post
from tests.acceptance.wire import new_content, new_id
from tests.servers import GunicornServer

RECOVERY_SECONDS = 2.0


@pytest.fixture(scope="module")
def environment(hosting: Hosting) -> dict[str, str]:
    return hosting.environment("postgresql")


@pytest.fixture(scope="module")
def server(environment: dict[str, str], hosting: Hosting) -> Iterator[GunicornServer]:
    with GunicornServer(env=environment, log_path=hosting.log_path()) as running:
        yield running


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """Every transaction on the database is read-only inside the block, on old connections too."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("SET default_transaction_read_only = off")
        name = sql.Identifier(admin.info.dbname)
        _set(admin, sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on"), name)
        try:
            yield
        finally:
            _set(admin, sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only"), name)


def _set(admin: psycopg.Connection, statement: sql.SQL, name: sql.Identifier) -> None:
    admin.execute(statement.format(name))
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def test_nothing_is_accepted_that_is_not_stored_and_what_is_stored_can_be_read(
    environment: dict[str, str], alice: Person, bob: Person
) -> None:
    here, there = alice.connect(), bob.connect()
    kept = here.store(bob.id)
    url = environment["DATABASE_URL"].replace("postgresql+psycopg", "postgresql")
    with read_only(url):
        ids = [refused(here, bob.id) for _ in range(5)]
        body = {"id": new_id(), "to": bob.id, "encrypted_content": new_content()}
        assert status_of_post(alice, body) == 503
        shown = bob.rest.get(f"/api/messages/{alice.id}").json["messages"]
        assert kept["id"] in {message["id"] for message in shown}
        assert not {message["id"] for message in shown} & {*ids, body["id"]}
        there.expect("message", id=kept["id"])
    retried = accepted_within(RECOVERY_SECONDS, here, bob.id, ids[0])
    assert retried["duplicate"] is False
    there.expect("message", id=ids[0])
