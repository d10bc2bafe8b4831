"""The way to the database is cut after it was told to store: was it stored? Nobody says so wrongly.

docs/protocol.md 4.6 and 6 `unavailable`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import Hosting
from tests.acceptance.outbox import read_all
from tests.acceptance.people import Person
from tests.acceptance.wire import to_base64url
from tests.proxies import ChaosProxy, by_port, dial_database, in_background
from tests.servers import GunicornServer

MARK = b"swallow my answer"
MESSAGES = 100
STRANDED = 20  # few, since the server tries for five seconds before it gives up a batch
ALL = 1_000_000


@pytest.fixture(scope="module")
def environment(hosting: Hosting) -> dict[str, str]:
    return hosting.environment("postgresql")


@pytest.fixture(scope="module")
def proxy(environment: dict[str, str]) -> Iterator[ChaosProxy]:
    with in_background(ChaosProxy(dial_database(environment["DATABASE_URL"]), MARK)) as running:
        yield running


@pytest.fixture(scope="module")
def server(
    environment: dict[str, str], proxy: ChaosProxy, hosting: Hosting
) -> Iterator[GunicornServer]:
    address = by_port(environment["DATABASE_URL"], proxy.port)
    env = {**environment, "DATABASE_URL": address}
    with GunicornServer(env=env, log_path=hosting.log_path()) as running:
        yield running


def marked_content() -> str:
    return to_base64url(MARK + secrets.token_bytes(16))


def test_one_cut_is_made_up_for_and_the_message_is_stored_once(
    proxy: ChaosProxy, alice: Person, bob: Person
) -> None:
    client, answers, before = alice.connect(), [], proxy.swallowed
    for _ in range(MESSAGES):
        proxy.swallow_answers(1)
        answers.append(client.store(bob.id, marked_content()))
    assert proxy.swallowed - before == MESSAGES
    assert [answer["seq"] for answer in answers] == list(range(1, MESSAGES + 1))
    mailbox = read_all(bob)
    assert [frame["seq"] for frame in mailbox] == list(range(1, MESSAGES + 1))
    assert [frame["id"] for frame in mailbox] == [answer["id"] for answer in answers]


def test_a_way_that_stays_cut_is_unavailable_and_the_retry_is_a_duplicate(
    proxy: ChaosProxy, alice: Person, bob: Person
) -> None:
    client = alice.connect()
    proxy.swallow_answers(ALL)
    contents = [marked_content() for _ in range(STRANDED)]
    sent = {client.send(bob.id, content): content for content in contents}
    refusals = [client.answer(message_id) for message_id in sent]
    proxy.swallow_answers(0)
    assert {(one["type"], one.get("code")) for one in refusals} == {("error", "unavailable")}
    assert all(one["retry_after"] > 0 for one in refusals)
    again = [client.store(bob.id, sent[one], message_id=one) for one in sent]
    assert all(answer["duplicate"] for answer in again)
    assert [frame["id"] for frame in read_all(bob)] == list(sent)
