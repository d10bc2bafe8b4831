"""Keys that change, keys that are restored, and numbers that people compare."""

from __future__ import annotations

import pytest

from flask_e2emsg.client import events
from flask_e2emsg.client.backup import new_code
from flask_e2emsg.client.errors import (
    KeyNeeded,
    KeyNotAccepted,
    Mistyped,
    NoBackup,
    OwnKeyReplaced,
    WrongCode,
)
from tests.client.live.devices import Device, Devices


@pytest.fixture
def alice(devices: Devices) -> Device:
    return devices.ready("alice")


@pytest.fixture
def bob(devices: Devices) -> Device:
    return devices.ready("bob")


def lose_the_key(devices: Devices, name: str) -> Device:
    """The same person on a new device, without the old key."""
    device = devices.new(name, "new phone")
    device.until(events.OwnKeyChanged, known_here=False)
    with pytest.raises(KeyNeeded):
        device.client.send("anybody", "text")
    device.client.make_new_key()
    device.until(events.CaughtUp)
    return device


def restart(devices: Devices, device: Device, name: str) -> Device:
    device.client.close()
    return devices.ready(name)


def test_both_see_the_same_safety_number(alice: Device, bob: Device) -> None:
    number = alice.client.safety_number(bob.user_id)
    assert number == bob.client.safety_number(alice.user_id)
    assert len(number.digits) == 60


def test_a_key_that_has_changed_stops_sending_until_it_is_accepted(
    devices: Devices, alice: Device, bob: Device
) -> None:
    alice.write(bob, "to the old key")
    old_number = alice.client.safety_number(bob.user_id)
    bob.client.close()
    new_bob = lose_the_key(devices, "bob")
    again = restart(devices, alice, "alice")
    with pytest.raises(KeyNotAccepted):
        again.client.send(bob.user_id, "not yet")
    number = again.until(events.KeyChanged, contact=bob.user_id).safety_number
    assert number == again.client.safety_number(bob.user_id) != old_number
    with pytest.raises(KeyNotAccepted):
        again.client.accept_key(bob.user_id, old_number)
    again.client.accept_key(bob.user_id, number)
    again.write(new_bob, "to the new key")
    assert new_bob.until(events.Message, body="to the new key")
    assert not new_bob.told(events.Fork)
    assert not new_bob.told(events.Gap)  # the hash of what it cannot read is what `prev` says


def test_messages_under_a_key_that_is_not_accepted_are_held(
    devices: Devices, alice: Device, bob: Device
) -> None:
    bob.write(alice, "under the old key")
    alice.until(events.Message)
    bob.client.close()
    new_bob = lose_the_key(devices, "bob")
    new_bob.client.send(alice.user_id, "under the new key")
    alice.until(events.KeyChanged)
    held = alice.until(events.Unreadable)
    assert (held.held, held.reason) == (True, "unknown_sender_key")
    alice.client.accept_key(bob.user_id)
    assert alice.until(events.Message, id=held.id).body == "under the new key"
    bodies = [one.body for one in alice.history(bob) if isinstance(one, events.Message)]
    assert bodies == ["under the old key", "under the new key"]


def test_what_waits_is_sealed_again_for_the_accepted_key(
    devices: Devices, alice: Device, bob: Device
) -> None:
    alice.write(bob, "first")
    alice.client.close()
    offline = devices.offline("alice")
    ids = [offline.client.send(bob.user_id, f"waits {number}") for number in range(3)]
    offline.client.close()
    bob.client.close()
    new_bob = lose_the_key(devices, "bob")
    again = devices.ready("alice")
    assert again.told(events.KeyChanged)
    assert not again.told(events.Sent)
    again.client.accept_key(bob.user_id)
    for message_id in ids:
        assert new_bob.until(events.Message, id=message_id)
    assert not new_bob.told(events.Gap) + new_bob.told(events.Fork)
    bodies = [one.body for one in again.history(bob) if isinstance(one, events.Message)]
    assert bodies == ["first", "waits 0", "waits 1", "waits 2"]


def test_another_key_of_mine_in_the_directory_stops_sending(
    devices: Devices, alice: Device, bob: Device
) -> None:
    alice.write(bob, "mine")
    alice.client.close()
    elsewhere = lose_the_key(devices, "alice")
    again = devices.ready("alice")
    assert [one.known_here for one in again.told(events.OwnKeyChanged)] == [True]
    with pytest.raises(OwnKeyReplaced):
        again.client.send(bob.user_id, "under a key that nobody knows")
    elsewhere.client.close()
    again.client.publish_my_key()
    again.write(bob, "mine again")


def test_a_restored_store_reads_the_whole_history(
    devices: Devices, alice: Device, bob: Device
) -> None:
    alice.write(bob, "question")
    bob.write(alice, "answer")
    code = alice.client.make_backup()
    alice.client.close()
    other = devices.new("alice", "laptop")
    other.until(events.OwnKeyChanged, known_here=False)
    with pytest.raises(Mistyped):
        other.client.restore(code[:-1])
    with pytest.raises(WrongCode):
        other.client.restore(new_code())
    other.client.restore(code)
    other.until(events.CaughtUp)
    bodies = [one.body for one in other.history(bob) if isinstance(one, events.Message)]
    assert bodies == ["question", "answer"]
    other.write(bob, "from the laptop")
    bob.until(events.Message, body="from the laptop")
    assert not bob.told(events.Gap) + bob.told(events.Fork)


def test_two_devices_of_one_key_see_what_each_other_writes(
    devices: Devices, alice: Device, bob: Device
) -> None:
    code = alice.client.make_backup()
    laptop = devices.new("alice", "laptop")
    laptop.until(events.OwnKeyChanged)
    laptop.client.restore(code)
    laptop.until(events.CaughtUp)
    for number in range(3):
        for writer, reader in ((alice, laptop), (laptop, alice)):
            message_id = writer.write(bob, f"round {number}")
            assert reader.until(events.Message, id=message_id).mine is True
            bob.until(events.Message, id=message_id)
    assert not bob.told(events.Gap) + bob.told(events.Fork)


def test_what_was_written_offline_is_sealed_behind_what_another_device_wrote(
    devices: Devices, alice: Device, bob: Device
) -> None:
    alice.write(bob, "one")
    code = alice.client.make_backup()
    alice.client.close()
    laptop = devices.new("alice", "laptop")
    laptop.until(events.OwnKeyChanged)
    laptop.client.restore(code)
    laptop.until(events.CaughtUp)
    laptop.write(bob, "two, on the laptop")
    bob.until(events.Message, body="two, on the laptop")
    phone = devices.offline("alice")
    written = phone.client.send(bob.user_id, "two, on the phone")
    phone.client.close()
    devices.ready("alice").quiet()
    bob.until(events.Message, id=written)
    assert not bob.told(events.Fork) + bob.told(events.Gap)


def test_a_backup_replaces_the_one_before(devices: Devices, alice: Device) -> None:
    with pytest.raises(NoBackup):
        alice.client.restore(new_code())
    first, second = alice.client.make_backup(), alice.client.make_backup()
    with pytest.raises(WrongCode):
        alice.client.restore(first)
    alice.client.restore(second)
    assert alice.rest.call("DELETE", "/api/key-backup").status == 204  # by another device
    with pytest.raises(NoBackup):
        alice.client.restore(second)
    alice.client.restore(alice.client.make_backup())
