"""What breaks: workers, sockets, tabs, rows of the database."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.browser.tabs import Devices, Tab
from tests.servers import GunicornServer

# A socket to a port that nobody listens on fails like one that a network has blocked.
NO_SOCKETS = """
  const Real = WebSocket;
  window.WebSocket = class extends Real {
    constructor(url, protocols) { super("ws://127.0.0.1:9/", protocols); }
  };
"""


def test_a_killed_worker_loses_nothing(alice: Tab, bob: Tab, server: GunicornServer) -> None:
    alice.call("send", bob.user_id, "before")
    bob.wait_for_body("before")
    server.kill_worker()
    for tab in (alice, bob):
        tab.wait("disconnected")
    alice.call("send", bob.user_id, "meanwhile")
    bob.wait_for_body("meanwhile")
    assert [one["body"] for one in bob.told("message")] == ["before", "meanwhile"]
    assert len(alice.told("connected")) == 2
    assert not bob.told("gap") + bob.told("fork")


def test_what_was_sent_offline_goes_out_after_a_reload(alice: Tab, bob: Tab) -> None:
    alice.call("send", bob.user_id, "online")
    for tab in (alice, bob):
        tab.wait_for_body("online")
    alice.context.set_offline(True)
    alice.call("send", bob.user_id, "offline")
    assert alice.bodies(bob.user_id) == ["online"]
    alice.context.set_offline(False)
    alice.reload()
    bob.wait_for_body("offline")


def test_where_sockets_are_blocked_it_polls(bob: Tab, devices: Devices) -> None:
    alice = devices.new(f"polling-{bob.user_id}", NO_SOCKETS)
    assert alice.start() == "ready"
    assert alice.wait("connected")["transport"] == "polling"
    alice.call("send", bob.user_id, "by post")
    bob.wait_for_body("by post")
    bob.call("send", alice.user_id, "by poll")
    got = alice.wait_for_body("by poll")
    bob.wait("receipt", kind="delivered", ids=[got["id"]])
    alice.wait("receipt", kind="delivered")
    assert [one["body"] for one in alice.told("message")] == ["by post", "by poll"]
    assert not alice.told("fork") + bob.told("fork")


def test_two_tabs_share_one_identity_and_one_outbox(alice: Tab, bob: Tab, devices: Devices) -> None:
    second = devices.another_tab(alice.context, alice.user_id)
    assert second.start() == "ready"
    second.wait("connected")
    for number in range(5):
        for tab in (alice, second):
            tab.call("send", bob.user_id, f"{number} of {tab is alice}")
    bob.call("send", alice.user_id, "to both tabs")
    for tab in (alice, second):
        tab.wait_for_body("to both tabs")
        tab.wait_for_body("4 of False")
        assert len(tab.told("message")) == 11
    for body in ("4 of False", "to both tabs"):
        bob.wait_for_body(body)
    assert len(bob.told("message")) == 11
    assert not bob.told("gap") + bob.told("fork")


def test_the_other_tab_takes_the_lead(alice: Tab, bob: Tab, devices: Devices) -> None:
    second = devices.another_tab(alice.context, alice.user_id)
    second.start()
    second.wait("connected")
    alice.page.close()
    bob.call("send", alice.user_id, "to whoever leads")
    second.wait_for_body("to whoever leads")
    second.call("send", bob.user_id, "by the new leader")
    bob.wait_for_body("by the new leader")


def test_an_offline_device_seals_again_after_what_another_one_sent(
    alice: Tab, bob: Tab, devices: Devices, server: GunicornServer
) -> None:
    other = devices.new(alice.user_id)
    other.start()
    other.call("restore", alice.call("makeBackup"))
    other.call("send", bob.user_id, "first")
    for tab in (alice, bob):
        tab.wait_for_body("first")
    # What comes while it is offline is held back, and so would be the end of the socket behind it.
    other.wait("receipt", kind="delivered")
    other.context.set_offline(True)
    server.kill_worker()
    other.wait("disconnected")
    other.call("send", bob.user_id, "sealed offline")
    alice.call("send", bob.user_id, "sent meanwhile")
    bob.wait_for_body("sent meanwhile")
    assert not bob.told("message", body="sealed offline")
    other.context.set_offline(False)
    bob.wait_for_body("sealed offline")
    assert not bob.told("gap") + bob.told("fork")


def test_a_refused_message_leaves_no_gap(alice: Tab, bob: Tab) -> None:
    alice.call("send", bob.user_id, "one")
    bob.wait_for_body("one")
    # Two in a row, so that the second is sealed before the first is refused.
    script = """(to) => Promise.all([
      client.send(to, "never arrives", { expiresIn: -1 }), client.send(to, "two")])"""
    refused, _ = alice.page.evaluate(script, bob.user_id)
    assert alice.wait("refused", id=refused)["code"] == "bad_request"
    bob.wait_for_body("two")
    assert not bob.told("gap") + bob.told("fork")


Change = Callable[[sqlite3.Row, sqlite3.Row], dict[str, object]]  # of a row, and another one

TAMPERINGS: dict[str, tuple[str, Change]] = {
    "a byte": ("wrap", lambda row, other: {"encrypted_content": flipped(row["encrypted_content"])}),
    "the conversation": ("wrap", lambda row, other: {"conversation_id": "another"}),
    "another's envelope": (
        "message_id",
        lambda row, other: {"encrypted_content": other["encrypted_content"]},
    ),
    "nothing left": ("malformed", lambda row, other: {"encrypted_content": b"x"}),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_a_tampered_row_is_unreadable_and_said(
    what: str, alice: Tab, bob: Tab, database: Path
) -> None:
    before = alice.call("send", bob.user_id, "before")
    bob.wait_for_body("before")
    bob.call("close")
    tampered = alice.call("send", bob.user_id, "to be tampered with")
    alice.wait("outbox", id=tampered, state="accepted")
    reason, change = TAMPERINGS[what]
    with rows(database) as connection:
        other, row = (row_of(connection, one) for one in (before, tampered))
        for column, value in change(row, other).items():
            update = f"UPDATE e2emsg_messages SET {column} = ? WHERE id = ?"
            connection.execute(update, (value, row["id"]))
    bob.reload()
    told = bob.wait("unreadable", id=tampered)
    assert (told["unreadable"], told["body"]) == (reason, None)
    alice.call("send", bob.user_id, "after")
    bob.wait_for_body("after")
    assert bob.told("gap", n=3)
    assert bob.bodies(alice.user_id) == ["before", None, "after"]


def test_what_the_server_leaves_out_is_a_gap(alice: Tab, bob: Tab, database: Path) -> None:
    alice.call("send", bob.user_id, "one")
    bob.wait_for_body("one")
    bob.call("close")
    left_out = alice.call("send", bob.user_id, "two")
    last = alice.call("send", bob.user_id, "three")
    alice.wait("outbox", id=last, state="accepted")
    with rows(database) as connection:
        row = row_of(connection, left_out)
        connection.execute("DELETE FROM e2emsg_messages WHERE id = ?", (row["id"],))
    bob.reload()
    bob.wait_for_body("three")
    assert bob.told("gap", contact=alice.user_id, n=3)


def test_a_mailbox_that_was_made_anew_is_read_from_the_history(
    alice: Tab, bob: Tab, database: Path
) -> None:
    alice.call("send", bob.user_id, "one")
    bob.wait_for_body("one")
    bob.call("close")
    last = alice.call("send", bob.user_id, "two")
    alice.wait("outbox", id=last, state="accepted")
    with rows(database) as connection:
        renew = "UPDATE e2emsg_accounts SET epoch = ?, delivered_seq = last_seq WHERE user_id = ?"
        connection.execute(renew, ("0123456789abcdef", bob.user_id))
    bob.reload()
    bob.wait_for_body("two")
    assert not bob.told("gap") + bob.told("fork") + bob.told("message", body="one")


@contextlib.contextmanager
def rows(database: Path) -> Iterator[sqlite3.Connection]:
    """The server's database, for who has broken into it."""
    connection = sqlite3.connect(database, timeout=10)
    connection.row_factory = sqlite3.Row
    with contextlib.closing(connection), connection:
        yield connection


def row_of(connection: sqlite3.Connection, message_id: str) -> sqlite3.Row:
    select = "SELECT * FROM e2emsg_messages WHERE id = ?"
    row: sqlite3.Row = connection.execute(select, (UUID(message_id).hex,)).fetchone()
    return row


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])
