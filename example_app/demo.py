"""Two users talk over a running example app: `make run` in one terminal, `make demo` in another.

Each frame is printed as it comes, and what its envelope has inside for those who can open it. The
exit code is 0 only if everything came as protocol.md says, in order and in time; otherwise the last
line says what did not. (`flask_e2emsg.client` does all this by itself; here one can watch.)
"""

import argparse
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener
from uuid import UUID, uuid4

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from flask_e2emsg.client.envelope import Address, open_envelope, parse, seal
from flask_e2emsg.client.errors import CannotOpen
from flask_e2emsg.client.keys import IdentityKey
from flask_e2emsg.client.plaintext import Plaintext, decode, encode, hash_of, hash_text
from flask_e2emsg.protocol.values import decode_binary, encode_binary

DEADLINE_SECONDS = 5.0  # for each frame that is waited for
BACKLOG = 3  # messages that are sent while bob is away
# Members that would only fill the lines.
UNTOLD = {"type", "at", "created_at", "expires_at", "connection_id"}
UNTOLD |= {"heartbeat", "max_in_flight", "max_frame_bytes"}

Frame = dict[str, Any]

say = partial(print, flush=True)  # a pipe or a log shows each line as it comes, too
_started = time.monotonic()
_open_url = build_opener(ProxyHandler({})).open


class Failed(Exception):
    """Something did not come as it should; the text says what."""


def main() -> int:
    """Run the demo; 0 if every expectation held."""
    options = _options()
    try:
        run(options.url.rstrip("/"))
    except (Failed, CannotOpen, OSError, WebSocketException) as error:
        say(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    say("\nOK: everything came, in order and in time.")
    return 0


def run(url: str) -> None:
    """The story, against the server at the URL. Raises: Failed."""
    say(f"Server: {url}")
    say("What they write is sealed by one and opened by the other. The server has no key for it.")
    alice, bob = User.register(url, "alice"), User.register(url, "bob")

    with alice.online(), bob.online():
        step("Live delivery, both ways")
        exchange(alice, bob)
        exchange(bob, alice)

        step(f"bob goes away; alice sends {BACKLOG} messages")
        bob.leave()
        waiting = [
            alice.send(bob, f"You missed this, {n} of {BACKLOG}") for n in range(1, BACKLOG + 1)
        ]

        step("bob comes back with his cursor and gets what he has missed")
        bob.arrive()
        for message in waiting:
            bob.receive(message, alice)
        bob.expect("caught_up")
        bob.acknowledge()
        ids = [message["id"] for message in waiting]
        alice.expect_receipts("delivered", ids, by=bob)
        bob.read(ids)
        alice.expect_receipts("read", ids, by=bob)

    for user in (alice, bob):
        user.check_positions()


def exchange(sender: "User", recipient: "User") -> None:
    """One message, from sending to the receipt that it was read."""
    message = sender.send(recipient, f"Hello, {recipient.name}!")
    recipient.receive(message, sender)
    recipient.acknowledge()
    sender.expect_receipts("delivered", [message["id"]], by=recipient)
    recipient.read([message["id"]])
    sender.expect_receipts("read", [message["id"]], by=recipient)
    sender.acknowledge()


@dataclass
class User:
    """A fresh user with one socket and, as a real client keeps it, a cursor."""

    name: str
    url: str
    id: str
    token: str = field(repr=False)
    key: IdentityKey = field(default_factory=IdentityKey.generate, repr=False)
    epoch: str | None = None
    positions: list[int] = field(default_factory=list)  # of my mailbox, as they became known
    frames: list[Frame] = field(default_factory=list)  # came while another one was waited for
    chain: tuple[int, bytes | None] = (0, None)  # how many were sealed so far, hash of the last one
    _open: ExitStack = field(default_factory=ExitStack, repr=False)

    @classmethod
    def register(cls, url: str, name: str) -> "User":
        """Sign up and log in under a name that nobody has."""
        who = {"username": f"{name}-{secrets.token_hex(4)}", "password": secrets.token_urlsafe()}
        post(f"{url}/api/register", who)
        account = post(f"{url}/api/login", who)
        show(name, "→", "registered", {"username": who["username"], "user_id": account["user_id"]})
        user = cls(name, url, account["user_id"], account["access_token"])
        post(f"{url}/api/keys", {"public_key": encode_binary(user.key.public)}, user.token)
        return user

    @contextmanager
    def online(self) -> Iterator[None]:
        """A first socket; whichever is open at the end is closed."""
        with self._open:
            self.arrive()
            self.expect("caught_up")
            yield

    def arrive(self) -> None:
        """Open a socket: at the cursor, or for the first time."""
        query = {"token": self.token}
        if self.epoch is not None:
            query["cursor"] = f"{self.epoch}:{self.position}"
        address = f"{self.url.replace('http', 'ws', 1)}/api/ws?{urlencode(query)}"
        self._socket: ClientConnection = self._open.enter_context(
            connect(address, open_timeout=DEADLINE_SECONDS, compression=None, proxy=None)
        )
        hello = self.expect("hello", reset=False, after=self.position, user_id=self.id)
        check(self.epoch in (None, hello["epoch"]), f"{self.name}'s mailbox has another epoch")
        self.epoch = hello["epoch"]

    def leave(self) -> None:
        """Close the socket."""
        self._open.close()
        show(self.name, "→", "closed", {})

    @property
    def position(self) -> int:
        """The last position that has come with all before it."""
        have = set(self.positions)
        return next(seq for seq in range(len(have) + 1) if seq + 1 not in have)

    def send(self, to: "User", text: str) -> Frame:
        """Seal a text and send it; returns the frame once the server has stored it."""
        message_id = uuid4()
        content = encode_binary(self._sealed(message_id, to, text))
        message = {"type": "send", "id": str(message_id), "to": to.id, "encrypted_content": content}
        self._write(message)
        self.expect("accepted", id=message["id"], duplicate=False)
        return message

    def receive(self, message: Frame, sender: "User") -> None:
        """Wait for a message that somebody sent me, and open it."""
        content = message["encrypted_content"]
        self.expect("message", id=message["id"], recipient=self.id, encrypted_content=content)
        address = Address(UUID(message["id"]), sender.id, self.id)
        envelope = parse(decode_binary(content, "encrypted_content"))
        opened = decode(open_envelope(envelope, address, [self.key], [sender.key.public]))
        show(self.name, "=", "opened", {"body": repr(opened.body)}, shorten=False)

    def _sealed(self, message_id: UUID, to: "User", text: str) -> bytes:
        count, last = self.chain
        sent_at = int(time.time() * 1000)
        plaintext = Plaintext("text", sent_at, count + 1, hash_text(last), text)
        address = Address(message_id, self.id, to.id)
        envelope = seal(encode(plaintext), address, self.key, [to.key.public])
        self.chain = count + 1, hash_of(envelope)
        return envelope

    def acknowledge(self) -> None:
        """Say that everything up to my position is stored."""
        self._write({"type": "ack", "seq": self.position})

    def read(self, ids: list[str]) -> None:
        """Say that these messages have been read."""
        self._write({"type": "read", "ids": ids})

    def expect_receipts(self, kind: str, ids: list[str], by: "User") -> None:
        """Wait for receipts of one kind that together name exactly these messages."""
        missing = set(ids)
        while missing:
            named = set(self.expect("receipt", kind=kind, by=by.id)["ids"])
            check(named <= missing, f"{self.name} got a receipt for other messages")
            missing -= named

    def expect(self, type: str, **members: Any) -> Frame:
        """The next frame of a type; it must come in time and have these members."""
        frame = self._next(type)
        for name, value in members.items():
            got = frame.get(name)
            check(got == value, f"{self.name} got {type} with {name}={got!r}, expected {value!r}")
        return frame

    def check_positions(self) -> None:
        """Every position of the mailbox was seen, each once."""
        seen = sorted(self.positions)
        check(seen == list(range(1, len(seen) + 1)), f"{self.name}'s positions have holes: {seen}")

    def _next(self, type: str) -> Frame:
        for index, frame in enumerate(self.frames):
            if frame["type"] == type:
                return self.frames.pop(index)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            frame = self._take(type, deadline - time.monotonic())
            if frame["type"] == type:
                return frame
            self.frames.append(frame)

    def _take(self, awaited: str, seconds: float) -> Frame:
        try:
            frame: Frame = json.loads(self._socket.recv(timeout=max(seconds, 0)))
        except TimeoutError:
            raise Failed(f"{self.name} waited {DEADLINE_SECONDS:g} s for {awaited}") from None
        show(self.name, "←", frame["type"], frame)
        check(frame["type"] != "error", f"{self.name} got an error: {frame.get('message')}")
        if "seq" in frame:
            self.positions.append(frame["seq"])
        if frame["type"] == "caught_up":
            check(self.position >= frame["head"], f"{self.name} was called caught up too early")
        return frame

    def _write(self, frame: Frame) -> None:
        show(self.name, "→", frame["type"], frame)
        self._socket.send(json.dumps(frame))


def post(url: str, body: Frame, token: str | None = None) -> Frame:
    """The answer to a JSON request. Raises: Failed: it was refused, or nobody listens."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    headers["Content-Type"] = "application/json"
    request = Request(url, json.dumps(body).encode(), headers)
    try:
        with _open_url(request, timeout=DEADLINE_SECONDS) as response:
            answer: Frame = json.load(response)
            return answer
    except HTTPError as error:
        with error:
            raise Failed(f"POST {url}: {error.code} {error.read().decode()}") from None
    except URLError as error:
        raise Failed(f"POST {url}: {error.reason}. Is `make run` up?") from None


def check(holds: bool, otherwise: str) -> None:
    """Raise `Failed` with the text unless the expectation holds."""
    if not holds:
        raise Failed(otherwise)


def step(title: str) -> None:
    """Print a heading."""
    say(f"\n{title}")


def show(who: str, direction: str, type: str, members: Frame, *, shorten: bool = True) -> None:
    """Print one line: when, who, whether to (→) or from (←) the server, and what."""
    text = " ".join(
        f"{name}={_short(value) if shorten else value}"
        for name, value in members.items()
        if name not in UNTOLD and value is not None
    )
    seconds = time.monotonic() - _started
    say(f"  {seconds:7.3f} s  {who:5} {direction}  {type:10}  {text}".rstrip())


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(_short(each) for each in value) + "]"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 16 else f"{text[:8]}…"


def _options() -> argparse.Namespace:
    host, port = os.environ.get("HOST") or "127.0.0.1", os.environ.get("PORT") or "8000"
    parser = argparse.ArgumentParser(prog="python -m example_app.demo", description=__doc__)
    parser.add_argument("--url", default=f"http://{host}:{port}", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
