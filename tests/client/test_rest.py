"""REST calls: whose token goes where, and what is said when something fails."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flask_e2emsg.client.errors import Garbled, NoBackup, NoToken, Refused, Unreachable
from flask_e2emsg.client.rest import Rest, Tokens

Answer = tuple[int, dict[str, str], bytes]


class Server(ThreadingHTTPServer):
    """Gives the answers in their order, and remembers what was asked with which token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str, str]] = []

    def will(self, status: int, body: Any, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.append((status, named, text))


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        status, headers, body = self.server.answers.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_DELETE = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def rest_of(server: Server, ask: Callable[[], str] | None = None) -> Rest:
    given = iter(["token-canary-1", "token-canary-2"])
    url = f"http://127.0.0.1:{server.server_address[1]}/api"
    return Rest(url, Tokens(ask or (lambda: next(given))), None)


def test_names_in_paths_are_escaped(server: Server) -> None:
    server.will(404, {"error": {"code": "not_found"}})
    assert rest_of(server).published_key("a/b?c d") is None
    assert server.asked == [("GET", "/api/keys/a%2Fb%3Fc%20d", "Bearer token-canary-1")]


def test_a_token_that_is_not_taken_is_replaced_once(server: Server) -> None:
    server.will(401, {"error": {"code": "unauthorized"}})
    server.will(200, {"user_id": "alice"})
    assert rest_of(server).user_id() == "alice"
    assert [bearer for *_, bearer in server.asked] == [
        "Bearer token-canary-1",
        "Bearer token-canary-2",
    ]


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.will(302, b"", Location=f"http://127.0.0.1:{server.server_address[1]}/elsewhere")
    with pytest.raises(Refused) as refused:
        rest_of(server).user_id()
    assert refused.value.status == 302
    assert len(server.asked) == 1


def test_a_refusal_says_what_the_server_says(server: Server) -> None:
    facts = {"code": "conflict", "message": "no", "version": 7}
    server.will(409, {"error": facts}, Retry_After="3")
    with pytest.raises(Refused) as refused:
        rest_of(server).put_backup(b"blob", 6)
    error = refused.value
    assert (error.status, error.code, error.retry_after) == (409, "conflict", 3.0)
    assert error.facts["version"] == 7


def test_no_backup_has_an_error_of_its_own(server: Server) -> None:
    server.will(404, {"error": {"code": "not_found"}})
    with pytest.raises(NoBackup):
        rest_of(server).backup()


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"public_key": "!"}', b'{"public_key": 7}']
)
def test_an_answer_that_makes_no_sense(server: Server, body: bytes) -> None:
    server.will(200, body)
    with pytest.raises(Garbled):
        rest_of(server).published_key("bob")


def test_a_page_of_history_is_checked(server: Server) -> None:
    server.will(200, {"messages": [{"id": "7"}], "next": None})
    with pytest.raises(Garbled):
        rest_of(server).history("bob", None, 50)


def test_nobody_there_is_said_without_the_token(server: Server) -> None:
    rest = Rest("http://127.0.0.1:9/api", Tokens(lambda: "token-canary-1"), None)
    with pytest.raises(Unreachable) as unreachable:
        rest.user_id()
    assert "canary" not in "".join(traceback.format_exception(unreachable.value))


def test_an_application_that_gives_no_token(server: Server) -> None:
    def fail() -> str:
        raise ValueError

    with pytest.raises(NoToken):
        rest_of(server, fail).user_id()
    assert server.asked == []
