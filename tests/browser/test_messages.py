"""Two devices exchange messages through a server that reads nothing."""

from __future__ import annotations

from pathlib import Path

from tests.browser.conftest import opened
from tests.browser.tabs import Devices, Tab
from tests.servers import GunicornServer

SECRET = "a text that nobody else reads"


def test_two_devices_exchange_texts(alice: Tab, bob: Tab) -> None:
    message_id = alice.call("send", bob.user_id, "hello")
    got = bob.wait_for_body("hello")
    assert (got["id"], got["contact"], got["isMine"]) == (message_id, alice.user_id, False)
    alice.wait("outbox", id=message_id, state="accepted")
    alice.wait("receipt", kind="delivered", ids=[message_id])

    bob.call("send", alice.user_id, "hello yourself", {"type": "reply", "target": message_id})
    assert alice.wait_for_body("hello yourself")["target"] == message_id
    bob.call("markRead", alice.user_id, got["position"])
    alice.wait("receipt", kind="read", ids=[message_id])

    assert alice.bodies(bob.user_id) == ["hello", "hello yourself"]
    assert bob.bodies(alice.user_id) == ["hello", "hello yourself"]
    (conversation,) = bob.call("conversations")
    assert (conversation["last"]["body"], conversation["unread"]) == ("hello yourself", 0)


def test_many_texts_keep_their_order_and_their_chain(alice: Tab, bob: Tab) -> None:
    texts = [f"number {number}" for number in range(30)]
    script = "([to, texts]) => Promise.all(texts.map((text) => client.send(to, text)))"
    alice.page.evaluate(script, [bob.user_id, texts])
    bob.wait_for_body(texts[-1])
    assert [one["body"] for one in bob.told("message")] == texts
    assert not bob.told("gap") + bob.told("fork")


def test_history_comes_in_pages(alice: Tab, bob: Tab) -> None:
    for number in range(5):
        alice.call("send", bob.user_id, f"page {number}")
    bob.wait_for_body("page 4")
    first = bob.call("history", alice.user_id, {"limit": 3})
    rest = bob.call("history", alice.user_id, {"limit": 3, "before": first["next"]})
    bodies = [one["body"] for one in first["messages"] + rest["messages"]]
    assert bodies == [f"page {number}" for number in (4, 3, 2, 1, 0)]
    assert (first["hasMore"], rest["hasMore"]) == (True, False)


def test_a_message_to_oneself_is_told_once(alice: Tab) -> None:
    alice.call("send", alice.user_id, "note")
    alice.wait_for_body("note")
    alice.call("send", alice.user_id, "another note")
    alice.wait_for_body("another note")
    assert [one["body"] for one in alice.told("message")] == ["note", "another note"]
    assert alice.bodies(alice.user_id) == ["note", "another note"]
    assert not alice.told("fork")


def test_typing_is_seen(alice: Tab, bob: Tab) -> None:
    alice.wait("connected")
    bob.wait("connected")
    alice.call("typing", bob.user_id)
    assert bob.wait("typing")["contact"] == alice.user_id


def test_cleartext_is_neither_in_the_database_nor_in_the_browser(
    alice: Tab, bob: Tab, database: Path, server: GunicornServer
) -> None:
    alice.call("send", bob.user_id, SECRET)
    bob.wait_for_body(SECRET)
    assert SECRET in bob.bodies(alice.user_id)
    for tab in (alice, bob):
        assert '"content"' in tab.stored()
        assert SECRET not in tab.stored()
    files = database.parent.glob(f"{database.name}*")
    assert not any(SECRET.encode() in file.read_bytes() for file in files)
    assert SECRET not in server.log()


def test_both_compute_the_same_safety_number(alice: Tab, bob: Tab) -> None:
    numbers = [
        one.call("safetyNumber", other.user_id) for one, other in ((alice, bob), (bob, alice))
    ]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]["digits"]) == 60
    assert numbers[0]["qrText"] == f"e2emsg-safety:1:{numbers[0]['digits']}"


def test_the_page_stays_alive_while_it_computes_a_safety_number(alice: Tab, bob: Tab) -> None:
    script = """async (contact) => {
      let ticks = 0;
      const timer = setInterval(() => ticks++, 1);
      await client.safetyNumber(contact);
      clearInterval(timer);
      return ticks;
    }"""
    assert alice.page.evaluate(script, bob.user_id) > 10


def test_who_has_no_key_cannot_be_written_to(alice: Tab) -> None:
    assert alice.refusal("send", "nobody", "hello") == "no_key"


def test_without_a_secure_context_it_says_so(devices: Devices) -> None:
    tab = devices.new("dora", "Object.defineProperty(window, 'isSecureContext', {value: false})")
    tab.page.wait_for_function("'start' in window")
    text = tab.page.evaluate("start('dora').then(() => 'started', (error) => error.message)")
    assert "HTTPS" in text


def test_without_x25519_it_says_so(devices: Devices) -> None:
    tab = devices.new("emil", "SubtleCrypto.prototype.generateKey = () => Promise.reject('no')")
    tab.page.wait_for_function("'start' in window")
    text = tab.page.evaluate("start('emil').then(() => 'started', (error) => error.message)")
    assert "X25519" in text


def test_another_user_needs_another_store(alice: Tab) -> None:
    script = """async () => {
      const { E2EClient } = await import("/api/static/e2emsg.js");
      const options = { url: "/api", userId: "other", token: () => "x" };
      return E2EClient.open({ ...options, storeName: client.storeName }).then(
        () => "opened", (error) => error.code);
    }"""
    assert alice.page.evaluate(script) == "other_user"


def test_a_user_id_of_any_characters(devices: Devices, alice: Tab) -> None:
    zoe = opened(devices, "Zoë/ü 👋 %2f")
    alice.call("send", zoe.user_id, "for any id")
    zoe.wait_for_body("for any id")
    assert alice.bodies(zoe.user_id) == ["for any id"]
