"""Who sends as fast as it can is closed or slowed down, and nobody else notices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.conftest import Hosting
from tests.acceptance.corpus import CORPUS
from tests.acceptance.floods import Flood, Memory, Neighbours
from tests.acceptance.people import People, Person
from tests.acceptance.probed_host import PROBED, ask
from tests.acceptance.raw import RawClient, send_until_cut
from tests.acceptance.wire import new_content, new_id
from tests.servers import GunicornServer
from tests.transport.peers import frame, text

ROUNDS = 60
SLACK_SECONDS = 0.05  # a test's own threads take turns, too
MAX_GROWTH_BYTES = 8 * 1024 * 1024
MAX_LAG_SECONDS = 0.1
MAX_FRAME_BYTES = 131_072
PING, PONG = 9, 10


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[GunicornServer]:
    env = hosting.environment("sqlite", E2EMSG_RATE_LIMIT="1200/minute")
    with GunicornServer(PROBED, env=env, log_path=hosting.log_path()) as running:
        yield running


@pytest.fixture
def mallory(people: People) -> Person:
    return people.new("mallory").enrol()


def a_frame(**members: object) -> bytes:
    return text(json.dumps(members))


def a_send(user_id: str, message_id: str) -> bytes:
    content = new_content(200)
    return a_frame(type="send", id=message_id, to=user_id, encrypted_content=content)


FLOODS: dict[str, Callable[[str, str], bytes]] = {
    "pings of the application": lambda _user, _id: a_frame(type="ping"),
    "sends": a_send,
    "acks": lambda _user, _id: a_frame(type="ack", seq=1),
    "reads": lambda _user, message_id: a_frame(type="read", ids=[message_id]),
    "typing": lambda user_id, _id: a_frame(type="typing", to=user_id, active=True),
    "bad tokens": lambda _user, _id: a_frame(type="refresh", token="a.b.c"),
    "large frames": lambda _user, _id: a_frame(type="ping", x="y" * 130_000),
    "messages in many fragments": lambda _user, _id: (
        frame(1, b'{"type":"ping"}', fin=False) + frame(0, fin=False) * 60 + frame(0)
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_leaves_its_neighbours_alone(
    server: GunicornServer, mallory: Person, alice: Person, bob: Person, kind: str
) -> None:
    neighbours = Neighbours(alice, bob)
    client, message_id = RawClient(mallory), new_id()
    client.socket.sendall(a_send(mallory.id, message_id))
    client.next_frame("accepted")
    calm, memory = neighbours.latencies(ROUNDS), Memory(server)
    with Flood(client, FLOODS[kind](mallory.id, message_id)) as flood:
        flood.wait_until_it_is_slowed_down()
        busy = neighbours.latencies(ROUNDS)
        assert not flood.was_cut()
        growth = memory.growth()
    assert percentile(busy, 95) < 2 * percentile(calm, 95) + SLACK_SECONDS
    assert growth < MAX_GROWTH_BYTES


def percentile(rising: list[float], percent: int) -> float:
    return rising[len(rising) * percent // 100]


def fragments_without_end(count: int) -> bytes:
    return frame(1, fin=False) + frame(0, fin=False) * count


@pytest.mark.parametrize(
    ("flood", "code"),
    [
        (frame(PING) * 60_000, 4429),
        (frame(PONG) * 60_000, 4429),
        (frame(PING, bytes(125)) * 60_000, 4429),
        (fragments_without_end(100_000), 1008),
        (text("nonsense") * 60_000, 1008),
        (text("") * 60_000, 1008),
        (b"\xff" * 400_000, 1002),
    ],
    ids=["pings", "pongs", "large pings", "fragments", "nonsense", "empty texts", "garbage"],
)
def test_a_flood_of_what_nobody_needs_is_closed_at_once(
    server: GunicornServer, mallory: Person, flood: bytes, code: int
) -> None:
    memory = Memory(server)
    with RawClient(mallory) as client:
        client.round_trip()
        began = time.monotonic()
        send_until_cut(client.socket, flood, 1)
        assert client.ending() == code
        assert time.monotonic() - began < 1.0
    assert memory.growth() < MAX_GROWTH_BYTES


def test_sixty_pings_at_once_are_welcome(mallory: Person) -> None:
    with RawClient(mallory) as client:
        client.socket.sendall(frame(PING) * 60)
        client.round_trip()


def filled(unit: str, head: str = '{"type":"ping","x":[', tail: str = "0]}") -> str:
    """As much of a unit as a frame holds."""
    return head + unit * ((MAX_FRAME_BYTES - len(head) - len(tail)) // len(unit)) + tail


LARGE = {
    "quotation marks": '"' * MAX_FRAME_BYTES,
    "brackets": "[" * MAX_FRAME_BYTES,
    "backslashes": "\\" * MAX_FRAME_BYTES,
    "colons": ":" * MAX_FRAME_BYTES,
    "lists": filled("[],"),
    "objects": filled('{"a":0},'),
    "fourteen levels": filled("[" * 14 + "]" * 14 + ","),
    "escapes": filled("\\u0041", '{"type":"ping","x":"', '"}'),
    "escaped quotation marks": filled('\\"', '{"type":"ping","x":"', '"}'),
    "strings with brackets": filled('"[",'),
    "long numbers": filled("9" * 4_000 + ","),
    "fractions": filled("0." + "3" * 700 + ","),
    "a long number": filled("9", '{"type":"ack","seq":', "}"),
    "long content": filled("A", '{"type":"send","encrypted_content":"', '"}'),
    "a long token": filled("a", '{"type":"refresh","token":"', '"}'),
    "a token of many parts": filled("a.", '{"type":"refresh","token":"', '"}'),
    "a long type": filled("a", '{"type":"', '"}'),
    "many members": "{" + ",".join(f'"{number}":0' for number in range(12_000)) + "}",
    "many ids": filled(f'"{new_id()}",', '{"type":"read","ids":[', "0]}"),
    "many messages": filled("{},", '{"type":"send_many","ref":1,"messages":[', "{}]}"),
}


def test_no_frame_holds_the_worker_up(server: GunicornServer, mallory: Person) -> None:
    slow = {}
    with RawClient(mallory) as client:
        ask(server, "lag")
        for name, one in {**CORPUS, **LARGE}.items():
            client.socket.sendall(text(one))
            client.round_trip()
            if (lag := ask(server, "lag")) > MAX_LAG_SECONDS:
                slow[name] = lag
    assert not slow
