"""Round after round of people who come, talk and leave: the worker is no larger afterwards."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.cheap_peer import Peer
from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People, Person
from tests.acceptance.rest import RestClient
from tests.acceptance.wire import new_content, new_id
from tests.servers import GunicornServer, WebServer, wait_until

ROUNDS, ROUNDS_TO_WARM_UP = 20, 10
USERS, CONNECTIONS_PER_USER, MESSAGES = 30, 2, 10
LARGEST_GROWTH_BYTES = 600_000  # in a round: 10 kB for each connection that came and left
DEADLINE_SECONDS = 30.0


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[WebServer]:
    env = hosting.environment("sqlite")
    app = "tests.acceptance.inside:create_app()"
    with GunicornServer(app, env=env, log_path=hosting.log_path()) as running:
        yield running


def test_memory_and_descriptors_stay_flat(server: WebServer, people: People) -> None:
    users = [people.new().enrol() for _ in range(USERS)]
    tokens = {user.id: user.token() for user in users}
    counts = [one_round(server, users, tokens) for _ in range(ROUNDS)]
    warm = counts[ROUNDS_TO_WARM_UP:]
    memory = [one["memory"] for one in warm]
    growth = statistics.linear_regression(range(len(memory)), memory).slope
    assert growth < LARGEST_GROWTH_BYTES, f"{growth:.0f} bytes in a round: {memory}"
    descriptors = [one["descriptors"] for one in warm]
    assert max(descriptors) <= descriptors[0] + 2, descriptors


def one_round(server: WebServer, users: list[Person], tokens: dict[str, str]) -> dict[str, Any]:
    """All connect, write to their neighbour, acknowledge what comes, and leave."""
    port = int(server.url.rpartition(":")[2])
    peers = {
        Peer(port, tokens[user.id]): users[(place + 1) % USERS].id
        for place, user in enumerate(users)
        for _ in range(CONNECTIONS_PER_USER)
    }
    for peer, neighbour in peers.items():
        for _ in range(MESSAGES):
            head = f'{{"type":"send","id":"{new_id()}","to":"{neighbour}",'
            peer.send(f'{head}"encrypted_content":"{new_content(500)}"}}'.encode())
    deadline = time.monotonic() + DEADLINE_SECONDS
    for peer in peers:
        peer.socket.settimeout(DEADLINE_SECONDS)
        answered = received = 0
        while answered < MESSAGES or received < MESSAGES * CONNECTIONS_PER_USER:
            assert time.monotonic() < deadline, f"{answered} answered, {received} received"
            for frame in peer.frames():
                answered += frame.startswith(b'{"type":"accepted"')
                if frame.startswith((b'{"type":"message"', b'{"type":"receipt"')):
                    received += b"encrypted_content" in frame
                    at = frame.index(b'"seq":') + 6
                    peer.send(b'{"type":"ack","seq":' + frame[at : frame.index(b",", at)] + b"}")
    for peer in peers:
        peer.socket.close()
    left: dict[str, Any] = {}

    def nothing_is_left() -> bool:
        # What was asked for last is still done for who has left.
        left.update(_inside(server))
        return left["registry"] == 0 and not any(left["objects"].values())

    wait_until(nothing_is_left, DEADLINE_SECONDS, lambda: f"{left} stays")
    return left


def _inside(server: WebServer) -> dict[str, Any]:
    found: dict[str, Any] = RestClient(server.url).get("/inside").json
    return found
