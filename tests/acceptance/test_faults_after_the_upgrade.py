"""Whatever fails behind the 101, the client gets a close frame and not one byte of HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from urllib.request import urlopen

import pytest

from tests.acceptance.conftest import Hosting
from tests.acceptance.faulty_host import CANARY, FAULTS
from tests.acceptance.people import People
from tests.acceptance.raw import RawClient
from tests.acceptance.wire import new_content, new_id
from tests.servers import FlaskRunServer, GunicornServer, WebServer, wait_until
from tests.transport.peers import frame

APP = "tests.acceptance.faulty_host:create_app"
NEVER_SEEN = [b"HTTP/1", b"<html", b"<!doctype", b"SECRET", b"Traceback", CANARY.encode()]
GOODBYE = frame(8, b"\x03\xe8")


@pytest.fixture(scope="module", params=["gevent", "gthread", "flask run with the debugger"])
def server(request: pytest.FixtureRequest, hosting: Hosting) -> Iterator[WebServer]:
    env, log_path = hosting.environment("sqlite"), hosting.log_path()
    running: WebServer
    if request.param == "gevent":
        running = GunicornServer(f"{APP}()", env=env, log_path=log_path)
    elif request.param == "gthread":
        running = GunicornServer(f"{APP}()", env=env, log_path=log_path, worker_class="gthread")
    else:
        options = ["--debug", "--debugger"]
        running = FlaskRunServer(APP, env=env, log_path=log_path, options=options)
    with running:
        yield running


@pytest.fixture(autouse=True)
def _quiet_log() -> None:
    """Faults of the host's own code are logged with their traceback."""


def nothing(_client: RawClient, _user_id: str) -> None:
    pass


def ping(client: RawClient, user_id: str) -> None:
    client.send_frame({"type": "ping", "ref": user_id})


def send(client: RawClient, user_id: str) -> None:
    message = {"id": new_id(), "to": user_id, "encrypted_content": new_content()}
    client.send_frame({"type": "send", **message})


def say_goodbye(client: RawClient, _user_id: str) -> None:
    client.next_frame("caught_up")
    client.socket.sendall(GOODBYE)


POINTS: dict[str, tuple[Callable[[RawClient, str], None], int]] = {
    "connecting": (nothing, 1011),
    "hello": (nothing, 1011),
    "decoding": (ping, 1011),
    "rules": (send, 1011),
    "entries": (nothing, 1011),
    "writing": (nothing, 1011),
    "signal": (say_goodbye, 1000),
    "teardown": (say_goodbye, 1000),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_fault_behind_the_101_ends_in_a_close_frame(people: People, point: str) -> None:
    provoke, code = POINTS[point]
    for fault in FAULTS:
        user = people.named(f"{point}.{fault}.{new_id()}").enrol()
        with RawClient(user) as client:
            provoke(client, user.id)
            assert client.ending() == code, fault
            seen = bytes(client.peer.received)
            assert not [one for one in NEVER_SEEN if one.lower() in seen.lower()], (fault, seen)


def test_the_worker_and_its_signals_live_on(people: People, server: WebServer) -> None:
    for fault in FAULTS:
        with RawClient(people.named(f"signal.{fault}.{new_id()}").enrol()) as client:
            client.round_trip()
    alive = people.new("healthy")
    with RawClient(alive.enrol()) as client:
        send(client, alive.id)
        client.next_frame("accepted")
        wait_until(lambda: alive.id in heard(server), 10.0, lambda: "the signal did not come")


def heard(server: WebServer) -> list[str]:
    with urlopen(f"{server.url}/heard") as answer:
        return list(json.load(answer))
