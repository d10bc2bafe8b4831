"""Messages between two clients: live, later, after faults; each once and in order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flask_e2emsg.client import Store, events
from flask_e2emsg.client.errors import NoSuchKey, StoreInUse, TooLong, WrongPassphrase
from tests.client.live.devices import PASSPHRASE, Device, Devices
from tests.servers import REPOSITORY, GunicornServer


@pytest.fixture
def alice(devices: Devices) -> Device:
    return devices.ready("alice")


@pytest.fixture
def bob(devices: Devices) -> Device:
    return devices.ready("bob")


def test_texts_go_both_ways(alice: Device, bob: Device) -> None:
    message_id = alice.write(bob, "Hello, Bob!")
    got = bob.until(events.Message)
    assert (got.id, got.sender, got.body, got.mine) == (
        message_id,
        alice.user_id,
        "Hello, Bob!",
        False,
    )
    bob.write(alice, "Grüße 👋", type="reply", target=message_id, conversation_id="a talk")
    got = alice.until(events.Message)
    assert (got.type, got.body, got.target, got.conversation_id) == (
        "reply",
        "Grüße 👋",
        message_id,
        "a talk",
    )
    assert not [*alice.told(events.Gap), *bob.told(events.Gap), *alice.told(events.Fork)]


def test_receipts_and_typing(alice: Device, bob: Device) -> None:
    message_id = alice.write(bob, "Read me")
    got = bob.until(events.Message)
    alice.until(events.Receipt, kind="delivered", ids=(message_id,))
    bob.client.mark_read([got.id])
    alice.until(events.Receipt, kind="read", by=bob.user_id, ids=(message_id,))
    bob.client.set_typing(alice.user_id)
    assert alice.until(events.Typing).active is True


def test_many_at_once_keep_their_order(alice: Device, bob: Device) -> None:
    sent = [f"number {number}" for number in range(60)]
    for text in sent:
        alice.client.send(bob.user_id, text)
    for _ in sent:
        bob.until(events.Message)
    assert bob.bodies() == sent
    assert not bob.told(events.Gap) + bob.told(events.Fork)


def test_what_came_while_one_was_away_comes_once(devices: Devices, alice: Device) -> None:
    bob = devices.ready("bob")
    alice.write(bob, "before")
    bob.until(events.Message)
    bob.client.close()
    sent = [f"while away {number}" for number in range(5)]
    for text in sent:
        alice.write(bob, text)
    again = devices.new("bob")
    assert again.until(events.Connected).backlog >= len(sent)
    again.until(events.CaughtUp)
    again.quiet()
    assert again.bodies() == sent


def test_both_come_back_when_the_worker_is_killed(
    server: GunicornServer, alice: Device, bob: Device
) -> None:
    alice.write(bob, "before")
    server.kill_worker()
    for number in range(5):
        alice.client.send(bob.user_id, f"after {number}")
    for number in range(5):
        bob.until(events.Message, body=f"after {number}")
    alice.until(events.Connected)
    assert bob.bodies() == ["before", *(f"after {number}" for number in range(5))]
    assert not [*bob.told(events.Gap), *bob.told(events.Fork), *bob.told(events.Replay)]


DYING = """
import os, sys
from flask_e2emsg.client import Client, Store, vault
vault.SCRYPT_N = 1 << 10
path, passphrase, bob = sys.argv[1:]
client = Client("http://127.0.0.1:9", lambda: "none", Store(path, passphrase))
for number in range(3):
    client.send(bob, f"last words {number}")
os.kill(os.getpid(), 9)
"""


def test_the_outbox_outlives_a_killed_client(devices: Devices, bob: Device) -> None:
    alice = devices.ready("alice")
    alice.write(bob, "first")
    alice.client.close()
    command = [sys.executable, "-c", DYING, str(alice.path), PASSPHRASE, bob.user_id]
    died = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=60, check=False)
    assert died.returncode == -9, died.stderr.decode()
    devices.ready("alice")
    for number in range(3):
        bob.until(events.Message, body=f"last words {number}")
    assert not bob.told(events.Gap) + bob.told(events.Fork)


UNDER_GEVENT = """
from gevent import monkey
monkey.patch_all()
import json, sys
from urllib.request import Request, urlopen
from flask_e2emsg.client import Client, Store, events, vault
vault.SCRYPT_N = 1 << 10
url, folder = sys.argv[1:]

def token(user_id):
    body = json.dumps({"user_id": user_id}).encode()
    request = Request(url + "/token", body, {"Content-Type": "application/json"})
    return lambda: json.load(urlopen(request))["access_token"]

with (
    Client(url, token("ada-under-gevent"), Store(folder + "/ada", "p")) as ada,
    Client(url, token("ben-under-gevent"), Store(folder + "/ben", "p")) as ben,
):
    ada.send(ben.user_id, "from a greenlet")
    print(next(e.body for e in ben.events(20) if isinstance(e, events.Message)))
"""


def test_it_works_under_gevent(server: GunicornServer, tmp_path: Path, devices: Devices) -> None:
    command = [sys.executable, "-c", UNDER_GEVENT, server.url, str(tmp_path)]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "from a greenlet\n"), done.stderr


def test_a_message_that_was_not_handled_is_told_again(devices: Devices, alice: Device) -> None:
    bob = devices.ready("bob")
    alice.write(bob, "one")
    alice.write(bob, "two")
    assert bob.until(events.Message).body == "one"
    assert bob.until(events.Message).body == "two"
    bob.client._store.database._connection.rollback()  # as if the process had died here
    bob.client._receiving._told = None
    bob.client.close()
    again = devices.new("bob")
    again.until(events.Message, body="two")
    assert again.bodies() in (["two"], ["one", "two"])
    assert not again.told(events.Gap) + again.told(events.Fork)


def test_history_has_both_sides_and_their_times(alice: Device, bob: Device) -> None:
    alice.write(bob, "question")
    bob.until(events.Message)
    bob.write(alice, "answer")
    for device, other in ((alice, bob), (bob, alice)):
        found = device.history(other)
        assert [one.body for one in found if isinstance(one, events.Message)] == [
            "question",
            "answer",
        ]
    question = alice.history(bob)[0]
    assert isinstance(question, events.Message)
    assert question.delivered_at is not None


def test_what_the_store_has_is_read_without_a_server(
    devices: Devices, alice: Device, bob: Device
) -> None:
    alice.write(bob, "question")
    bob.write(alice, "answer")
    alice.until(events.Message)
    alice.client.close()
    kept = devices.offline("alice").client.kept(bob.user_id)
    assert [one.body for one in kept if isinstance(one, events.Message)] == ["answer", "question"]


def test_history_comes_in_pages(alice: Device, bob: Device) -> None:
    for number in range(7):
        alice.client.send(bob.user_id, str(number))
    for _ in range(7):
        alice.until(events.Sent)
    first = alice.client.history(bob.user_id, limit=4)
    second = alice.client.history(bob.user_id, first.next, limit=4)
    pages = [*first.messages, *second.messages]
    assert [one.body for one in pages if isinstance(one, events.Message)] == list("6543210")
    assert second.next is None


def test_a_message_to_oneself(alice: Device) -> None:
    alice.write(alice, "a note")
    (note,) = alice.history(alice)[:1]
    assert isinstance(note, events.Message)
    assert (note.body, note.mine) == ("a note", True)


def test_who_has_no_key_gets_nothing(alice: Device) -> None:
    with pytest.raises(NoSuchKey):
        alice.client.send("nobody", "Is anybody there?")


def test_what_is_too_long_is_refused_at_once(alice: Device, bob: Device) -> None:
    with pytest.raises(TooLong):
        alice.client.send(bob.user_id, "x" * 70_000)
    alice.write(bob, "x" * 60_000)
    assert len(bob.until(events.Message).body or "") == 60_000


def test_what_the_server_refuses_leaves_no_gap(alice: Device, bob: Device) -> None:
    alice.write(bob, "one")
    refused = alice.client.send(bob.user_id, "two", expires_in=-1)
    alice.client.send(bob.user_id, "three")
    assert alice.until(events.Refused, id=refused).final is True
    bob.until(events.Message, body="three")
    alice.write(bob, "four")
    bob.until(events.Message, body="four")
    assert bob.bodies() == ["one", "three", "four"]
    assert not bob.told(events.Gap) + bob.told(events.Fork)


def test_a_store_is_one_clients_and_opens_with_its_passphrase(devices: Devices) -> None:
    alice = devices.ready("alice")
    with pytest.raises(StoreInUse):
        Store(alice.path, PASSPHRASE)
    alice.client.close()
    with pytest.raises(WrongPassphrase):
        Store(alice.path, "another one")
    assert alice.path.stat().st_mode & 0o077 == 0
