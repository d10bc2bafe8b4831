"""Devices of users, whose events can be waited for."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from flask_e2emsg.client import Client, Store, events
from tests.acceptance.rest import RestClient
from tests.servers import GunicornServer

DEADLINE_SECONDS = 20.0
PASSPHRASE = "the passphrase of the tests"
Kind = TypeVar("Kind")


class Device:
    """A client that remembers what it was told."""

    def __init__(
        self, server: GunicornServer, user_id: str, path: Path, url: str | None = None
    ) -> None:
        self.server, self.user_id, self.path = server, user_id, path
        self.seen: list[events.Event] = []
        self.client = Client(url or server.url, self.token, Store(path, PASSPHRASE))

    def token(self) -> str:
        body = json.dumps({"user_id": self.user_id}).encode()
        return str(RestClient(self.server.url).call("POST", "/token", body).json["access_token"])

    @property
    def rest(self) -> RestClient:
        """Calls as this user, past the client."""
        return RestClient(self.server.url, self.token())

    def until(self, kind: type[Kind], /, **members: Any) -> Kind:
        """The next event of a class with these members; others are remembered."""
        for event in self.client.events(DEADLINE_SECONDS):
            self.seen.append(event)
            if isinstance(event, kind) and all(
                getattr(event, name) == value for name, value in members.items()
            ):
                return event
        raise AssertionError(f"no {kind.__name__} {members} in time: {self.seen}")

    def write(self, to: Device, body: str, **members: Any) -> str:
        """Send, and wait until the server has it."""
        message_id = self.client.send(to.user_id, body, **members)
        self.until(events.Sent, id=message_id)
        return message_id

    def quiet(self, seconds: float = 0.3) -> list[events.Event]:
        """What is told until nothing more is."""
        found = list(self.client.events(seconds))
        self.seen += found
        return found

    def told(self, kind: type[Kind]) -> list[Kind]:
        """What was told of one class so far."""
        return [event for event in self.seen if isinstance(event, kind)]

    def bodies(self) -> list[str | None]:
        """The texts of all messages that were told."""
        return [message.body for message in self.told(events.Message)]

    def history(self, contact: Device) -> list[events.Message | events.Unreadable]:
        """All of it, oldest first."""
        found: list[events.Message | events.Unreadable] = []
        before: int | None = None
        while True:
            page = self.client.history(contact.user_id, before)
            found += page.messages
            before = page.next
            if before is None:
                return found[::-1]

    def history_with(self, contact: str) -> list[events.Message]:
        """Its newest page, in which everything opens, oldest first."""
        page = self.client.history(contact).messages
        return [one for one in reversed(page) if isinstance(one, events.Message)]


class Devices:
    """Makes them, and closes them at the end."""

    def __init__(self, server: GunicornServer, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._open: list[Device] = []
        self._names: dict[str, str] = {}

    def new(self, name: str, device: str = "phone") -> Device:
        """A device of a person; the same name is the same person, the same device the same file."""
        user_id = self._names.setdefault(name, f"{name}-{secrets.token_hex(4)}")
        made = Device(self._server, user_id, self._folder / f"{name}-{device}.e2emsg")
        self._open.append(made)
        return made

    def offline(self, name: str) -> Device:
        """The phone of a person, without a network."""
        path = self._folder / f"{name}-phone.e2emsg"
        made = Device(self._server, self._names[name], path, "http://127.0.0.1:9")
        self._open.append(made)
        return made

    def ready(self, name: str, device: str = "phone") -> Device:
        """A device that is connected and has everything."""
        made = self.new(name, device)
        made.until(events.CaughtUp)
        return made

    def person_id(self, name: str) -> str:
        """The user id of a person."""
        return self._names[name]

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The server's own database; what is done there, the server does."""
        url = self._server.environment["DATABASE_URL"]
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=20)
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def files(self) -> list[Path]:
        """Everything that the clients have on the disk."""
        return [path for path in self._folder.iterdir() if ".e2emsg" in path.name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for device in self._open:
            device.client.close()
