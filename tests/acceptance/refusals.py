"""Asking for what a server cannot do just now, and taking its word for it."""

from __future__ import annotations

import json
import time
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

from tests.acceptance.client import SocketClient
from tests.acceptance.people import Person
from tests.acceptance.wire import Frame

REFUSAL_SECONDS = 10.0  # until the database's writer has no room, or is read-only


def refused(client: SocketClient, to: str, content: str | None = None) -> str:
    """Send until storage is unavailable for the one that writes; the refused id."""
    deadline = time.monotonic() + REFUSAL_SECONDS
    while True:
        message_id = client.send(to, content)
        answer = client.answer(message_id)
        if answer["type"] == "error":
            assert answer["code"] == "unavailable"
            assert answer["retry_after"] > 0
            return message_id
        assert time.monotonic() < deadline, f"still accepted: {answer}"


def accepted_within(
    seconds: float, client: SocketClient, to: str, message_id: str, content: str | None = None
) -> Frame:
    """Send it again and again; the answer, which has to be `accepted` in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = client.answer(client.send(to, content, message_id=message_id))
        if answer["type"] == "accepted":
            return answer
        assert time.monotonic() < deadline


def status_of_post(person: Person, body: dict[str, str]) -> int:
    """Of a `POST /api/messages`, which may fail on the server's side."""
    address = urlsplit(person.server.url)
    token = person.rest.token
    with closing(HTTPConnection(str(address.hostname), address.port)) as connection:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", "/api/messages", json.dumps(body), headers)
        response = connection.getresponse()
        assert response.status < 500 or int(response.headers["Retry-After"]) > 0
        return response.status
