"""No credential that stands in an address reaches a log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from gunicorn.glogging import SafeAtoms

from flask_e2emsg.redaction import LOGGERS, RedactingFilter, install, redact
from tests.acceptance.people import People
from tests.acceptance.rest import HANDSHAKE, raw_get
from tests.servers import FlaskRunServer, GunicornServer, WebServer, run_once, wait_until

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLWFsaWNl"
HARMLESS = [
    "",
    "GET / HTTP/1.1",
    "GET /api/ws?cursor=0123456789abcdef:7 HTTP/1.1",
    "GET /api/messages/bob?before=7&limit=50 HTTP/1.1",
    "the token was refused",
    "tokens=3",
    "Bearer",
    "a bearer of news",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"/api/ws?token={JWT}", "/api/ws?token=***"),
        (f"/api/ws?ticket={JWT}", "/api/ws?ticket=***"),
        (f"token={JWT}", "token=***"),
        (f"cursor=a:1&token={JWT}&x=y", "cursor=a:1&token=***&x=y"),
        (f"token={JWT}&ticket=abc", "token=***&ticket=***"),
        (f'"GET /api/ws?token={JWT} HTTP/1.1" 401', '"GET /api/ws?token=*** HTTP/1.1" 401'),
        (f"'/api/ws?token={JWT}'", "'/api/ws?token=***'"),
        (f"/api/ws?token={JWT}#part", "/api/ws?token=***#part"),
        (f"/api/ws?TOKEN={JWT}", "/api/ws?TOKEN=***"),
        ("/api/ws?token=", "/api/ws?token=***"),
        ("/api/ws?token=no-jwt-at-all%20%2F", "/api/ws?token=***"),
        (f"Authorization: Bearer {JWT}", "Authorization: Bearer ***"),
        (f"authorization: bearer  {JWT}", "authorization: bearer  ***"),
        (f"e2emsg.v1, bearer.{JWT}", "e2emsg.v1, bearer.***"),
        *((text, text) for text in HARMLESS),
    ],
)
def test_credentials_are_replaced_and_nothing_else(text: str, expected: str) -> None:
    assert redact(text) == expected


def formatted(message: str, *arguments: Any) -> str:
    """What a handler writes of a record that has passed the filter."""
    record = logging.LogRecord("a server", logging.INFO, "", 0, message, arguments, None)
    assert RedactingFilter().filter(record)
    return record.getMessage()


def test_every_argument_of_a_record_is_redacted() -> None:
    text = formatted("%s asked %r for %d bytes", "::1", f"/api/ws?token={JWT}", 7)
    assert text == "::1 asked '/api/ws?token=***' for 7 bytes"


def test_a_message_without_arguments_is_redacted() -> None:
    assert formatted(f"Invalid request /api/ws?token={JWT}") == "Invalid request /api/ws?token=***"


def test_a_message_that_is_no_text_passes_unchanged() -> None:
    assert formatted(ValueError("odd"), *()) == "odd"  # type: ignore[arg-type]


def test_gunicorns_atoms_are_redacted_when_they_are_looked_up() -> None:
    atoms = SafeAtoms(
        {
            "r": f"GET /api/ws?token={JWT} HTTP/1.1",
            "q": f"token={JWT}",
            "s": "401",
            "{authorization}i": f"Bearer {JWT}",
            "{sec-websocket-protocol}i": f"e2emsg.v1, bearer.{JWT}",
            "{referer}i": f"https://app.example.com/?ticket={JWT}",
        }
    )
    message = " | ".join(
        f"%({name})s"
        for name in (
            *("r", "q", "s", "nothing", "{authorization}i"),
            *("{sec-websocket-protocol}i", "{referer}i", "{nothing}i"),
        )
    )
    expected = (
        "GET /api/ws?token=*** HTTP/1.1 | token=*** | 401 | - | Bearer *** | "
        "e2emsg.v1, bearer.*** | https://app.example.com/?ticket=*** | -"
    )
    assert formatted(message, atoms) == expected


def test_installing_twice_is_installing_once() -> None:
    install()
    install()
    for name in LOGGERS:
        filters = logging.getLogger(name).filters
        assert sum(isinstance(one, RedactingFilter) for one in filters) == 1


# End to end.

ACCESS_LOG = "%(r)s q=%(q)s f=%(f)s p=%({sec-websocket-protocol}i)s a=%({authorization}i)s s=%(s)s"


def gunicorn(env: dict[str, str], log_path: Path) -> WebServer:
    arguments = ["--access-logfile=-", f"--access-logformat={ACCESS_LOG}", "--log-level=debug"]
    return GunicornServer(env=env, log_path=log_path, arguments=arguments)


def flask_run(env: dict[str, str], log_path: Path) -> WebServer:
    return FlaskRunServer(env=env, log_path=log_path)


@pytest.fixture(scope="module", params=[gunicorn, flask_run])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("redaction")
    env = {
        "DATABASE_URL": f"sqlite:///{folder / 'database.sqlite'}",
        "JWT_SECRET_KEY": "redaction tests only, long enough for HS256",
    }
    run_once("tests.acceptance.host", "create", env=env)
    make: Callable[[dict[str, str], Path], WebServer] = request.param
    with make(env, folder / "server.log") as running:
        yield running


def wait_for_log(server: WebServer, text: str) -> str:
    wait_until(lambda: text in server.log(), 10, lambda: f"no {text!r} in {server.log()}")
    return server.log()


@pytest.mark.parametrize("name", ["token", "ticket"])
@pytest.mark.parametrize("secret", [JWT, "no/JWT+at=all", "with space & more"])
def test_a_refused_upgrade_leaves_no_credential_in_the_log(
    server: WebServer, name: str, secret: str
) -> None:
    marker = f"{name}-{len(secret)}"
    target = f"/api/ws?x={marker}&{name}={quote(secret, safe='')}"
    headers = [("Sec-WebSocket-Protocol", f"e2emsg.v1, bearer.{JWT}")]
    headers += [("Authorization", f"Bearer {JWT}"), ("Referer", f"http://x/?{name}={JWT}")]
    assert raw_get(server.url, target, [*HANDSHAKE, *headers]).status == 401
    log = wait_for_log(server, f"x={marker}&{name}=***")
    for leaked in (secret, quote(secret, safe=""), JWT, JWT.split(".")[2]):
        assert leaked not in log


def test_an_accepted_upgrade_leaves_no_token_in_the_log(server: WebServer) -> None:
    with People(server) as people:
        alice = people.new("alice")
        client = alice.connect()
        client.round_trip()
        client.close()
        assert alice.rest.get("/api/conversations", token=alice.token()).status == 200
        log = wait_for_log(server, "/api/conversations?token=***")
        assert not [token for token in alice.tokens if token.split(".")[2] in log]
