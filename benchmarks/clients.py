"""How quick the clients are: sealing, opening, a long backlog; and what the server's check costs.

`make bench-clients`. The server is ours with one gevent worker, on a PostgreSQL, and checks
envelopes. A backlog is sealed for a client that has a key and is away, then it comes back. The
browser is a headless Chromium, if there is one.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from playwright.sync_api import Browser, Page, sync_playwright
from websockets.sync.client import connect

from flask_e2emsg.client import Client, Store, events
from flask_e2emsg.client.envelope import Address, open_envelope, parse, seal
from flask_e2emsg.client.keys import IdentityKey
from flask_e2emsg.client.plaintext import Plaintext, encode, hash_of, hash_text
from flask_e2emsg.delivery.envelopes import Envelopes
from flask_e2emsg.protocol.frames import Outgoing
from flask_e2emsg.protocol.values import decode_binary, encode_binary, now
from flask_e2emsg.store.accounts import Party, PublicKey

from .client import Users
from .postgres import Postgres
from .servers import OUR_SERVERS, Running, running

SECONDS = 3.0  # for each single operation
BACKLOG = 10_000
AT_ONCE = 150  # fit into a frame
PATIENCE_SECONDS = 600.0
STATIC = Path(__file__).parent.parent / "flask_e2emsg" / "static"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TEXT = "How quick is a message of about the length that people write on a telephone?"


def main() -> None:
    """Measure and print."""
    _print_sizes()
    _print_rates("Python", _in_python())
    with _server() as (server, users):
        _print_backlog("Python", _backlog_in_python(server, users))
        if shutil.which(CHROMIUM) is None:
            print("There is no Chromium here: nothing is said of the browser.")
            return
        with _page(server) as page:
            _print_rates("browser", page.evaluate(RATES, [SECONDS, TEXT]))
            _print_backlog("browser", _backlog_in_browser(page, server, users))


def _print_sizes() -> None:
    files = [file.read_bytes() for file in sorted(STATIC.glob("*.js"))]
    packed = sum(len(gzip.compress(file)) for file in files)
    print(f"browser   {len(files)} modules, {sum(map(len, files)):,} bytes, {packed:,} gzipped")


def _print_rates(where: str, rates: dict[str, float]) -> None:
    for what, per_second in rates.items():
        print(f"{where:9} {what}: {per_second:,.0f}/s, {1e6 / per_second:,.1f} µs each")


def _print_backlog(where: str, seconds: float) -> None:
    print(f"{where:9} backlog of {BACKLOG:,} received, stored and opened: {seconds:.1f} s")


def _in_python() -> dict[str, float]:
    """Operations a second on one processor."""
    alice, bob = IdentityKey.generate(), IdentityKey.generate()
    address = Address(uuid4(), "alice", "bob")
    text = encode(Plaintext("text", 0, 1, None, TEXT))
    sealed = seal(text, address, alice, [bob.public])
    keys = {"alice": alice.public, "bob": bob.public}
    check = Envelopes(
        lambda user: PublicKey(user, keys[user], 1, now()), lambda _: False, lambda: True
    ).check
    message = Outgoing(address.message_id, "bob", sealed, encode_binary(sealed))
    return {
        "seal for two readers": _rate(lambda: seal(text, address, alice, [bob.public])),
        "open": _rate(lambda: open_envelope(parse(sealed), address, [bob], [alice.public])),
        "check by the server": _rate(
            lambda: check(Party(1, "alice"), message, names_message=False)
        ),
    }


def _rate(operation: Callable[[], object]) -> float:
    count, began = 0, time.monotonic()
    while time.monotonic() < began + SECONDS:
        operation()
        count += 1
    return count / (time.monotonic() - began)


@contextmanager
def _server() -> Iterator[tuple[Running, dict[str, str]]]:
    """The server, and tokens of a sender and two recipients."""
    with (
        Users() as users,
        Postgres() as postgres,
        running(OUR_SERVERS["e2emsg"], postgres, users) as server,
    ):
        lines = users.file(3).read_text().splitlines()
        yield server, dict(line.split()[:2] for line in lines)


def _call(server: Running, token: str, method: str, path: str, body: object = None) -> Any:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, f"/api{path}", msgspec.json.encode(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.status < 300, f"{method} {path}: {answer.status}"
    return msgspec.json.decode(text)


def _fill(server: Running, sender: tuple[str, str], recipient: str, token: str) -> None:
    """Seal a backlog for a user who has published a key."""
    user_id, own_token = sender
    key = IdentityKey.generate()
    _call(server, own_token, "POST", "/keys", {"public_key": encode_binary(key.public)})
    published = _call(server, token, "GET", f"/keys/{recipient}")["public_key"]
    reader = decode_binary(published, "public_key")
    url = f"ws://127.0.0.1:{server.port}/api/ws?token={own_token}"
    with connect(url, compression=None, ping_interval=None, proxy=None) as socket:
        sealed = _sealed(key, reader, user_id, recipient)
        while some := [one for _, one in zip(range(AT_ONCE), sealed, strict=False)]:
            frame = {"type": "send_many", "ref": 1, "messages": some}
            socket.send(msgspec.json.encode(frame).decode())
            while (answer := msgspec.json.decode(socket.recv()))["type"] != "accepted":
                assert answer["type"] != "error", answer["code"]


def _sealed(
    key: IdentityKey, reader: bytes, sender: str, recipient: str
) -> Iterator[dict[str, str]]:
    last: bytes | None = None
    for n in range(1, BACKLOG + 1):
        message_id = uuid4()
        text = encode(Plaintext("text", 0, n, hash_text(last), TEXT))
        envelope = seal(text, Address(message_id, sender, recipient), key, [reader])
        last = hash_of(envelope)
        content = encode_binary(envelope)
        yield {"id": str(message_id), "to": recipient, "encrypted_content": content}


def _backlog_in_python(server: Running, users: dict[str, str]) -> float:
    (sender, recipient, _), url = list(users.items()), f"http://127.0.0.1:{server.port}"
    with tempfile.TemporaryDirectory() as folder:

        def come() -> Client:
            store = Store(Path(folder) / "store.sqlite", "the passphrase of a benchmark")
            return Client(url, token=lambda: recipient[1], store=store)

        with come() as client:
            assert client.user_id == recipient[0]
        _fill(server, sender, *recipient)
        began = time.monotonic()
        with come() as client:
            _take(client.events(PATIENCE_SECONDS))
            return time.monotonic() - began


def _take(told: Iterator[events.Event]) -> None:
    count = 0
    for event in told:
        assert not isinstance(event, events.Unreadable | events.Gap | events.Fork), event
        count += isinstance(event, events.Message)
        if count == BACKLOG:
            return
    raise AssertionError(f"{count} of {BACKLOG} have come")


@contextmanager
def _page(server: Running) -> Iterator[Page]:
    """A page of the server's origin; what it shows does not matter."""
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        with suppress(KeyboardInterrupt):
            page = browser.new_page()
            page.set_default_timeout(1000 * PATIENCE_SECONDS)
            page.goto(f"http://127.0.0.1:{server.port}/api/static/e2emsg.js")
            yield page
        browser.close()


def _backlog_in_browser(page: Page, server: Running, users: dict[str, str]) -> float:
    people: Sequence[tuple[str, str]] = list(users.items())
    sender, recipient = people[0], people[2]
    page.evaluate(COME, [*recipient, 0])
    _fill(server, sender, *recipient)
    return float(page.evaluate(COME, [*recipient, BACKLOG]))


# Many at once: a call into WebCrypto waits for another thread, and the client seldom waits for one.
RATES = """async ([seconds, text]) => {
  const { create } = await import("/api/static/keys.js");
  const { open, seal } = await import("/api/static/envelope.js");
  const [{ identity: alice }, { identity: bob }] = await Promise.all([create(), create()]);
  const address = { id: crypto.randomUUID(), sender: "alice", recipient: "bob" };
  const plaintext = { type: "text", body: text, sent_at: 0, n: 1, prev: null };
  const sealed = await seal(alice, bob.publicKey, address, plaintext);
  const known = new Map([[alice.kid, alice.publicKey]]);
  async function rate(operation) {
    const began = performance.now();
    let count = 0;
    const work = async () => {
      for (; performance.now() < began + 1000 * seconds; count++) await operation();
    };
    await Promise.all(Array.from({ length: 64 }, work));
    return (1000 * count) / (performance.now() - began);
  }
  return {
    "seal for two readers": await rate(() => seal(alice, bob.publicKey, address, plaintext)),
    open: await rate(() => open(sealed, address, [bob], known)),
  };
}"""
COME = """async ([userId, token, expected]) => {
  const { E2EClient } = await import("/api/static/e2emsg.js");
  const began = performance.now();
  const client = await E2EClient.open({ url: "/api", userId, token: async () => token });
  await new Promise((resolve, reject) => {
    let count = 0;
    client.addEventListener("message", () => ++count === expected && resolve());
    for (const name of ["gap", "fork", "unreadable", "failed"]) {
      client.addEventListener(name, () => reject(new Error(name)));
    }
    if (!expected) client.addEventListener("connected", resolve);
  });
  const seconds = (performance.now() - began) / 1000;
  await client.close();
  return seconds;
}"""


if __name__ == "__main__":
    main()
