"""The chat for everybody: by keyboard, on a telephone, and by axe's rules."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.example_app.people import PASSWORD, Crowd, Person

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
PHONE = {"width": 360, "height": 700}
IS_TOO_WIDE = "document.documentElement.scrollWidth > innerWidth"


def findings(page: Page) -> list[tuple[str, list[str]]]:
    """What axe calls serious or critical: the rule, and where."""
    page.evaluate(f"() => {{ {AXE} }}")  # not under the page's policy, unlike a script of the page
    result: dict[str, Any] = page.evaluate("axe.run()")
    assert result["passes"], "axe has looked at nothing"
    return [
        (found["id"], [str(node["target"]) + node["failureSummary"] for node in found["nodes"]])
        for found in result["violations"]
        if found["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(crowd: Crowd, ada: Person, scheme: str) -> None:
    eva = crowd.person(f"eva-{scheme}-{ada.name}", color_scheme=scheme)
    assert findings(eva.page) == []
    eva.give_credentials("Log in", "a wrong one")
    expect(eva.by_id("login-error")).to_be_visible()
    assert findings(eva.page) == []
    eva.give_credentials("Register")
    expect(eva.by_id("code-dialog")).to_be_visible()
    assert findings(eva.page) == []
    eva.keep_code()
    assert findings(eva.page) == []

    eva.open(ada.name)
    eva.say("hello")
    ada.open(eva.name)
    ada.say("hello yourself")
    eva.sees("hello yourself")
    eva.sees_ticks("hello", "Read")
    eva.by_id("server-button").click()
    expect(eva.page.locator("#server-rows li")).to_have_count(2)
    assert findings(eva.page) == []
    eva.by_id("safety-button").click()
    expect(eva.by_id("qr").locator("svg")).to_be_visible()
    assert findings(eva.page) == []
    eva.page.keyboard.press("Escape")
    eva.leave()
    ada.say("and again")
    expect(eva.item(ada.name)).to_contain_text("1 unread")
    assert findings(eva.page) == []

    second = crowd.person(eva.name, color_scheme=scheme)
    second.log_in()
    expect(second.by_id("restore")).to_be_visible()
    second.page.get_by_text("I do not have the code").click()
    assert findings(second.page) == []
    second.page.get_by_role("button", name="Start with a new key").click()
    second.keep_code()
    second.open(ada.name)
    second.say("from a new key")
    expect(ada.by_id("key-change")).to_be_visible()
    assert findings(ada.page) == []
    eva.reload()
    expect(eva.by_id("own-key")).to_be_visible()
    assert findings(eva.page) == []
    eva.page.goto(f"{eva.url}/about")
    assert findings(eva.page) == []


def test_a_conversation_by_keyboard_only(crowd: Crowd, ada: Person) -> None:
    eva = crowd.person(f"eva-{ada.name}")
    keyboard = eva.page.keyboard
    assert eva.focused() == "username"
    keyboard.type(eva.name)
    keyboard.press("Tab")
    keyboard.type(PASSWORD)
    keyboard.press("Tab")
    keyboard.press("Tab")
    assert eva.focused() == "register-button"
    keyboard.press("Enter")
    expect(eva.by_id("code-title")).to_be_focused()
    keyboard.press("Tab")
    keyboard.press("Tab")
    assert eva.focused() == "code-done"
    keyboard.press("Enter")
    expect(eva.by_id("code-dialog")).to_be_hidden()
    expect(eva.by_id("add")).to_be_focused()

    keyboard.type(ada.name)
    keyboard.press("Enter")
    expect(eva.by_id("text")).to_be_focused()
    keyboard.type("one line")
    keyboard.press("Shift+Enter")
    keyboard.type("and another")
    keyboard.press("Enter")
    eva.sees_ticks("one line\nand another", "Delivered")
    assert eva.focused() == "text"

    keyboard.press("Shift+Tab")
    assert eva.focused() == "scroll"
    keyboard.press("Shift+Tab")
    keyboard.press("Enter")
    expect(eva.by_id("server-title")).to_be_focused()
    keyboard.press("Escape")
    assert eva.focused() == "server-button"
    keyboard.press("Shift+Tab")
    keyboard.press("Enter")
    expect(eva.by_id("safety-title")).to_be_focused()
    keyboard.press("Escape")
    assert eva.focused() == "safety-button"

    ada.open(eva.name)
    ada.say("hello yourself")
    expect(eva.by_id("live")).to_have_text(f"{ada.name}: hello yourself")


def test_on_a_telephone_nothing_is_wider_than_the_page(crowd: Crowd, ada: Person) -> None:
    long_name = f"eva-{ada.name}-".ljust(80, "w")
    eva = crowd.person(long_name, viewport=PHONE, has_touch=True, is_mobile=True)
    assert not eva.page.evaluate(IS_TOO_WIDE)
    eva.give_credentials("Register")
    expect(eva.by_id("code-dialog")).to_be_visible()
    assert not eva.page.evaluate(IS_TOO_WIDE)
    eva.keep_code()
    assert not eva.page.evaluate(IS_TOO_WIDE)
    eva.open(ada.name)
    expect(eva.page.locator(".people")).to_be_hidden()
    eva.say("w" * 300)
    eva.sees_ticks("w" * 300, "Delivered")
    assert not eva.page.evaluate(IS_TOO_WIDE)
    eva.by_id("safety-button").click()
    expect(eva.by_id("qr").locator("svg")).to_be_visible()
    assert not eva.page.evaluate(IS_TOO_WIDE)
    eva.by_id("safety-close").click()
    eva.by_id("server-button").click()
    expect(eva.page.locator("#server-rows li")).to_have_count(1)
    assert not eva.page.evaluate(IS_TOO_WIDE)
    eva.by_id("server-close").click()
    ada.open(long_name)
    ada.say("hello")
    eva.page.get_by_label("Back to the conversations").click()
    expect(eva.page.locator(".people")).to_be_visible()
    expect(eva.page.locator(".thread")).to_be_hidden()
    assert not eva.page.evaluate(IS_TOO_WIDE)
