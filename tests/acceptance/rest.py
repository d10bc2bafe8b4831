"""The REST half of the protocol, and a raw socket for what must be judged byte by byte.

Both are plain standard library. A 5xx, an answer that is not strict JSON, or an error body of the
wrong shape fails at once.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tests.acceptance.canaries import USED
from tests.acceptance.wire import check_error_body, parse_json

TIMEOUT_SECONDS = 15.0
Header = tuple[str, str]

HANDSHAKE: tuple[Header, ...] = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


def segment(text: str) -> str:
    """Any user or conversation id as one segment of a path."""
    return quote(text, safe="")


@dataclass(frozen=True)
class Answer:
    """One HTTP response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body, which must be JSON and say so."""
        assert self.headers.get("content-type", "").startswith("application/json"), self
        return parse_json(self.body)

    @property
    def code(self) -> str:
        """The `code` of an error body."""
        return str(self.json["error"]["code"])

    def refused(self, status: int, code: str) -> bool:
        """Whether it is this refusal; the assertion's text shows what it is instead."""
        assert (self.status, self.code) == (status, code), f"{self.status} {self.body!r}"
        return True


@dataclass(frozen=True)
class RestClient:
    """Calls as one user, or as nobody when there is no token."""

    url: str
    token: str | None = field(default=None, repr=False)

    def get(self, path: str, **query: object) -> Answer:
        """GET; members of the query that are None are left out."""
        given = {name: str(value) for name, value in query.items() if value is not None}
        return self.call("GET", f"{path}?{urlencode(given)}" if given else path)

    def post(self, path: str, body: object) -> Answer:
        """POST a JSON body."""
        return self.call("POST", path, json.dumps(body).encode())

    def call(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any request: the target as it stands, and any bytes as the body."""
        sent = {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}
        USED.note(f"{target} {sent} {dict(headers or {})}")
        USED.note((body or b"").decode(errors="replace"))
        if body is not None:
            sent["Content-Type"] = "application/json"
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            str(address.hostname), address.port, timeout=TIMEOUT_SECONDS
        )
        try:
            connection.request(method, target, body, {**sent, **(headers or {})})
            response = connection.getresponse()
            lowered = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, lowered, response.read())
            USED.note(answer.body.decode(errors="replace"))
        finally:
            connection.close()
        assert answer.status < 500, f"{method} {target}: {answer.status} {answer.body!r}"
        if answer.status >= 400:
            check_error_body(answer.json)
        return answer


@dataclass(frozen=True)
class RawAnswer:
    """What came back over a raw socket: `after` is every byte beyond the announced body."""

    status_line: str
    headers: dict[str, str]
    body: bytes
    after: bytes

    @property
    def status(self) -> int:
        """The status code of the first line."""
        return int(self.status_line.split(" ")[1])

    @property
    def code(self) -> str:
        """The `code` of the error body, whose shape is checked."""
        body = parse_json(self.body)
        check_error_body(body)
        return str(body["error"]["code"])


def raw_get(url: str, target: str, headers: Iterable[Header]) -> RawAnswer:
    """One GET by hand, read until the server is silent or gone; no 101 is followed up.

    After a refusal our half of the connection is closed, and what the server still says until it
    closes its half is `after`.
    """
    address = urlsplit(url)
    lines = [f"GET {target} HTTP/1.1", f"Host: {address.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers]
    request = "\r\n".join([*lines, "", ""]).encode("latin-1")
    USED.note(request.decode("latin-1"))
    deadline = time.monotonic() + TIMEOUT_SECONDS
    with socket.create_connection((str(address.hostname), address.port or 80)) as connection:
        connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += _read(connection, deadline)
        head, rest = received.split(b"\r\n\r\n", 1)
        status_line, *fields = head.decode("latin-1").split("\r\n")
        named = dict(line.split(":", 1) for line in fields)
        answered = {name.lower(): value.strip() for name, value in named.items()}
        if status_line.split(" ")[1] == "101":
            return RawAnswer(status_line, answered, b"", rest)
        length = int(answered.get("content-length", "0"))
        while len(rest) < length:
            rest += _read(connection, deadline)
        connection.shutdown(socket.SHUT_WR)
        while more := _read(connection, deadline, may_end=True):
            rest += more
        return RawAnswer(status_line, answered, rest[:length], rest[length:])


def _read(connection: socket.socket, deadline: float, *, may_end: bool = False) -> bytes:
    connection.settimeout(max(0.001, deadline - time.monotonic()))
    try:
        received = connection.recv(65536)
    except ConnectionResetError:
        received = b""
    assert received or may_end, "the server closed the connection in the middle of its answer"
    return received
