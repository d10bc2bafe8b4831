"""Whether the peers do what the benchmark expects: `python -m benchmarks.peers [NAME ...]`."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import psycopg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from benchmarks import processes
from benchmarks.peers import PEERS, Peer, prepare, start
from benchmarks.postgres import Postgres

SECONDS = 30.0
BURST = 1000
CONTENT = secrets.token_urlsafe(256)


class Client:
    """One connection; speaks in frames, whatever they are wrapped in."""

    def __init__(self, socket: ClientConnection, peer: Peer) -> None:
        self._socket = socket
        self._is_socketio = peer.is_socketio
        if self._is_socketio:
            assert self._socket.recv(SECONDS)[:1] == "0"
            self._socket.send("40")
            assert self._socket.recv(SECONDS)[:2] == "40"

    def send(self, to: str, message_id: str, **members: object) -> None:
        """Send a message, with other members if some are given."""
        frame = {"type": "send", "id": message_id, "to": to, "encrypted_content": CONTENT}
        text = json.dumps({**frame, **members})
        self._socket.send(f'42["send",{text}]' if self._is_socketio else text)

    def receive(self) -> dict[str, Any]:
        """The next frame."""
        text = self._socket.recv(SECONDS)
        if not self._is_socketio:
            frame: dict[str, Any] = json.loads(text)
            return frame
        assert text[:2] == "42", text
        kind, frame = json.loads(text[2:])
        assert kind == frame["type"]
        return frame

    def close(self) -> None:
        """Say goodbye."""
        self._socket.close()


@dataclass(frozen=True)
class Checked:
    """A peer that runs, with its database, and everything that is open."""

    peer: Peer
    port: int
    database_url: str
    secret: str
    stack: ExitStack

    def url(self, token: str) -> str:
        """Where a client with that token connects to."""
        path = "socket.io/?EIO=4&transport=websocket&" if self.peer.is_socketio else "api/ws?"
        return f"ws://127.0.0.1:{self.port}/{path}token={token}"

    def token(self, user_id: str, secret: str | None = None, hours: float = 1) -> str:
        """A token of the user; made with another secret, or for other hours, it is a bad one."""
        moment = datetime.now(UTC)
        claims = {"sub": user_id, "type": "access", "jti": secrets.token_hex(8), "fresh": False}
        times = {"iat": moment, "exp": moment + timedelta(hours=hours)}
        return jwt.encode({**claims, **times}, secret or self.secret, "HS256")

    def connect(self, token: str) -> Client:
        """A connection that is closed when the check ends, if not before."""
        socket = connect(self.url(token), open_timeout=SECONDS, proxy=None)
        return Client(self.stack.enter_context(socket), self.peer)

    def client(self, user_id: str) -> Client:
        """A connection that has heard hello."""
        client = self.connect(self.token(user_id))
        hello = client.receive()
        assert (hello["type"], hello["user_id"]) == ("hello", user_id), hello
        return client

    def count(self, column: str) -> int:
        """How many messages have a value there."""
        with psycopg.connect(self.database_url) as connection:
            rows = connection.execute("SELECT id, delivered_at FROM messages").fetchall()
        return sum(row[("id", "delivered_at").index(column)] is not None for row in rows)


def main() -> None:
    """Check those that are named, or all that can run here; fail at the first fault."""
    prepare()
    peers = [PEERS[name] for name in sys.argv[1:]] or list(PEERS.values())
    with Postgres() as postgres:
        for peer in peers:
            if peer.needs_node and not shutil.which("node"):
                print(f"{peer.name}: there is no node here")
                continue
            _check(peer, postgres)


def _check(peer: Peer, postgres: Postgres) -> None:
    database = postgres.create_database()
    secret, port = secrets.token_urlsafe(32), processes.free_port()
    process = start(peer, postgres.url(database), secret, port)
    try:
        processes.wait_until_it_answers(process, port)
        for check in CHECKS:
            with ExitStack() as stack:
                check(Checked(peer, port, postgres.url(database), secret, stack))
            print(f"{peer.name}: {check.__name__.replace('_', ' ')}", flush=True)
    finally:
        processes.stop(process)
        postgres.drop_database(database)


def a_bad_token_is_401(checked: Checked) -> None:
    bad = [
        "",
        "x",
        checked.token("alice", secret="another secret, of another server"),
        checked.token("alice", hours=-1),
    ]
    for token in bad:
        assert _handshake_status(checked, token) == 401, token


def a_message_is_stored_answered_and_delivered(checked: Checked) -> None:
    alice, bob = checked.client("alice"), checked.client("bob")
    message_id, before = str(uuid.uuid4()), checked.count("id")
    alice.send("bob", message_id)
    accepted = alice.receive()
    assert (accepted["type"], accepted["id"]) == ("accepted", message_id), accepted
    assert checked.count("id") == before + 1
    _assert_is_message(bob.receive(), message_id)
    _wait_until(lambda: checked.count("delivered_at") == before + 1)


def a_backlog_comes_on_connecting_and_once(checked: Checked) -> None:
    alice = checked.client("alice")
    ids, before = [str(uuid.uuid4()) for _ in range(50)], checked.count("delivered_at")
    for message_id in ids:
        alice.send("carol", message_id)
        assert alice.receive()["type"] == "accepted"
    assert checked.count("delivered_at") == before
    carol = checked.client("carol")
    for message_id in ids:
        _assert_is_message(carol.receive(), message_id)
    _wait_until(lambda: checked.count("delivered_at") == before + len(ids))
    carol.close()
    alice.send("carol", again := str(uuid.uuid4()))
    assert alice.receive()["type"] == "accepted"
    _assert_is_message(checked.client("carol").receive(), again)


def a_bad_frame_is_refused_and_the_next_one_is_not(checked: Checked) -> None:
    alice, stored = checked.client("alice"), checked.count("id")
    taken, other = str(uuid.uuid4()), str(uuid.uuid4())
    alice.send("dave", taken)
    assert alice.receive()["type"] == "accepted"
    for members in ({"encrypted_content": "a b"}, {"encrypted_content": 7}):
        alice.send("dave", other, **members)
        assert alice.receive()["code"] == "bad_request"
    for to, message_id, code in (
        ("", other, "bad_request"),
        ("d" * 256, other, "bad_request"),
        ("dave", "no uuid", "bad_request"),
        ("dave", taken, "id_conflict"),
    ):
        alice.send(to, message_id)
        assert alice.receive()["code"] == code
    alice.send('"\\ {dave}, ü', other)
    assert alice.receive()["type"] == "accepted"
    _assert_is_message(checked.client('"\\ {dave}, ü').receive(), other)
    assert checked.count("id") == stored + 2


def a_burst_arrives_whole(checked: Checked) -> None:
    alice, bob, before = checked.client("alice"), checked.client("bob"), checked.count("id")
    ids = [str(uuid.uuid4()) for _ in range(BURST)]
    for message_id in ids:
        alice.send("bob", message_id)
    answers = [alice.receive() for _ in ids]
    arrived = [bob.receive() for _ in ids]
    assert Counter(frame["type"] for frame in answers) == {"accepted": BURST}
    assert sorted(frame["id"] for frame in answers) == sorted(ids)
    assert sorted(frame["id"] for frame in arrived) == sorted(ids)
    positions = [frame["seq"] for frame in arrived]
    assert positions == sorted(set(positions))
    assert checked.count("id") == before + BURST


CHECKS: tuple[Callable[[Checked], None], ...] = (
    a_bad_token_is_401,
    a_message_is_stored_answered_and_delivered,
    a_backlog_comes_on_connecting_and_once,
    a_bad_frame_is_refused_and_the_next_one_is_not,
    a_burst_arrives_whole,
)


def _handshake_status(checked: Checked, token: str) -> int:
    try:
        checked.connect(token)
    except InvalidStatus as refusal:
        return refusal.response.status_code
    return 101


def _assert_is_message(frame: dict[str, Any], message_id: str) -> None:
    assert (frame["type"], frame["id"]) == ("message", message_id), frame
    assert (frame["sender"], frame["encrypted_content"]) == ("alice", CONTENT)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("not in time")
        time.sleep(processes.POLL_SECONDS)


if __name__ == "__main__":
    main()
