"""What REST shows a user: plain requests, and the messages in whatever comes back."""

from __future__ import annotations

import http.client
from typing import Any

from tests.acceptance.wire import Frame, parse_json
from tests.crucible.journal import Event

REST_SECONDS = 15.0


def get(address: str, path: str, token: str) -> tuple[int, Any]:
    """Status and body of one GET."""
    connection = http.client.HTTPConnection(address, timeout=REST_SECONDS)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = response.read()
        return response.status, parse_json(body) if response.status == 200 else None
    finally:
        connection.close()


def post(address: str, path: str, token: str) -> int:
    """The status of one POST without a body."""
    connection = http.client.HTTPConnection(address, timeout=REST_SECONDS)
    try:
        connection.request("POST", path, headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()


def messages_in(body: Any) -> list[Event]:
    """The messages of whatever a route has shown."""
    match body:
        case {"messages": list(shown)}:
            return [_shown(one) for one in shown]
        case {"entries": list(shown)}:
            return [_shown(one) for one in shown if one["type"] == "message"]
        case list(shown):
            return [_shown(one["last"]) for one in shown]
    return []


def _shown(message: Frame) -> Event:
    return {name: message[name] for name in ("id", "sender", "recipient", "encrypted_content")}
