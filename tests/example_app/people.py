"""Somebody who uses the chat: what they do with its page, and what they see there."""

from __future__ import annotations

import re
from typing import Any, Self

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

PASSWORD = "correct horse"
DEADLINE_MS = 60_000
CODE = re.compile(r"(\w{4}-){6}\w{4}")
# Runs before the page's own scripts, and is not under its policy.
TELL_VIOLATIONS = """document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`violation of ${event.violatedDirective}: ${event.blockedURI}`));"""
# Sends as another tab of the same browser would.
SEND_MANY = """async ([contact, texts, options]) => {
  const { E2EClient } = await import("/api/static/e2emsg.js");
  const { access_token: token, user_id: userId } =
    JSON.parse(sessionStorage.getItem("e2emsg-example-account"));
  const tab = await E2EClient.open({ url: "/api", userId, token: () => token });
  for (const text of texts) await tab.send(contact, text, options);
  tab.close();
}"""
CONTAINER_IS_FULL = """() => {
  const scroll = document.getElementById("scroll");
  return scroll.scrollHeight > scroll.clientHeight;
}"""

expect.set_options(timeout=DEADLINE_MS)


class Person:
    """One person at one browser."""

    def __init__(self, context: BrowserContext, url: str, name: str) -> None:
        self.context = context
        self.name = name
        self.url = url
        self.code = ""  # the recovery code, once it was shown
        self.complaints: list[str] = []
        context.set_default_timeout(DEADLINE_MS)
        context.add_init_script(TELL_VIOLATIONS)
        self.page: Page = context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"{error}"))
        self.page.goto(url)

    def by_id(self, name: str) -> Locator:
        return self.page.locator(f"#{name}")

    def give_credentials(self, button: str, password: str = PASSWORD) -> None:
        self.page.get_by_label("Username", exact=True).fill(self.name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name=button, exact=True).click()

    def register(self) -> None:
        """Register, and keep the recovery code."""
        self.give_credentials("Register")
        self.keep_code()

    def log_in(self) -> None:
        self.give_credentials("Log in")

    def keep_code(self) -> None:
        """Read the recovery code that is shown, and close its dialog."""
        expect(self.by_id("shown-code")).to_have_text(CODE)
        self.code = self.by_id("shown-code").inner_text()
        self.page.get_by_role("button", name="I have kept it").click()

    def restore(self, code: str) -> None:
        self.page.get_by_role("textbox", name="Recovery code").fill(code)
        self.page.get_by_role("button", name="Restore").click()

    def open(self, other: str) -> None:
        """Open the conversation with somebody; they may be new here."""
        item = self.item(other)
        if not item.count():
            self.page.get_by_label("Username to write to").fill(other)
            self.page.get_by_role("button", name="Add").click()
        else:
            item.click()
        expect(self.by_id("contact-name")).to_have_text(other)

    def leave(self) -> None:
        """Have no conversation open."""
        self.page.evaluate("location.hash = '#/'")
        expect(self.by_id("thread")).to_be_hidden()

    def say(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.get_by_role("button", name="Send").click()

    def send_many(self, texts: list[str], **options: str | None) -> None:
        """Send to whom the page shows, by a client that is not the page's."""
        contact = self.page.evaluate("decodeURIComponent(location.hash.slice(2))")
        self.page.evaluate(SEND_MANY, [contact, texts, options])

    def item(self, other: str) -> Locator:
        """Somebody's place in the list of conversations."""
        named = self.page.locator(".name").get_by_text(other, exact=True)
        return self.page.locator("#conversations a").filter(has=named)

    def row(self, text: str) -> Locator:
        """The message with this text."""
        said = self.page.locator(".body").get_by_text(text, exact=True)
        return self.page.locator("#messages .row").filter(has=said)

    def sees(self, text: str) -> None:
        expect(self.row(text)).to_be_visible()

    def sees_ticks(self, text: str, state: str) -> None:
        """The message of mine has come so far: Sent, Delivered or Read."""
        expect(self.row(text).get_by_role("img", name=state, exact=True)).to_be_visible()

    def texts(self) -> list[str]:
        """All messages that are on the page, in its order."""
        return self.page.locator("#messages .body").all_inner_texts()

    def focused(self) -> str:
        """The id of the element that has the focus."""
        return str(self.page.evaluate("document.activeElement.id"))

    def reload(self) -> None:
        self.page.reload()
        expect(self.by_id("chat")).to_be_visible()

    def _console(self, message: Any) -> None:
        if "violation" in message.text or "Content Security Policy" in message.text:
            self.complaints.append(message.text)


class Crowd:
    """Makes people with a browser of their own each, and closes the browsers."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url
        self._people: list[Person] = []

    def person(self, name: str, init_script: str | None = None, **options: Any) -> Person:
        """Somebody who looks at the page, and has not logged in yet."""
        context = self._browser.new_context(**options)
        if init_script is not None:
            context.add_init_script(init_script)
        person = Person(context, self._url, name)
        self._people.append(person)
        return person

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for person in self._people:
            person.context.close()
        if kind is None:
            assert [person.complaints for person in self._people] == [[] for _ in self._people]
