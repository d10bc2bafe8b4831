"""What counts for a user counts over all workers together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from websockets.exceptions import InvalidStatus

from flask_e2emsg.store.leases import LEASE_SECONDS
from tests.acceptance.client import SocketClient
from tests.acceptance.people import People, Person
from tests.acceptance.rest import HANDSHAKE, RestClient, raw_get
from tests.acceptance.wire import new_content, new_id
from tests.conftest import DATABASES
from tests.security.conftest import Serve
from tests.servers import GunicornServer, wait_until

WORKERS = 2
CAP = 10
RATE = 40
SWEEP_SECONDS = 0.5


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, serve: Serve) -> Iterator[GunicornServer]:
    settings = {"E2EMSG_RATE_LIMIT": f"{RATE}/hour", "E2EMSG_SWEEP_SECONDS": SWEEP_SECONDS}
    with serve(request.param, WORKERS, **settings) as running:
        yield running


@pytest.fixture
def on_both_workers(alice: Person) -> list[SocketClient]:
    """Sockets of alice's, at least one on each worker."""
    clients: list[SocketClient] = []

    def are_spread() -> bool:
        if len(clients) == CAP - 1:
            clients.pop(0).close()
        clients.append(alice.reconnect())
        return all(sockets > 0 for sockets in sockets_by_worker(alice.server).values())

    wait_until(are_spread, 30, lambda: "all sockets go to one worker")
    # A slot is free a moment after its socket has closed.
    wait_until(lambda: slots_of(alice) == len(clients), 10, lambda: f"{slots_of(alice)} slots")
    return clients


def slots_of(person: Person) -> int:
    """How many slots this user holds, over all workers."""
    assert isinstance(person.server, GunicornServer)
    engine = sa.create_engine(person.server.environment["DATABASE_URL"])
    count = sa.text(
        "SELECT count(*) FROM e2emsg_connections c JOIN e2emsg_accounts a ON a.id = c.account_id"
        " WHERE a.user_id = :user_id"
    )
    with engine.connect() as connection:
        held = int(connection.execute(count, {"user_id": person.id}).scalar_one())
    engine.dispose()
    return held


def sockets_by_worker(server: object) -> dict[int, int]:
    """How many sockets each worker has, as soon as all have answered."""
    assert isinstance(server, GunicornServer)
    found: dict[int, int] = {}

    def ask() -> bool:
        answer = RestClient(server.url).get("/here").json
        found[answer["worker"]] = answer["sockets"]
        return len(found) == WORKERS

    wait_until(ask, 30, lambda: "one worker never answers")
    return found


def test_of_fifty_who_come_at_once_as_many_get_in_as_the_cap_allows(
    people: People, alice: Person
) -> None:
    busy = people.new("busy")
    token = busy.token()

    def status(_attempt: int) -> int:
        try:
            busy.connect(token=token)
        except InvalidStatus as refused:
            return refused.response.status_code
        return 101

    with ThreadPoolExecutor(50) as threads:
        statuses = sorted(threads.map(status, range(50)))
    assert statuses == [101] * CAP + [429] * (50 - CAP)
    alice.connect().round_trip()


def test_the_cap_counts_the_sockets_of_all_workers(
    on_both_workers: list[SocketClient], alice: Person
) -> None:
    for _ in range(CAP - len(on_both_workers)):
        alice.connect()
    bearer = ("Authorization", f"Bearer {alice.token()}")
    for _ in range(2 * WORKERS):
        assert raw_get(alice.server.url, "/api/ws", [*HANDSHAKE, bearer]).status == 429
    on_both_workers[0].close()
    wait_until(
        lambda: raw_get(alice.server.url, "/api/ws", [*HANDSHAKE, bearer]).status == 101,
        5,
        lambda: "a socket that ended makes no room",
    )


def test_of_twenty_upgrades_with_one_ticket_one_gets_through(alice: Person) -> None:
    ticket = alice.rest.post("/api/ws-ticket", {}).json["ticket"]
    with ThreadPoolExecutor(20) as threads:
        answers = threads.map(
            lambda _: raw_get(alice.server.url, f"/api/ws?ticket={ticket}", HANDSHAKE), range(20)
        )
    assert sorted(answer.status for answer in answers) == [101] + [401] * 19


def test_the_rate_limit_counts_what_is_sent_through_all_workers(
    on_both_workers: list[SocketClient], bob: Person
) -> None:
    ids = [
        (client, client.send(bob.id))
        for _ in range(2 * RATE // len(on_both_workers))
        for client in on_both_workers
    ]
    answers = [client.answer(message_id) for client, message_id in ids]
    refused = [answer for answer in answers if answer["type"] == "error"]
    # What a worker has taken of the limit and not spent is lost: at most a twentieth each.
    assert RATE - WORKERS * RATE // 20 <= len(answers) - len(refused) <= RATE
    for answer in refused:
        assert answer["code"] == "rate_limited"
        assert 0 < answer["retry_after"] <= 3600


def test_the_rate_limit_over_http_says_when_to_come_back(alice: Person, bob: Person) -> None:
    client = alice.connect()
    for _ in range(RATE + WORKERS):
        client.answer(client.send(bob.id))

    def send() -> int:
        body = {"id": new_id(), "to": bob.id, "encrypted_content": new_content()}
        answer = alice.rest.post("/api/messages", body)
        assert answer.status in (201, 429)
        assert answer.status == 201 or int(answer.headers["retry-after"]) > 0
        return answer.status

    # The other worker may have something left.
    assert {send() for _ in range(2 * WORKERS + 4)} >= {429}
    assert send() == 429


def test_disconnect_reaches_the_sockets_of_other_workers(
    on_both_workers: list[SocketClient], alice: Person, bob: Person
) -> None:
    other = bob.connect()
    answer = RestClient(alice.server.url).post(f"/disconnect/{alice.id}", {})
    assert answer.json == {"closed": len(on_both_workers)}
    for client in on_both_workers:
        client.expect_close(4401, seconds=SWEEP_SECONDS + 2)
    other.round_trip()


def test_who_is_locked_out_loses_the_sockets_of_all_workers(
    on_both_workers: list[SocketClient], alice: Person
) -> None:
    assert RestClient(alice.server.url).post(f"/lock/{alice.id}", {}).status == 200
    began = time.monotonic()
    for client in on_both_workers:
        client.expect_close(4401)
    assert time.monotonic() - began < 2


def test_a_logout_on_one_worker_ends_the_sockets_of_all(
    on_both_workers: list[SocketClient], alice: Person
) -> None:
    for token in alice.tokens:
        RestClient(alice.server.url, token).post("/revoke", {})
    for client in on_both_workers:
        client.expect_close(4401, seconds=5)


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
def test_the_room_of_a_worker_that_was_killed_is_free_after_its_lease(
    server: GunicornServer, people: People
) -> None:
    busy = people.new("busy")
    for _ in range(CAP):
        busy.connect()
    pids = set(server.worker_pids())
    while pids & set(server.worker_pids()):
        server.kill_worker()
    bearer = ("Authorization", f"Bearer {busy.token()}")
    wait_until(
        lambda: raw_get(server.url, "/api/ws", [*HANDSHAKE, bearer]).status == 101,
        LEASE_SECONDS + 10,
        lambda: "still full",
    )
    people.abandon_the_lost()
