"""Keys in the chat: the recovery code, a second browser, and the warning when a key has changed."""

from __future__ import annotations

from io import BytesIO

import zxingcpp
from PIL import Image
from playwright.sync_api import expect

from tests.example_app.people import Crowd, Person


def test_another_browser_opens_the_history_with_the_recovery_code(
    ada: Person, ben: Person, crowd: Crowd
) -> None:
    ada.open(ben.name)
    ada.say("from the first browser")
    ada.sees_ticks("from the first browser", "Delivered")

    second = crowd.person(ada.name)
    second.log_in()
    expect(second.by_id("restore")).to_be_visible()
    second.restore(wrong(ada.code))
    expect(second.by_id("restore-error")).to_contain_text("mistake")
    second.restore(ada.code.lower())
    expect(second.by_id("chat")).to_be_visible()
    expect(second.item(ben.name)).to_contain_text("You: from the first browser")
    second.open(ben.name)
    second.sees("from the first browser")
    second.say("from the second browser")
    for person in (ada, second):
        person.sees_ticks("from the second browser", "Delivered")
    ben.open(ada.name)
    ben.sees("from the second browser")
    expect(ben.by_id("key-change")).to_be_hidden()


def test_the_code_is_shown_only_once(ada: Person) -> None:
    expect(ada.by_id("code-dialog")).to_be_hidden()
    assert ada.code not in ada.page.content()
    ada.reload()
    expect(ada.by_id("connection")).to_have_text("Connected")
    expect(ada.by_id("code-dialog")).to_be_hidden()


def test_escape_does_not_lose_the_code(crowd: Crowd, ada: Person) -> None:
    ben = crowd.person(f"{ada.name}-friend")
    ben.give_credentials("Register")
    expect(ben.by_id("code-dialog")).to_be_visible()
    ben.page.keyboard.press("Escape")
    expect(ben.by_id("code-dialog")).to_be_visible()
    ben.keep_code()
    expect(ben.by_id("code-dialog")).to_be_hidden()


def test_a_changed_key_blocks_until_it_is_accepted(ada: Person, ben: Person, crowd: Crowd) -> None:
    ada.open(ben.name)
    ada.say("under the first key")
    ada.sees_ticks("under the first key", "Delivered")
    ben.open(ada.name)
    ben.sees("under the first key")

    second = crowd.person(ada.name)
    second.log_in()
    second.page.get_by_text("I do not have the code").click()
    second.page.get_by_role("button", name="Start with a new key").click()
    second.keep_code()
    assert second.code != ada.code

    # Ben's page learns of it from the server's refusal.
    ben.say("who are you?")
    expect(ben.by_id("key-change")).to_contain_text(f"The key of {ada.name} has changed")
    expect(ben.by_id("text")).to_be_disabled()
    expect(ben.by_id("send")).to_be_disabled()
    expect(ben.by_id("key-change-button")).to_be_focused()
    expect(ben.row("who are you?").locator(".note")).to_contain_text("Waits")
    second.open(ben.name)
    second.say("it is me")
    unread = f"Sealed under a key of {ada.name} that you have not accepted."
    ben.sees(unread)
    second.sees_ticks("it is me", "Delivered")  # nobody has read it yet
    assert "who are you?" not in second.texts()

    ben.page.keyboard.press("Enter")
    expect(ben.by_id("safety-dialog")).to_be_visible()
    numbers = ben.by_id("digits").inner_text()
    second.by_id("safety-button").click()
    expect(second.by_id("digits")).to_have_text(numbers)
    ben.page.get_by_role("button", name="Accept the new key").click()
    expect(ben.by_id("key-change")).to_be_hidden()
    expect(ben.by_id("text")).to_be_enabled()
    ben.sees("it is me")
    ben.sees_ticks("who are you?", "Read")
    second.sees("who are you?")
    assert sorted(ben.texts()) == sorted(["under the first key", "it is me", "who are you?"])

    # The first browser's key counts no longer, and it says so.
    ada.reload()
    expect(ada.by_id("own-key")).to_contain_text("Your key was replaced")
    expect(ada.by_id("text")).to_be_disabled()
    ada.by_id("own-restore").click()
    ada.restore(second.code)
    ada.sees("it is me")
    expect(ada.by_id("own-key")).to_be_hidden()
    ada.say("both keys are here")
    ben.sees("both keys are here")
    expect(ben.by_id("key-change")).to_be_hidden()


def test_a_browser_whose_key_was_replaced_can_go_on_with_it(
    ada: Person, ben: Person, crowd: Crowd
) -> None:
    second = crowd.person(ada.name)
    second.log_in()
    second.page.get_by_text("I do not have the code").click()
    second.page.get_by_role("button", name="Start with a new key").click()
    second.keep_code()

    ada.reload()
    ada.by_id("own-restore").click()
    expect(ada.by_id("no-code")).to_be_hidden()
    ada.page.get_by_role("button", name="Back").click()
    ada.page.get_by_role("button", name="Use this browser").click()
    expect(ada.by_id("own-key")).to_be_hidden()
    expect(ada.by_id("toast")).to_contain_text("no recovery code any more")
    ada.open(ben.name)
    ada.say("with the first key")
    ben.open(ada.name)
    ben.sees("with the first key")
    expect(ben.by_id("key-change")).to_be_hidden()


def test_the_safety_number_is_the_same_on_both_sides_and_in_its_qr_code(
    ada: Person, ben: Person
) -> None:
    read = []
    for person, other in ((ada, ben), (ben, ada)):
        person.open(other.name)
        person.by_id("safety-button").click()
        expect(person.by_id("safety-title")).to_be_focused()
        digits = "".join(person.by_id("digits").inner_text().split())
        with Image.open(BytesIO(person.by_id("qr").screenshot())) as picture:
            (found,) = zxingcpp.read_barcodes(picture)
        assert found.text == f"e2emsg-safety:1:{digits}"
        read.append(found.text)
        expect(person.by_id("accept")).to_be_hidden()
        person.page.keyboard.press("Escape")
        expect(person.by_id("safety-button")).to_be_focused()
    assert read[0] == read[1]
    assert len(read[0]) == 76


def wrong(code: str) -> str:
    """The code with a mistake in it."""
    return ("2" if code[0] == "1" else "1") + code[1:]
