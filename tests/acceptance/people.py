"""The people of a test: fresh user ids on a running server, their tokens, sockets and calls."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.acceptance.canaries import watch
from tests.acceptance.client import ConnectionLost, SocketClient
from tests.acceptance.rest import RestClient
from tests.acceptance.wire import to_base64url
from tests.servers import WebServer

RECONNECT_SECONDS = 20.0  # a killed worker's successor has to import and start


class Person:
    """One user of the host, with as many connections as the test opens."""

    def __init__(self, server: WebServer, user_id: str) -> None:
        self.id = user_id
        self.server = server
        self.tokens: list[str] = []
        self.clients: list[SocketClient] = []
        self._usual_token: str | None = None

    def token(self, expires_in: float | None = None) -> str:
        """A fresh access token, of the host's usual lifetime or of so many seconds."""
        lifetime = {} if expires_in is None else {"expires_in": expires_in}
        body = json.dumps({"user_id": self.id, **lifetime}).encode()
        answer = RestClient(self.server.url).call("POST", "/token", body)
        token = str(answer.json["access_token"])
        self.tokens.append(token)
        return token

    @property
    def rest(self) -> RestClient:
        """REST calls as this user."""
        self._usual_token = self._usual_token or self.token()
        return RestClient(self.server.url, self._usual_token)

    def enrol(self) -> Self:
        """Make the account, so that others can write to this user before it ever connects."""
        answer = self.rest.post("/api/keys", {"public_key": to_base64url(secrets.token_bytes(32))})
        assert answer.status == 200, answer.body
        return self

    def connect(self, cursor: str | None = None, *, token: str | None = None) -> SocketClient:
        """Open a socket the way existing clients do, with `token=` in the query."""
        at = {} if cursor is None else {"cursor": cursor}
        return self.connect_with(query={"token": token or self.token(), **at})

    def connect_with(self, **handshake: Any) -> SocketClient:
        """Open a socket with any carrier; the arguments are those of `SocketClient`."""
        client = SocketClient(self.server.ws_url, self.id, **handshake)
        self.clients.append(client)
        return client

    def reconnect(self, cursor: str | None = None) -> SocketClient:
        """Open a socket, again and again until a restarting server takes it."""
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                return self.connect_with(headers=self._bearer(), **_cursor_query(cursor))
            except (OSError, InvalidHandshake, ConnectionClosed, ConnectionLost):
                if time.monotonic() > deadline:
                    raise

    def _bearer(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.rest.token}"}


class People:
    """Makes people; at the end closes their sockets and looks for their secrets in the log."""

    def __init__(self, server: WebServer) -> None:
        self._server = server
        self._all: list[Person] = []

    def new(self, name: str = "user") -> Person:
        """Somebody whom the server has never seen."""
        return self.named(f"{name}-{secrets.token_hex(6)}")

    def named(self, user_id: str) -> Person:
        """The user of exactly this id."""
        person = Person(self._server, user_id)
        self._all.append(person)
        return person

    def abandon_the_lost(self) -> None:
        """Drop the connections whose worker was killed: they have nobody to say goodbye to."""
        for client in self._clients():
            if client.has_lost_its_server():
                client.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with ExitStack() as closing:  # closes all of them, even when one fails
            for client in self._clients():
                closing.callback(client.close)
        watch(self._server.log_path).check()

    def _clients(self) -> list[SocketClient]:
        return [client for person in self._all for client in person.clients]


def _cursor_query(cursor: str | None) -> dict[str, Any]:
    return {} if cursor is None else {"query": {"cursor": cursor}}
