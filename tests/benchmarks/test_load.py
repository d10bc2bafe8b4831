"""The load client and our server, which checks the envelopes that it gets."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import shutil
import threading
from collections.abc import Iterator
from uuid import UUID

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from benchmarks import runs, servers
from benchmarks.client import LoadClient, Users, compile_client
from benchmarks.postgres import Postgres
from benchmarks.results import Failed
from benchmarks.runs import Bench
from benchmarks.servers import OUR_SERVERS
from flask_e2emsg.errors import BadRequest
from flask_e2emsg.protocol.envelope import Outline, kid_of, outline
from flask_e2emsg.protocol.values import decode_binary

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="the load client needs a C compiler"
)

PATIENCE_SECONDS = 20.0
OURS = OUR_SERVERS["e2emsg"]


@pytest.fixture(scope="module", autouse=True)
def binary() -> None:
    compile_client()


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Postgres() as postgres, Users() as users:
        yield Bench(postgres, users, seconds=2.0, warmup=0.1)


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    with Users() as users:
        yield users


def first_message(users: Users, *options: object) -> tuple[UUID, bytes]:
    """What the first of two users sends to the second: its id and content."""
    frames: queue.Queue[str | bytes] = queue.Queue()

    def take(socket: ServerConnection) -> None:
        socket.send('{"type":"hello"}')
        with contextlib.suppress(ConnectionClosed):  # The recipient has nothing to send.
            frames.put(socket.recv())

    with serve(take, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        with LoadClient("pairs", port, users.file(2), "--pairs", 1, *options) as client:
            client.begin()
            frame = json.loads(frames.get(timeout=PATIENCE_SECONDS))
        server.shutdown()
    return UUID(frame["id"]), decode_binary(frame["encrypted_content"], "encrypted_content")


@pytest.mark.parametrize("size", [231, 256, 257, 4096])
def test_an_envelope_is_by_the_sender_for_both_and_as_long_as_is_asked(
    users: Users, size: int
) -> None:
    message_id, content = first_message(users, "--envelopes", "--bytes", size)
    sender, recipient = (kid_of(key) for key in users.keys(2).values())
    assert outline(content, message_id) == Outline(sender, frozenset((sender, recipient)))
    assert len(content) == size


@pytest.mark.parametrize("size", [256, 257, 4096])
def test_peers_get_as_many_random_bytes(users: Users, size: int) -> None:
    message_id, content = first_message(users, "--bytes", size)
    with pytest.raises(BadRequest):
        outline(content, message_id)
    assert len(content) == size


def test_an_envelope_cannot_be_shorter_than_what_is_seen_of_it(users: Users) -> None:
    with pytest.raises(Failed, match="231 bytes"):
        first_message(users, "--envelopes", "--bytes", 230)


@pytest.mark.parametrize("name", ["e2emsg", "e2emsg-sqlite"])
def test_our_server_takes_what_is_sent_in_pairs(bench: Bench, name: str) -> None:
    assert runs.exchange(bench, OUR_SERVERS[name], "--pairs", 2, people=4)["rate"] > 0


def test_our_server_takes_what_is_sent_to_many(bench: Bench) -> None:
    options = ("--recipients", 5, "--bytes", 4096)
    assert runs.exchange(bench, OURS, *options, mode="fanout", people=6)["rate"] > 0


def test_our_server_takes_what_waits_for_somebody(bench: Bench) -> None:
    assert runs.drain(bench, OURS, 100)["rate"] > 0


def test_our_server_refuses_what_is_no_envelope(bench: Bench) -> None:
    random = dataclasses.replace(OURS, client_options=("--acks",))
    with pytest.raises(Failed, match="bad_request"):
        runs.exchange(bench, random, "--pairs", 2, people=4)


def test_our_server_refuses_what_was_sealed_by_other_keys(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "publish_keys", lambda url, keys: None)
    with pytest.raises(Failed, match="stale_key"):
        runs.exchange(bench, OURS, "--pairs", 2, people=4)


def test_the_check_of_every_run_sees_faults(users: Users) -> None:
    runs.prove_the_check(users)
