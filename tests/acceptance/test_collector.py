"""Python's collector of garbage, beside many idle connections: it does not look through them all.

While it looks, nobody else in the worker has a turn.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.cheap_peer import Peer
from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People, Person
from tests.acceptance.rest import RestClient
from tests.servers import GunicornServer, wait_until

APP = "tests.acceptance.inside:create_app()"
IDLE, NEWCOMERS = 500, 50
DEADLINE_SECONDS = 20.0


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[GunicornServer]:
    env = hosting.environment("sqlite", E2EMSG_MAX_CONNECTIONS_PER_USER=IDLE + NEWCOMERS)
    config = hosting.configuration()
    with GunicornServer(APP, env=env, log_path=hosting.log_path(), config=config) as running:
        yield running


@pytest.fixture
def idle(server: GunicornServer, people: People) -> Iterator[list[Peer]]:
    peers = connected(server, people.new("idle"), IDLE)
    yield peers
    for peer in peers:
        peer.socket.close()


def connected(server: GunicornServer, person: Person, count: int) -> list[Peer]:
    port, token = int(server.url.rpartition(":")[2]), person.token()
    return [Peer(port, token) for _ in range(count)]


def outlived(server: GunicornServer, collections: int) -> list[int]:
    """How many objects each of so many collections has looked at and found in use."""
    asked = {"count": collections}
    found: list[int] = RestClient(server.url).post("/inside/collections", asked).json["outlived"]
    return found


def test_idle_connections_are_looked_through_once(
    server: GunicornServer, people: People, idle: list[Peer]
) -> None:
    first, second = outlived(server, 2)
    assert first > 10 * IDLE, "they are all new to the collector"
    assert second < IDLE
    newcomers = connected(server, people.new("newcomer"), NEWCOMERS)
    assert outlived(server, 1)[0] < first / 2
    for peer in newcomers:
        peer.socket.close()


def test_what_was_looked_through_is_freed_when_its_connection_ends(
    server: GunicornServer, idle: list[Peer]
) -> None:
    outlived(server, 2)
    assert RestClient(server.url).post("/inside/collector", {"is_on": False}).status == 200
    for peer in idle:
        peer.socket.close()
    wait_until(
        lambda: not any(counts(server).values()), DEADLINE_SECONDS, lambda: str(counts(server))
    )


def counts(server: GunicornServer) -> dict[str, int]:
    found: dict[str, int] = RestClient(server.url).get("/inside").json["objects"]
    return found
