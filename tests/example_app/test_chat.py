"""Two people talk in the chat, each in a real browser, through a real server."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.tabs import DUMP
from tests.example_app.people import CONTAINER_IS_FULL, Crowd, Person
from tests.servers import GunicornServer

SECRET = "a text that nobody else reads"
MARKUP = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"


def test_two_people_talk_and_see_what_becomes_of_it(ada: Person, ben: Person) -> None:
    ada.open(ben.name)
    ada.say("hello Ben")
    ada.sees_ticks("hello Ben", "Delivered")

    expect(ben.item(ada.name)).to_contain_text("1 unread")
    expect(ben.item(ada.name)).to_contain_text("hello Ben")
    expect(ben.page).to_have_title("(1) Sealed chat")
    expect(ben.by_id("live")).to_have_text(f"{ada.name}: hello Ben")
    ben.open(ada.name)
    ben.sees("hello Ben")
    expect(ben.item(ada.name)).not_to_contain_text("unread")
    expect(ben.page).to_have_title("Sealed chat")
    ada.sees_ticks("hello Ben", "Read")

    ben.page.get_by_label("Message", exact=True).press_sequentially("hello")
    expect(ada.by_id("typing")).to_have_text("typing…")
    expect(ada.item(ben.name)).to_contain_text("typing…")
    ben.say("hello Ada")
    ada.sees("hello Ada")
    expect(ada.by_id("typing")).to_be_empty()
    ben.sees_ticks("hello Ada", "Read")
    assert ada.texts() == ben.texts() == ["hello Ben", "hello Ada"]

    for person in (ada, ben):
        person.reload()
        person.sees("hello Ada")
        assert person.texts() == ["hello Ben", "hello Ada"]
    ada.sees_ticks("hello Ben", "Read")
    expect(ada.item(ben.name)).to_contain_text("hello Ada")


def test_only_ciphertext_leaves_the_page(
    ada: Person, ben: Person, database: Path, server: GunicornServer
) -> None:
    ada.open(ben.name)
    ada.say(SECRET)
    ada.sees_ticks(SECRET, "Delivered")
    ada.by_id("server-button").click()
    expect(ada.by_id("server-title")).to_be_focused()
    row = ada.page.locator("#server-rows li")
    expect(row).to_contain_text("encrypted_content")
    with closing(sqlite3.connect(database)) as connection:
        select = "SELECT id FROM e2emsg_messages ORDER BY created_at DESC LIMIT 1"
        (stored_id,) = connection.execute(select).fetchone()
    shown = row.locator("dd").all_inner_texts()
    assert stored_id in [text.replace("-", "") for text in shown]
    expect(row).to_contain_text("delivered_at")
    expect(row).not_to_contain_text(SECRET)
    ada.page.keyboard.press("Escape")
    expect(ada.by_id("server")).to_be_hidden()
    expect(ada.by_id("server-button")).to_be_focused()

    files = list(database.parent.glob(f"{database.name}*"))
    assert files
    assert not any(SECRET.encode() in file.read_bytes() for file in files)
    assert SECRET not in server.log()
    kept = ada.page.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }])")
    assert SECRET not in kept + str(ada.page.evaluate(DUMP))


def test_markup_stays_text(ada: Person, ben: Person) -> None:
    ada.open(ben.name)
    ada.say(MARKUP)
    ben.open(ada.name)
    ben.sees(MARKUP)
    expect(ben.item(ada.name)).to_contain_text("<b>bold</b>")
    assert ben.page.locator("#messages img:not([role]), #messages b").count() == 0
    expect(ben.page).to_have_title("Sealed chat")
    insert = "() => { try { document.body.innerHTML = '<b>' } catch (error) { return error.name } }"
    with ben.page.expect_console_message(lambda message: "violation" in message.text):
        assert ben.page.evaluate(insert) == "TypeError"
    assert ben.complaints
    ben.complaints.clear()


def test_long_conversations_are_loaded_on_the_way_up(ada: Person, ben: Person) -> None:
    ada.open(ben.name)
    ada.send_many([f"number {number}" for number in range(70)])
    ada.sees_ticks("number 69", "Delivered")
    ada.reload()
    ada.sees("number 69")
    assert 30 <= len(ada.texts()) < 70
    ada.page.wait_for_function(CONTAINER_IS_FULL)
    ada.by_id("scroll").focus()
    while len(ada.texts()) < 70:
        ada.page.keyboard.press("Home")
        ada.page.wait_for_timeout(100)
    assert ada.texts() == [f"number {number}" for number in range(70)]

    ben.open(ada.name)
    ben.sees("number 69")
    ben.by_id("scroll").evaluate("(element) => { element.scrollTop = 600 }")
    ada.say("one more")
    ben.page.get_by_role("button", name="New messages").click()
    expect(ben.row("one more")).to_be_in_viewport()


def test_what_other_clients_send_is_said_in_words(ada: Person, ben: Person) -> None:
    ada.open(ben.name)
    ada.say("original")
    ada.sees_ticks("original", "Delivered")
    target = ada.row("original").get_attribute("data-id")
    for kind, text in (("reply", "an answer"), ("edit", "changed"), ("reaction", "👍"), ("x", "y")):
        ada.send_many([text], type=kind, target=target)
    ada.send_many([""], type="delete", target=target)
    ben.open(ada.name)
    ben.sees("an answer")
    expect(ben.row("an answer").locator(".quote")).to_have_text("“original”")
    ben.sees(f"{ada.name} changed a message to: changed")
    ben.sees(f"{ada.name} reacted: 👍")
    ben.sees("A message of a kind that this page does not know: x.")
    ben.sees(f"{ada.name} deleted a message.")


def test_several_conversations_stand_in_the_order_of_their_news(
    ada: Person, ben: Person, register: Callable[[str], Person]
) -> None:
    eva = register("eva")
    for person in (ben, eva):
        person.open(ada.name)
        person.say(f"I am {person.name}")
        expect(ada.item(person.name)).to_contain_text("1 unread")
    names = ada.page.locator("#conversations .name")
    expect(names).to_have_text([eva.name, ben.name])
    ben.say("and again")
    expect(ada.item(ben.name)).to_contain_text("2 unread")
    expect(names).to_have_text([ben.name, eva.name])
    ada.reload()
    expect(ada.item(ben.name)).to_contain_text("2 unread")
    expect(names).to_have_text([ben.name, eva.name])


def test_a_click_opens_a_conversation_that_has_news_at_the_same_moment(
    ada: Person, ben: Person
) -> None:
    ada.open(ben.name)
    ada.say("early")
    expect(ben.item(ada.name)).to_contain_text("early")
    ben.item(ada.name).locator(".preview").hover()
    ben.page.mouse.down()
    ada.say("at that moment")
    expect(ben.item(ada.name)).to_contain_text("at that moment")
    expect(ben.item(ada.name)).to_contain_text("2 unread")
    ben.page.mouse.up()
    expect(ben.by_id("contact-name")).to_have_text(ada.name)


def test_notes_to_oneself(ada: Person) -> None:
    ada.page.get_by_label("Username to write to").fill(ada.name)
    ada.page.get_by_role("button", name="Add").click()
    expect(ada.by_id("contact-name")).to_have_text(f"{ada.name} (you)")
    ada.say("a note")
    expect(ada.row("a note").get_by_role("img")).to_be_visible()
    ada.reload()
    ada.sees("a note")
    assert ada.texts() == ["a note"]


def test_logging_out_leaves_nothing_to_come_back_to(ada: Person, crowd: Crowd) -> None:
    ada.page.get_by_role("button", name="Log out").click()
    ada.by_id("logout-confirm").click()
    expect(ada.by_id("login")).to_be_visible()
    assert ada.page.evaluate("sessionStorage.length") == 0
    ada.page.reload()
    expect(ada.by_id("login")).to_be_visible()
    ada.log_in()
    expect(ada.by_id("chat")).to_be_visible()

    ada.page.get_by_role("button", name="Log out").click()
    ada.page.get_by_label("Also remove my key").check()
    ada.by_id("logout-confirm").click()
    expect(ada.by_id("login")).to_be_visible()
    assert ada.page.evaluate("indexedDB.databases()") == []
    ada.log_in()
    expect(ada.by_id("restore")).to_be_visible()


def test_a_token_is_renewed_and_an_ended_one_is_said(ada: Person, ben: Person) -> None:
    ada.open(ben.name)
    now = ada.page.evaluate("Date.now()") / 1000
    ada.page.clock.set_fixed_time(now + 55 * 60)
    with ada.page.expect_response("**/api/token") as renewal:
        ada.by_id("server-button").click()
    assert renewal.value.ok
    expect(ada.by_id("server-error")).to_have_text("Nothing yet.")  # so the token has been taken
    ada.page.clock.set_fixed_time(now + 180 * 60)
    ada.by_id("server-close").click()
    ada.by_id("server-button").click()
    expect(ada.by_id("login-error")).to_have_text("Your login has ended. Log in again.")
