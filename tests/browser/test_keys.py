"""Identity keys: kept where no script can read them, backed up, replaced, and told of."""

from __future__ import annotations

import re

from tests.browser.tabs import Devices, Tab

EXPORT = """async () => {
  const [{ name }] = await indexedDB.databases();
  const got = (request) =>
    new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
  const database = await got(indexedDB.open(name));
  const keys = database.transaction("keys").objectStore("keys");
  const [{ kid, privateKey }] = await got(keys.getAll());
  database.close();
  const refusals = [];
  for (const format of ["pkcs8", "jwk", "raw"]) {
    await crypto.subtle.exportKey(format, privateKey).catch((error) => refusals.push(error.name));
  }
  return { kid, extractable: privateKey.extractable, refusals };
}"""


def test_the_key_is_the_same_and_not_extractable_after_a_reload(alice: Tab) -> None:
    before = alice.page.evaluate(EXPORT)
    assert alice.reload() == "ready"
    after = alice.page.evaluate(EXPORT)
    assert after == before
    assert after["extractable"] is False
    assert len(after["refusals"]) == 3


def test_a_backup_opens_the_whole_history_on_another_device(
    alice: Tab, bob: Tab, devices: Devices
) -> None:
    code = alice.call("makeBackup")
    assert re.fullmatch(r"(\w{4}-){6}\w{4}", code)
    alice.call("send", bob.user_id, "from the old device")
    bob.wait_for_body("from the old device")
    bob.call("send", alice.user_id, "to the old device")
    alice.wait_for_body("to the old device")

    other = devices.new(alice.user_id)
    assert other.start() == "missing"
    assert other.refusal("send", bob.user_id, "too early") == "own_key_missing"
    assert other.bodies(bob.user_id) == [None, None]
    assert other.refusal("restore", code.replace(code[0], "2" if code[0] == "1" else "1")) == (
        "bad_code"
    )
    assert other.call("restore", code.lower()) == "ready"
    assert other.bodies(bob.user_id) == ["from the old device", "to the old device"]

    other.call("send", bob.user_id, "from the new device")
    bob.wait_for_body("from the new device")
    alice.wait_for_body("from the new device")
    alice.call("send", bob.user_id, "from the old one again")
    bob.wait_for_body("from the old one again")
    bob.call("send", alice.user_id, "to both")
    for tab in (alice, other):
        tab.wait_for_body("to both")
    for tab in (alice, other, bob):
        assert not tab.told("gap") + tab.told("fork") + tab.told("keychanged")


def test_a_backup_is_made_again_only_with_the_old_code(alice: Tab, devices: Devices) -> None:
    code = alice.call("makeBackup")
    alice.reload()
    assert alice.refusal("makeBackup") == "own_key_missing"
    newer = alice.call("makeBackup", {"oldCode": code})
    other = devices.new(alice.user_id)
    other.start()
    assert other.refusal("restore", code) == "bad_code"
    assert other.call("restore", newer) == "ready"


def test_a_backup_is_not_replaced_by_mistake(alice: Tab, devices: Devices) -> None:
    alice.call("makeBackup")
    other = devices.new(alice.user_id)
    other.start()
    other.call("replaceKey")
    assert other.refusal("makeBackup") == "backup_exists"
    other.call("makeBackup", {"replace": True})


def test_without_a_code_there_is_a_new_key_that_contacts_accept(
    alice: Tab, bob: Tab, devices: Devices
) -> None:
    alice.call("send", bob.user_id, "under the old key")
    bob.wait_for_body("under the old key")
    other = devices.new(alice.user_id)
    assert other.start() == "missing"
    assert other.call("replaceKey") == "ready"

    other.call("send", bob.user_id, "under the new key")
    waiting = bob.wait("unreadable")
    assert (waiting["unreadable"], waiting["body"]) == ("unknown_key", None)
    change = bob.wait("keychanged", contact=alice.user_id)
    bob.call("send", alice.user_id, "who are you?")
    bob.wait("outbox", state="held")
    assert not other.told("message", body="who are you?")

    number = bob.call("safetyNumber", alice.user_id)
    assert number["isChanged"]
    assert number["digits"] == change["safetyNumber"]
    assert number["digits"] == other.call("safetyNumber", bob.user_id)["digits"]
    assert bob.refusal("acceptKey", alice.user_id, "0" * 60) == "no_key"
    bob.call("acceptKey", alice.user_id, number["groups"])
    bob.wait_for_body("under the new key")
    other.wait_for_body("who are you?")
    assert bob.bodies(alice.user_id) == ["under the old key", "under the new key", "who are you?"]
    assert not bob.told("fork") + other.told("fork")


def test_a_device_whose_key_was_replaced_stops_sending_and_says_so(
    alice: Tab, bob: Tab, devices: Devices
) -> None:
    alice.call("send", bob.user_id, "before")
    bob.wait_for_body("before")
    other = devices.new(alice.user_id)
    other.start()
    other.call("replaceKey")
    message_id = alice.call("send", bob.user_id, "after")
    alice.wait("keychanged", isOwn=True)
    assert alice.call("keyState") == "foreign"
    assert not alice.told("outbox", id=message_id, state="accepted")
    assert alice.call("replaceKey") == "ready"
    alice.wait("outbox", id=message_id, state="accepted")
    bob.wait_for_body("after")


def test_a_stale_key_of_the_recipient_is_noticed_by_the_refusal(
    alice: Tab, bob: Tab, devices: Devices
) -> None:
    alice.call("send", bob.user_id, "first")
    bob.wait_for_body("first")
    newer = devices.new(bob.user_id)
    newer.start()
    newer.call("replaceKey")
    alice.call("send", bob.user_id, "second")
    assert alice.wait("keychanged")["contact"] == bob.user_id
    alice.call("send", bob.user_id, "third")
    alice.call("acceptKey", bob.user_id)
    newer.wait_for_body("second")
    newer.wait_for_body("third")
    assert not newer.told("gap") + newer.told("fork")


def test_both_keys_of_a_restored_device_read_the_history(
    alice: Tab, bob: Tab, devices: Devices
) -> None:
    code = alice.call("makeBackup")
    alice.call("send", bob.user_id, "old")
    bob.wait_for_body("old")
    other = opened_with_new_key(devices, alice.user_id)
    other.call("send", bob.user_id, "new")
    other.wait("outbox", state="accepted")
    assert other.bodies(bob.user_id) == [None, "new"]
    assert other.call("restore", code) == "ready"
    assert other.bodies(bob.user_id) == ["old", "new"]


def opened_with_new_key(devices: Devices, user_id: str) -> Tab:
    tab = devices.new(user_id)
    tab.start()
    tab.call("replaceKey")
    return tab
