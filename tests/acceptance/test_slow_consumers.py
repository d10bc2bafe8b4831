"""Some stop reading while others go on: they are cut off, nobody waits, nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.acceptance.conftest import Hosting
from tests.acceptance.floods import Memory, Neighbours
from tests.acceptance.people import People, Person
from tests.acceptance.probed_host import PROBED, ask
from tests.acceptance.raw import RawClient
from tests.acceptance.wire import new_content
from tests.servers import GunicornServer, wait_until

WRITE_TIMEOUT_SECONDS = 2.0
STUCK, READING, IDLE = 6, 6, 14  # with the neighbours, the load and its sender about 30 sockets
LARGE_BYTES = 60_000
LOAD_EACH = 25  # messages, more than the buffers of both kernels hold
ROUNDS = 100
SLACK_SECONDS = 0.05
MAX_GROWTH_BYTES = 20 * 1024 * 1024


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[GunicornServer]:
    env = hosting.environment(
        "sqlite", E2EMSG_WRITE_TIMEOUT_SECONDS=WRITE_TIMEOUT_SECONDS, E2EMSG_HEARTBEAT_SECONDS=30
    )
    with GunicornServer(PROBED, env=env, log_path=hosting.log_path()) as running:
        yield running


class Load:
    """Somebody who writes large messages to others, in turns, on a thread of its own."""

    def __init__(self, sender: Person, recipients: list[Person]) -> None:
        self.sent: dict[str, list[str]] = {one.id: [] for one in recipients}
        self._client = sender.connect()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _send(self) -> None:
        content = new_content(LARGE_BYTES)
        for _ in range(LOAD_EACH):
            for user_id, sent in self.sent.items():
                sent.append(self._client.store(user_id, content)["id"])


def test_who_stops_reading_is_cut_and_nobody_else_notices(
    server: GunicornServer, people: People, alice: Person, bob: Person
) -> None:
    stuck = [people.new("stuck").enrol() for _ in range(STUCK)]
    reading = [people.new("reading").enrol() for _ in range(READING)]
    neighbours, sender = Neighbours(alice, bob), people.new("sender").enrol()
    for _ in range(IDLE):
        people.new("idle").enrol().connect()
    for person in reading:
        person.connect()  # the library reads in the background
    with Load(sender, reading):
        calm = neighbours.latencies(ROUNDS)
    before, memory = ask(server, "connections"), Memory(server)
    with ExitStack() as stack:
        for person in stuck:
            client = stack.enter_context(RawClient(person, receive_buffer=4096))
            client.next_frame("caught_up")
        with Load(sender, stuck) as load:
            busy = neighbours.latencies(ROUNDS)
            growth = memory.growth()
        wait_until(
            lambda: ask(server, "connections") <= before + 1,  # the second load's sender
            WRITE_TIMEOUT_SECONDS + 3.0,
            lambda: f"{ask(server, 'connections')} connections, {before} before",
        )
    assert growth < MAX_GROWTH_BYTES
    assert busy[ROUNDS * 95 // 100] < 1.5 * calm[ROUNDS * 95 // 100] + SLACK_SECONDS
    for person in stuck:
        received = [frame["id"] for frame in person.connect().drain()]
        assert received == load.sent[person.id]
