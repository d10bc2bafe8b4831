"""One fan-out to many, and one connection through every gap: nobody waits for anybody's socket."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance.cheap_peer import Peer
from tests.acceptance.client import SocketClient
from tests.acceptance.conftest import DATABASES, Hosting
from tests.acceptance.gaps import GAPS
from tests.acceptance.people import Person
from tests.acceptance.rest import Answer, RestClient
from tests.acceptance.wire import Frame, new_content, new_id, to_time
from tests.servers import GunicornServer, WebServer, wait_until

NO_SWEEP_SECONDS = 3600
DEADLINE_SECONDS = 10.0

RECIPIENTS = 100
FAN_OUTS = 300
LONGEST_FAN_OUT_SECONDS = 0.005
MUCH = 30_000  # bytes in one message; 200 of them fill every buffer on the way

TIMES_THROUGH_A_GAP = 5
LONGEST_DELIVERY_SECONDS = 0.1


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, hosting: Hosting) -> Iterator[WebServer]:
    env = hosting.environment(
        request.param,
        E2EMSG_SWEEP_SECONDS=NO_SWEEP_SECONDS,
        E2EMSG_WRITE_TIMEOUT_SECONDS=NO_SWEEP_SECONDS,
        E2EMSG_HEARTBEAT_SECONDS=NO_SWEEP_SECONDS,
        E2EMSG_MAX_IN_FLIGHT=10_000,
    )
    app = "tests.acceptance.inside:create_app()"
    with GunicornServer(app, env=env, log_path=hosting.log_path()) as running:
        yield running


# Fan-out.


def test_a_fan_out_to_100_is_quick_though_one_of_them_does_not_read(
    server: WebServer, alice: Person, bob: Person, sockets: contextlib.ExitStack
) -> None:
    ours, earlier = alice.connect(), len(_published(server)["seconds"])
    others = [Person(server, f"{bob.id}-{number}") for number in range(RECIPIENTS - 1)]
    dead, *peers = [Peer(_port(server), one.token()) for one in (bob, *others)]
    for peer in (dead, *peers):  # nobody reads them until the end
        sockets.enter_context(peer.socket)
    for _ in range(200):
        ours.store(bob.id, new_content(MUCH))
    # With threads the last one may be under way when its sender has the answer.
    wait_until(
        lambda: len(_published(server)["seconds"]) == earlier + 200,
        DEADLINE_SECONDS,
        lambda: f"{_published(server)['seconds']}",
    )
    to_all = [bob.id, *(other.id for other in others)]
    slowest = fan_outs(server, ours, to_all)
    assert slowest < LONGEST_FAN_OUT_SECONDS, slowest
    sent = 200 + FAN_OUTS
    assert frames_of(dead, sent) == sent
    for peer in peers:
        assert frames_of(peer, FAN_OUTS) == FAN_OUTS


def fan_outs(server: WebServer, ours: SocketClient, to_all: list[str]) -> float:
    """The 99th percentile of the seconds that a fan-out to all takes, when it waits for nobody."""
    before = _published(server)
    for _ in range(FAN_OUTS):
        ref, content = new_id(), new_content()
        letters = [{"id": new_id(), "to": to, "encrypted_content": content} for to in to_all]
        ours.send_frame({"type": "send_many", "ref": ref, "messages": letters})
        ours.expect("accepted", ref=ref)
    done: dict[str, Any] = {}

    def all_are_done() -> bool:
        done.update(_published(server))
        return len(done["seconds"]) - len(before["seconds"]) >= FAN_OUTS

    wait_until(all_are_done, DEADLINE_SECONDS, lambda: f"{before}, then {done}")
    seconds = done["seconds"][len(before["seconds"]) :]
    assert (len(seconds), done["switches"]) == (FAN_OUTS, before["switches"])
    return float(statistics.quantiles(seconds, n=100)[98])


def _published(server: WebServer) -> dict[str, Any]:
    published: dict[str, Any] = RestClient(server.url).get("/inside/publishing").json
    return published


def frames_of(peer: Peer, messages: int) -> int:
    """Read until so many messages have come; how many that were."""
    peer.socket.settimeout(DEADLINE_SECONDS)
    found = 0
    while found < messages:
        found += sum(frame.startswith(b'{"type":"message"') for frame in peer.frames())
    return found


# Gaps.


@pytest.mark.parametrize("gap", GAPS)
def test_a_connection_hears_at_once_of_what_is_stored(
    server: WebServer, alice: Person, bob: Person, gap: str
) -> None:
    ours, delays, cursor = alice.connect(), [], None
    reads = gap in ("before it reads", "after it has read")
    for _ in range(TIMES_THROUGH_A_GAP):
        if reads:
            ours.store(bob.id)  # a backlog, or it would have nothing to read
        arm(server, gap, alice, bob)
        client = bob.connect(cursor)
        if gap == "when it wakes up":
            client.round_trip()
        *_, entry = client.entries(2 if reads else 1)
        delays.append(lateness(entry))
        cursor = client.cursor
        client.close()
    assert statistics.median(delays) < LONGEST_DELIVERY_SECONDS, delays


@pytest.mark.parametrize("gap", GAPS)
def test_a_long_poll_hears_at_once_of_what_is_stored(
    server: WebServer, alice: Person, bob: Person, gap: str
) -> None:
    delays, cursor = [], None
    with ThreadPoolExecutor(1) as pool:
        for number in range(TIMES_THROUGH_A_GAP):
            arm(server, gap, alice, bob)
            poll = pool.submit(bob.rest.get, "/api/sync", cursor=cursor, wait=20)
            if gap == "when it wakes up":
                wake_once(server, poll)
            answer = poll.result(DEADLINE_SECONDS)
            [entry] = answer.json["entries"]
            delays.append(lateness(entry))
            cursor = f"{answer.json['epoch']}:{number + 1}"
    assert statistics.median(delays) < LONGEST_DELIVERY_SECONDS, delays


def arm(server: WebServer, gap: str, sender: Person, recipient: Person) -> None:
    """Have the server store a message the next time that the recipient's way comes there."""
    body = {"gap": gap, "sender": sender.id, "recipient": recipient.id}
    assert RestClient(server.url).post("/inside/gap", body).status == 200


def wake_once(server: WebServer, poll: Future[Answer]) -> None:
    """Wake the one who waits, once, for nothing."""
    wait_until(
        lambda: RestClient(server.url).post("/inside/wake", {}).json["woken"] > 0,
        DEADLINE_SECONDS,
        lambda: f"nobody waits; the poll is done: {poll.done()}",
    )


def lateness(entry: Frame) -> float:
    """How many seconds ago it was stored, on the clock that this machine's processes share."""
    return time.time() - to_time(entry["created_at"]).timestamp()


def _port(server: WebServer) -> int:
    return int(server.url.rpartition(":")[2])
