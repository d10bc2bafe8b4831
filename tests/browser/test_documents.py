"""What docs/clients.md shows of the browser client runs as it stands there."""

from __future__ import annotations

from tests.browser.tabs import Tab
from tests.docs.markdown import Page

CLIENTS = Page.at("docs/clients.md")
HELPERS = """([userId]) => {
  window.shown = [];
  window.show = (message) => window.shown.push(message.body);
  window.fetchToken = async () => {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify({ user_id: userId });
    const answer = await fetch("/token", { method: "POST", headers, body });
    return (await answer.json()).access_token;
  };
}"""


def test_the_module_sends_and_shows_messages(alice: Tab, bob: Tab) -> None:
    (block,) = CLIENTS.blocks("javascript")
    page = alice.another()
    page.evaluate(HELPERS, ["7"])
    assert 'userId: "7"' in block.text
    assert 'send("42"' in block.text
    page.add_script_tag(type="module", content=block.text.replace('"42"', f'"{bob.user_id}"'))
    assert bob.wait_for_body("Hello!")["sender"] == "7"
    page.wait_for_function("shown.includes('Hello!')")
    bob.call("send", "7", "Hello, too!")
    page.wait_for_function("shown.includes('Hello, too!')")


def test_the_template_preloads_the_modules(alice: Tab) -> None:
    (block,) = CLIENTS.blocks("html")
    assert "<head>{{ e2emsg_modules() }}</head>" in block.text
    links = alice.page.locator('head link[rel="modulepreload"]')
    assert links.count() > 0
    addresses = [links.nth(n).get_attribute("href") for n in range(links.count())]
    assert "/api/static/e2emsg.js" in addresses
