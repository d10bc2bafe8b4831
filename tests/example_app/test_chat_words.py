"""What goes wrong in the chat is said in words."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.example_app.people import PASSWORD, Crowd, Person
from tests.servers import GunicornServer

INSECURE = "Object.defineProperty(window, 'isSecureContext', { value: false })"
NO_X25519 = "SubtleCrypto.prototype.generateKey = () => Promise.reject('no')"


def test_refused_credentials(crowd: Crowd, ada: Person) -> None:
    visitor = crowd.person(ada.name)
    visitor.give_credentials("Register")
    expect(visitor.by_id("login-error")).to_contain_text("This username is taken")
    visitor.give_credentials("Log in", "not the password")
    expect(visitor.by_id("login-error")).to_contain_text("The username or the password is wrong")
    visitor.context.set_offline(True)
    visitor.give_credentials("Log in", PASSWORD)
    expect(visitor.by_id("login-error")).to_contain_text("The server does not answer")
    visitor.context.set_offline(False)
    visitor.log_in()
    expect(visitor.by_id("login")).to_be_hidden()


@pytest.mark.parametrize(("script", "words"), [(INSECURE, "HTTPS"), (NO_X25519, "X25519")])
def test_a_browser_that_cannot_encrypt(crowd: Crowd, script: str, words: str) -> None:
    visitor = crowd.person(f"visitor-{words}", script)
    if words == "X25519":
        visitor.give_credentials("Register")
    expect(visitor.by_id("login-error")).to_contain_text(words)


def test_somebody_who_is_not_there(ada: Person) -> None:
    ada.page.get_by_label("Username to write to").fill("nobody-has-this-name")
    ada.page.get_by_role("button", name="Add").click()
    expect(ada.by_id("add-error")).to_have_text("Nobody has this username.")
    expect(ada.by_id("add")).to_be_focused()


def test_without_a_network_messages_wait(ada: Person, ben: Person, server: GunicornServer) -> None:
    ada.open(ben.name)
    ada.say("before")
    ada.sees_ticks("before", "Delivered")
    ada.context.set_offline(True)
    server.kill_worker()
    expect(ada.by_id("connection")).to_contain_text("No connection")
    ada.say("meanwhile")
    ada.sees_ticks("meanwhile", "Not sent yet")
    ada.context.set_offline(False)
    expect(ada.by_id("connection")).to_have_text("Connected")
    ada.sees_ticks("meanwhile", "Delivered")
    assert ada.texts() == ["before", "meanwhile"]


def test_a_message_that_was_changed_on_the_way(ada: Person, ben: Person, database: Path) -> None:
    ben.open(ada.name)
    ada.open(ben.name)
    ada.say("to be changed")
    ada.sees_ticks("to be changed", "Read")
    message_id = ada.row("to be changed").get_attribute("data-id")
    assert message_id is not None
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        name = (UUID(message_id).hex,)
        select = "SELECT encrypted_content FROM e2emsg_messages WHERE id = ?"
        (content,) = connection.execute(select, name).fetchone()
        changed = content[:-1] + bytes([content[-1] ^ 1])
        update = "UPDATE e2emsg_messages SET encrypted_content = ? WHERE id = ?"
        connection.execute(update, (changed, *name))
    ben.reload()
    ben.sees("This message does not open. It was damaged, or somebody has changed it.")
    expect(ben.item(ada.name)).to_contain_text("This message does not open.")


def test_a_message_that_the_server_refuses(ada: Person, ben: Person) -> None:
    def refuse(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def from_page(text: str | bytes) -> None:
            frame = json.loads(text)
            if frame["type"] != "send":
                server.send(text)
                return
            error = {"type": "error", "ref": frame["id"], "code": "unknown_recipient"}
            route.send(json.dumps({**error, "message": "no", "retry_after": None}))

        route.on_message(from_page)

    ada.page.route_web_socket("**/api/ws*", refuse)
    ada.reload()
    ada.open(ben.name)
    ada.say("to nobody")
    note = ada.row("to nobody").locator(".note")
    expect(note).to_have_text("Not sent: this person cannot receive messages from you.")
    ada.say("x" * 70_000)
    expect(ada.by_id("thread-error")).to_contain_text("too long")
    assert len(ada.by_id("text").input_value()) == 70_000


def test_what_was_left_out_before_a_message(ada: Person, ben: Person, database: Path) -> None:
    ada.open(ben.name)
    ada.say("one")
    ada.sees_ticks("one", "Delivered")
    ben.page.goto("about:blank")
    for text in ("two", "three"):
        ada.say(text)
        ada.sees_ticks(text, "Sent")
    left_out = ada.row("two").get_attribute("data-id")
    assert left_out is not None
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        connection.execute("DELETE FROM e2emsg_messages WHERE id = ?", (UUID(left_out).hex,))
    ben.page.goto(ben.url)
    ben.open(ada.name)
    note = ben.row("three").locator(".note")
    expect(note).to_have_text("Something that was sent before this message has not arrived.")
