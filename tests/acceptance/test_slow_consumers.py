"""Some stop reading while others go on: they are cut off, nobody waits, nothing is lost."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from websockets.frames import Opcode

from tests.acceptance.conftest import Hosting
from tests.acceptance.floods import Memory, Neighbours
from tests.acceptance.people import People, Person
from tests.acceptance.probed_host import PROBED, ask
from tests.acceptance.raw import RawClient
from tests.acceptance.wire import new_content
from tests.servers import GunicornServer, wait_until
from tests.transport.peers import frame

WRITE_TIMEOUT_SECONDS = 2.0
STUCK, READING, IDLE = 6, 6, 14  # with the neighbours, the load and its sender about 30 sockets
LARGE_BYTES = 60_000
LOAD_EACH = 25  # messages, more than the buffers of both kernels hold
ROUNDS = 100
SLACK_SECONDS = 0.05
WRITERS, MESSAGES_EACH, MESSAGE_BYTES = 8, 30, 6_000
PAUSE_SECONDS = 0.5
BITE_BYTES, BITES_PER_PING, ACK_EVERY = 4_000, 20, 50
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


def test_many_writers_and_pings_leave_the_frames_of_a_slow_reader_whole(
    server: GunicornServer, people: People
) -> None:
    reader = people.new("reader").enrol()
    writers = [people.new("writer").enrol() for _ in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        before = [pool.submit(write, writer, reader).result() for writer in writers]
        with RawClient(reader, receive_buffer=8192) as client:
            time.sleep(PAUSE_SECONDS)  # the server has more to write than all buffers hold
            during = [pool.submit(write, writer, reader) for writer in writers]
            read = read_slowly(client, 2 * WRITERS * MESSAGES_EACH)
    for writer, earlier, later in zip(writers, before, during, strict=True):
        # Whole, in the order of sending, once.
        assert [one[1:] for one in read if one[0] == writer.id] == earlier + later.result()
    assert "ConcurrentObjectUseError" not in server.log()


def write(writer: Person, reader: Person) -> list[tuple[str, str]]:
    """Ids and contents of the messages that were accepted."""
    client = writer.connect()
    contents = [new_content(MESSAGE_BYTES) for _ in range(MESSAGES_EACH)]
    sent = [(client.send(reader.id, content), content) for content in contents]
    for message_id, _ in sent:
        client.accepted(message_id)
    return sent


def read_slowly(client: RawClient, count: int) -> list[tuple[str, str, str]]:
    """Sender, id and content of so many messages, read in small bites with pings in between."""
    read: list[tuple[str, str, str]] = []
    for bite in itertools.count():
        assert client.peer.read(BITE_BYTES), "the stream has ended"
        if bite % BITES_PER_PING == 0:
            client.socket.sendall(frame(Opcode.PING, b"%d" % bite))
        for one in client.take_frames("message"):
            read.append((one["sender"], one["id"], one["encrypted_content"]))
            if len(read) % ACK_EVERY == 0 or len(read) == count:
                client.send_frame({"type": "ack", "seq": one["seq"]})
        if len(read) == count:
            return read
    raise AssertionError("unreachable")
