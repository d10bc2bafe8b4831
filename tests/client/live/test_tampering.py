"""What somebody does who has the server: refused, or told to the user; and what they can find."""

from __future__ import annotations

from typing import Any

import pytest

from flask_e2emsg.client import events
from tests.client.live.devices import PASSPHRASE, Device, Devices
from tests.servers import GunicornServer

CANARY = "canary-in-a-message-4711"


@pytest.fixture
def alice(devices: Devices) -> Device:
    return devices.ready("alice")


def columns(devices: Devices, table: str) -> list[str]:
    with devices.database() as database:
        return [row[1] for row in database.execute(f"PRAGMA table_info({table})")]


def content_of(devices: Devices, message_id: str) -> bytes:
    with devices.database() as database:
        rows = database.execute("SELECT id, encrypted_content FROM e2emsg_messages").fetchall()
    (content,) = [content for key, content in rows if key_text(key) == message_id.replace("-", "")]
    assert isinstance(content, bytes)
    return content


def key_text(key: Any) -> str:
    return key.hex() if isinstance(key, bytes) else str(key).replace("-", "")


def overwrite(devices: Devices, message_id: str, content: bytes) -> None:
    with devices.database() as database:
        for (key,) in database.execute("SELECT id FROM e2emsg_messages").fetchall():
            if key_text(key) == message_id.replace("-", ""):
                database.execute(
                    "UPDATE e2emsg_messages SET encrypted_content = ? WHERE id = ?", (content, key)
                )


@pytest.fixture
def absent_bob(devices: Devices, alice: Device) -> Device:
    """Somebody who has a key and is away."""
    bob = devices.ready("bob")
    alice.write(bob, "zero")
    bob.until(events.Message)
    bob.client.close()
    return bob


def test_a_message_that_was_altered_is_refused_and_the_next_one_tells_the_gap(
    devices: Devices, alice: Device, absent_bob: Device
) -> None:
    altered, next_one = alice.write(absent_bob, "one"), alice.write(absent_bob, "two")
    content = bytearray(content_of(devices, altered))
    content[-1] ^= 1
    overwrite(devices, altered, bytes(content))
    bob = devices.new("bob")
    refused = bob.until(events.Unreadable, id=altered)
    assert (refused.reason, refused.held, refused.contact) == ("forged", False, alice.user_id)
    bob.until(events.Message, id=next_one)
    (gap,) = bob.told(events.Gap)
    assert (gap.expected, gap.got) == (2, 3)
    assert isinstance(bob.history(alice)[1], events.Unreadable)


def test_one_message_in_anothers_place_is_refused(
    devices: Devices, alice: Device, absent_bob: Device
) -> None:
    one, two = alice.write(absent_bob, "one"), alice.write(absent_bob, "two")
    contents = content_of(devices, one), content_of(devices, two)
    overwrite(devices, one, contents[1])
    overwrite(devices, two, contents[0])
    bob = devices.new("bob")
    for message_id in (one, two):
        assert bob.until(events.Unreadable, id=message_id).reason == "wrong_message_id"
    assert not bob.told(events.Message)


def test_bytes_that_are_no_envelope_are_refused(
    devices: Devices, alice: Device, absent_bob: Device
) -> None:
    message_id = alice.write(absent_bob, "one")
    for content in (b"\x00", b"\x02\x01" + bytes(500), b"\x01\x01" + bytes(30)):
        overwrite(devices, message_id, content)
        history = alice.history(absent_bob)[-1]
        assert isinstance(history, events.Unreadable)
    assert devices.new("bob").until(events.Unreadable, id=message_id).held is False


def test_a_message_that_is_left_out_is_a_gap(
    devices: Devices, alice: Device, absent_bob: Device
) -> None:
    left_out = alice.write(absent_bob, "one")
    alice.write(absent_bob, "two")
    assert absent_bob.rest.get(f"/api/messages/{alice.user_id}").status == 200
    bob = devices.new("bob")
    bob.client._store.entries.add("epoch", {"type": "typing", "id": left_out}, None, "told")
    bob.until(events.Message, body="two")
    (gap,) = bob.told(events.Gap)
    assert (gap.contact, gap.expected, gap.got) == (alice.user_id, 2, 3)


def test_another_key_in_the_directory_is_seen(
    devices: Devices, alice: Device, absent_bob: Device
) -> None:
    with devices.database() as database:
        keys = database.execute("SELECT user_id, public_key FROM e2emsg_accounts").fetchall()
        (evil,) = [key for user_id, key in keys if user_id == alice.user_id]
        database.execute(
            "UPDATE e2emsg_accounts SET public_key = ? WHERE user_id = ?",
            (evil, absent_bob.user_id),
        )
    alice.client.close()
    again = devices.ready("alice")
    with pytest.raises(Exception, match="another key"):
        again.client.send(absent_bob.user_id, "to whom?")
    again.until(events.KeyChanged, contact=absent_bob.user_id)


def test_cleartext_and_keys_are_nowhere(
    server: GunicornServer, devices: Devices, alice: Device
) -> None:
    bob = devices.ready("bob")
    alice.write(bob, CANARY)
    message = bob.until(events.Message)
    assert message.body == CANARY
    alice.history(bob)
    secrets = [CANARY.encode(), PASSPHRASE.encode()]
    for device in (alice, bob):
        private = device.client._me.keys[0].to_bytes()
        secrets += [private, private.hex().encode()]
        device.client.close()
    path = server.environment["DATABASE_URL"].removeprefix("sqlite:///")
    files = [*devices.files(), server.log_path]
    found = [file.read_bytes() for file in files]
    for end in ("", "-wal"):
        with open(path + end, "rb") as database:
            found.append(database.read())
    assert not [secret for secret in secrets for text in found if secret in text]
    assert CANARY not in repr([*alice.seen, *bob.seen])
