"""The socket against a server that does what the test says."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from flask_e2emsg.client import Client, Store, connection, events, vault
from flask_e2emsg.client import client as client_module
from flask_e2emsg.client.envelope import Address, seal
from flask_e2emsg.client.keys import IdentityKey
from flask_e2emsg.client.plaintext import Plaintext, encode
from flask_e2emsg.protocol.values import encode_binary
from tests.client.fakes import CREATED_AT, EPOCH, FakeRest, Frame

DEADLINE_SECONDS = 10.0
BOB = IdentityKey.generate()


class Server:
    """Accepts sockets; the test takes them one by one."""

    def __init__(self) -> None:
        self.sockets: Queue[Peer] = Queue()
        self._server = serve(self._hold, "127.0.0.1", 0, compression=None)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def _hold(self, socket: ServerConnection) -> None:
        peer = Peer(socket)
        self.sockets.put(peer)
        peer.ended.wait()

    def next(
        self, head: int = 0, after: int = 0, reset: bool = False, has_backlog: bool = False
    ) -> Peer:
        """The next socket, greeted; without a backlog it is caught up at once."""
        peer = self.sockets.get(timeout=DEADLINE_SECONDS)
        hello = {"type": "hello", "user_id": "alice", "epoch": EPOCH, "head": head}
        peer.send({**hello, "after": after, "reset": reset, "max_in_flight": 256})
        if not has_backlog:
            peer.send({"type": "caught_up", "head": head})
        return peer

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()


class Peer:
    """The server's end of one socket."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket, self.ended = socket, threading.Event()
        assert socket.request is not None
        self.query = parse_qs(urlsplit(socket.request.path).query)
        self.bearer = socket.request.headers["Authorization"]

    def send(self, frame: Frame) -> None:
        self.socket.send(json.dumps(frame))

    def receive(self) -> Frame:
        frame: Frame = json.loads(self.socket.recv(timeout=DEADLINE_SECONDS))
        return frame

    def close(self, code: int) -> None:
        self.socket.close(code)
        self.ended.set()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    while not server.sockets.empty():
        server.sockets.get().ended.set()
    server.stop()


class Alice:
    """A client of the fake server, and what it was told."""

    def __init__(self, server: Server, path: Path, rest: FakeRest) -> None:
        self.tokens: list[str] = []
        self.rest = rest
        self.client = Client(server.url, self.token, Store(path, "passphrase"))

    def token(self) -> str:
        self.tokens.append(f"token-{len(self.tokens)}")
        return self.tokens[-1]

    def until(self, kind: type[Any]) -> Any:
        for event in self.client.events(DEADLINE_SECONDS):
            if isinstance(event, kind):
                return event
        raise AssertionError(f"no {kind.__name__}")


@pytest.fixture
def start(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Alice]]:
    rest, made = FakeRest(), []
    rest.keys["bob"] = BOB.public
    monkeypatch.setattr(vault, "SCRYPT_N", 1 << 10)
    monkeypatch.setattr(connection, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(client_module, "Rest", lambda *_: rest)

    def start() -> Alice:
        made.append(Alice(server, tmp_path / "alice", rest))
        return made[-1]

    yield start
    for alice in made:
        while not server.sockets.empty():
            server.sockets.get().ended.set()
        alice.client.close()


def entry(alice: Alice, seq: int, n: int = 1, message_id: str | None = None) -> Frame:
    """A message of bob's."""
    address = Address(uuid4(), "bob", "alice")
    text = encode(Plaintext("text", 1, n, None, "canary-in-a-message"))
    envelope = seal(text, address, BOB, [alice.rest.keys["alice"]])
    return {
        "type": "message",
        "seq": seq,
        "id": str(address.message_id),
        "sender": "bob",
        "recipient": "alice",
        "conversation_id": None,
        "encrypted_content": encode_binary(envelope),
        "created_at": CREATED_AT,
        "expires_at": None,
    }


def finish(peer: Peer) -> None:
    peer.ended.set()


def test_it_resumes_at_its_cursor_and_is_told_each_message_once(
    server: Server, start: Callable[[], Alice]
) -> None:
    alice = start()
    peer = server.next()
    assert (peer.query, peer.bearer) == ({}, "Bearer token-0")
    frame = entry(alice, 3)
    peer.send(frame)
    assert peer.receive() == {"type": "ack", "seq": 3}
    peer.close(1012)
    again = server.next(head=3, after=3)
    assert again.query == {"cursor": [f"{EPOCH}:3"]}
    again.send(frame)
    assert again.receive() == {"type": "ack", "seq": 3}
    assert alice.until(events.Message).body == "canary-in-a-message"
    again.send(entry(alice, 4, n=2))
    assert alice.until(events.Message).position == 4
    finish(again)


def test_what_is_acknowledged_is_stored(server: Server, start: Callable[[], Alice]) -> None:
    alice = start()
    peer = server.next()
    frame = entry(alice, 1)
    peer.send(frame)
    peer.receive()
    alice.client._store.database._connection.rollback()
    assert alice.client._store.entries.position_of(frame["id"]) == (EPOCH, 1)
    finish(peer)


def test_a_message_under_another_position_is_a_replay(
    server: Server, start: Callable[[], Alice]
) -> None:
    alice = start()
    peer = server.next()
    frame = entry(alice, 1)
    peer.send(frame)
    assert alice.until(events.Message).id == frame["id"]
    peer.send({**frame, "seq": 2})
    assert alice.until(events.Replay) == events.Replay("bob", frame["id"])
    finish(peer)


def test_own_positions_move_the_cursor_when_all_below_has_come(
    server: Server, start: Callable[[], Alice]
) -> None:
    alice = start()
    peer = server.next()
    message_id = alice.client.send("bob", "text")
    assert peer.receive()["id"] == message_id
    answer = {"type": "accepted", "id": message_id, "created_at": CREATED_AT, "duplicate": False}
    peer.send({**answer, "seq": 2})  # overtakes the entry at 1
    alice.until(events.Sent)
    cursor = alice.client._store.cursor
    assert cursor is not None
    assert cursor.seq == 0
    peer.send(entry(alice, 1))
    assert peer.receive() == {"type": "ack", "seq": 2}
    finish(peer)


def test_an_accepted_that_was_lost_comes_as_an_entry(
    server: Server, start: Callable[[], Alice]
) -> None:
    alice = start()
    peer = server.next()
    message_id = alice.client.send("bob", "text")
    content = peer.receive()["encrypted_content"]
    peer.close(1012)
    again = server.next(head=1, has_backlog=True)
    own = {**entry(alice, 1), "id": message_id, "sender": "alice", "recipient": "bob"}
    again.send({**own, "encrypted_content": content})
    assert again.receive() == {"type": "ack", "seq": 1}
    assert alice.until(events.Sent).id == message_id
    assert alice.client._store.outbox.get(message_id) is None
    again.send({"type": "caught_up", "head": 1})
    next_id = alice.client.send("bob", "another text")
    assert again.receive()["id"] == next_id
    finish(again)


def test_without_an_answer_the_same_bytes_go_out_after_the_backlog(
    server: Server, start: Callable[[], Alice]
) -> None:
    alice = start()
    peer = server.next()
    alice.client.send("bob", "text")
    sent = peer.receive()
    peer.close(1012)
    again = server.next(head=1, has_backlog=True)
    again.send(entry(alice, 1))
    assert again.receive() == {"type": "ack", "seq": 1}
    again.send({"type": "caught_up", "head": 1})
    assert again.receive() == sent
    finish(again)


def test_a_token_that_ends_is_refreshed(server: Server, start: Callable[[], Alice]) -> None:
    start()
    peer = server.next()
    peer.send({"type": "expiring", "expires_at": CREATED_AT})
    assert peer.receive() == {"type": "refresh", "token": "token-1"}
    finish(peer)


def test_without_a_token_it_tries_again_later(server: Server, start: Callable[[], Alice]) -> None:
    alice = start()
    peer, failures = server.next(), ["no"]
    ask = alice.token

    def sometimes() -> str:
        if failures:
            raise OSError(failures.pop())
        return ask()

    alice.client._connection._tokens._ask = sometimes
    peer.close(4401)
    reasons = {alice.until(events.Disconnected).reason for _ in range(2)}
    assert "no_token" in reasons
    assert not failures
    finish(server.next())


def test_4401_asks_for_a_new_token(server: Server, start: Callable[[], Alice]) -> None:
    start()
    server.next().close(4401)
    again = server.next()
    assert again.bearer == "Bearer token-1"
    finish(again)


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4408, 4429, 4480])
def test_other_codes_connect_again(server: Server, start: Callable[[], Alice], code: int) -> None:
    alice = start()
    server.next().close(code)
    ended = alice.until(events.Disconnected)
    assert ended.code == code
    assert ended.retry_in is not None
    finish(server.next())


def test_4403_is_the_end(server: Server, start: Callable[[], Alice]) -> None:
    alice = start()
    server.next().close(4403)
    assert alice.until(events.Disconnected) == events.Disconnected(4403, "", None)
    alice.client._connection._thread.join(DEADLINE_SECONDS)
    assert not alice.client._connection._thread.is_alive()


def test_a_log_that_was_made_anew_is_said(server: Server, start: Callable[[], Alice]) -> None:
    alice = start()
    peer = server.next(head=7, after=5, reset=True, has_backlog=True)
    assert alice.until(events.Reset) == events.Reset()
    alice.until(events.Connected)
    cursor = alice.client._store.cursor
    assert cursor is not None
    assert cursor.seq == 5
    finish(peer)


def test_a_frame_that_makes_no_sense_ends_the_connection_and_quotes_nothing(
    server: Server, start: Callable[[], Alice], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    alice = start()
    peer = server.next()
    peer.send({"type": "accepted", "id": 7, "canary-in-a-frame": 1})
    alice.until(events.Disconnected)
    finish(peer)
    finish(server.next())
    logged = [one for one in caplog.records if one.name != "websockets.server"]
    text = " ".join(caplog.handler.format(one) for one in logged)
    assert "KeyError" in text
    assert "canary" not in text
    assert "token-" not in text


def test_closing_says_goodbye(server: Server, start: Callable[[], Alice]) -> None:
    alice = start()
    peer = server.next()
    alice.until(events.Connected)
    closing = threading.Thread(target=alice.client.close)
    closing.start()
    with pytest.raises(ConnectionClosed) as closed:
        peer.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000
    finish(peer)
    closing.join()
    assert list(alice.client.events()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"created_at": "yesterday"},
        {"conversation_id": 7},
        {"sender": ["bob"]},
        {"seq": "1"},
    ],
)
def test_an_entry_that_makes_no_sense_is_kept_nowhere(
    server: Server, start: Callable[[], Alice], change: Frame
) -> None:
    alice = start()
    peer = server.next()
    peer.send({**entry(alice, 1), **change})
    assert alice.until(events.Disconnected).reason == "garbled"
    assert alice.client._store.entries.waiting(1) == []
    finish(peer)
    again = server.next()
    again.send(entry(alice, 1))
    assert alice.until(events.Message).position == 1
    finish(again)
