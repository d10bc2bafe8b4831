"""What a test does with a page that has the client in it."""

from __future__ import annotations

import json
import time
from typing import Any, Self

from playwright.sync_api import Browser, BrowserContext, Page

from tests.servers import WebServer

TOLD_SECONDS = 30.0
POLL_MS = 50


class Tab:
    """One page of one user, in a browser context that several tabs can share."""

    def __init__(self, context: BrowserContext, server: WebServer, user_id: str) -> None:
        self.context = context
        self.user_id = user_id
        self._url = f"{server.url}/page"
        self.page: Page = context.new_page()
        self.page.goto(self._url)

    def start(self) -> str:
        """Open the client; the state of the user's key."""
        self.page.wait_for_function("'start' in window")
        return str(self.page.evaluate("(userId) => start(userId)", self.user_id))

    def reload(self) -> str:
        """Load the page anew, and open the client again."""
        self.page.goto(self._url)
        return self.start()

    def another(self) -> Page:
        """One more page on the same device, with no client in it yet."""
        page = self.context.new_page()
        page.goto(self._url)
        return page

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of the client."""
        return self.page.evaluate(
            "([method, given]) => client[method](...given)", [method, list(arguments)]
        )

    def refusal(self, method: str, *arguments: object) -> str:
        """The `code` with which a method of the client is refused."""
        script = """([method, given]) =>
            client[method](...given).then(() => "not refused", (error) => error.code)"""
        return str(self.page.evaluate(script, [method, list(arguments)]))

    def told(self, event: str, **members: object) -> list[dict[str, Any]]:
        """The events of this name so far that have these members."""
        told: list[dict[str, Any]] = self.page.evaluate("told")
        return [one for one in told if {**one, **members, "event": event} == one]

    def wait(self, event: str, **members: object) -> dict[str, Any]:
        """The first event of this name that has these members."""
        deadline = time.monotonic() + TOLD_SECONDS
        while not (found := self.told(event, **members)):
            everything = json.dumps(self.page.evaluate("told"), indent=1)[-3000:]
            assert time.monotonic() < deadline, f"no {event} {members} in {everything}"
            self.page.wait_for_timeout(POLL_MS)
        return found[0]

    def wait_for_body(self, body: str) -> dict[str, Any]:
        """The message event with this text."""
        return self.wait("message", body=body)

    def bodies(self, contact: str) -> list[str | None]:
        """The texts of the history with a contact, oldest first."""
        messages = self.call("history", contact)["messages"]
        return [message["body"] for message in reversed(messages)]

    def stored(self) -> str:
        """Everything in this origin's databases, as one text."""
        return str(self.page.evaluate(DUMP))


DUMP = """async () => {
  const got = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  const shown = (_, value) =>
    value instanceof Uint8Array ? new TextDecoder("latin1").decode(value) : value;
  const found = [];
  for (const { name } of await indexedDB.databases()) {
    const database = await got(indexedDB.open(name));
    for (const store of database.objectStoreNames) {
      found.push(store, await got(database.transaction(store).objectStore(store).getAll()));
    }
    database.close();
  }
  return JSON.stringify(found, shown);
}"""


class Devices:
    """Makes browser contexts, each of which is a device of its own, and closes them."""

    def __init__(self, browser: Browser, server: WebServer) -> None:
        self._browser = browser
        self._server = server
        self._contexts: list[BrowserContext] = []

    def new(self, user_id: str, init_script: str | None = None) -> Tab:
        """A tab on a new device, its client not opened yet."""
        context = self._browser.new_context()
        self._contexts.append(context)
        if init_script is not None:
            context.add_init_script(init_script)
        return self.another_tab(context, user_id)

    def another_tab(self, context: BrowserContext, user_id: str) -> Tab:
        """One more tab on the same device."""
        return Tab(context, self._server, user_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for context in self._contexts:
            context.close()
