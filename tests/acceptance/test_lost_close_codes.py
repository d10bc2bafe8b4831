"""A client that is still sending, far away, learns why it was closed."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People, Person
from tests.acceptance.proxy import DelayingProxy
from tests.servers import WebServer

DELAY_SECONDS = 0.03
SENDERS, ATTEMPTS_EACH = 10, 10
SIZES = [131_073, 200_000, 1_000_000]


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[WebServer]:
    with hosting.gunicorn("sqlite") as running:
        yield running


def test_the_code_of_an_over_size_message_arrives_through_a_slow_network(
    people: People, server: WebServer
) -> None:
    senders = [people.new().enrol() for _ in range(SENDERS)]
    with DelayingProxy(server, DELAY_SECONDS) as proxy, ThreadPoolExecutor(SENDERS) as pool:
        codes = Counter(
            code
            for found in pool.map(lambda sender: close_codes(proxy.ws_url, sender), senders)
            for code in found
        )
    assert codes.total() == SENDERS * ATTEMPTS_EACH == 100
    assert codes[1009] >= 99, codes


def close_codes(ws_url: str, sender: Person) -> list[int | None]:
    """With what the sender is closed, each time that it sends too much."""
    headers = {"Authorization": f"Bearer {sender.rest.token}"}
    codes = []
    for attempt in range(ATTEMPTS_EACH):
        with connect(ws_url, additional_headers=headers, proxy=None) as client:
            with contextlib.suppress(ConnectionClosed):
                client.send("x" * SIZES[attempt % len(SIZES)])
                while True:
                    client.recv(timeout=20)
            codes.append(client.close_code)
    return codes
