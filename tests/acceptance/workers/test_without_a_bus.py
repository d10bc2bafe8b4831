"""Several workers that cannot wake each other, as on SQLite: all of it arrives, only later."""

from __future__ import annotations

import pytest

from flask_e2emsg.store.leases import RENEW_SECONDS
from tests.acceptance.conftest import DATABASES, Hosting
from tests.acceptance.people import People, Person
from tests.servers import GunicornServer, wait_until

SWEEP_SECONDS = 0.5
MANY = 50
ADVICE = "Set E2EMSG_BUS_URL to the address of a Redis"


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest, hosting: Hosting) -> dict[str, str]:
    return hosting.environment(
        request.param, E2EMSG_BUS_URL="local", E2EMSG_SWEEP_SECONDS=SWEEP_SECONDS
    )


def test_messages_and_receipts_come_with_the_sweep_in_order_and_none_is_missing(
    alice: Person, bob: Person, elsewhere: People
) -> None:
    here, there = alice.connect(), elsewhere.named(bob.id).connect()
    ids = [here.send(bob.id) for _ in range(MANY)]
    for message_id in ids:
        here.accepted(message_id)
    for message_id in ids:
        there.expect("message", id=message_id, seconds=SWEEP_SECONDS + 2)
    there.ack()
    told: list[str] = []
    while len(told) < MANY:
        told += here.expect("receipt", kind="delivered", seconds=SWEEP_SECONDS + 2)["ids"]
    assert sorted(told) == sorted(ids)


def test_the_log_says_what_to_install(
    server: GunicornServer, alice: Person, bob: Person, elsewhere: People
) -> None:
    alice.connect()
    elsewhere.named(bob.id).connect()
    wait_until(lambda: ADVICE in server.log(), 2 * RENEW_SECONDS + 5, lambda: "no advice")
