"""The server's REST calls that a client needs, by the standard library alone.

Follows no redirect, which would carry the token to another address. Tokens stand in a header, never
in an address, an error or a `repr`.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from ..errors import BadRequest
from ..protocol.values import decode_binary, encode_binary
from .errors import Garbled, NoBackup, NoToken, Refused, Unreachable
from .frames import check_page

TIMEOUT_SECONDS = 20.0
Json = dict[str, Any]
Kind = TypeVar("Kind")


class Tokens:
    """The access token of the moment, from the application's callable."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._token: str | None = None

    def current(self) -> str:
        """The one that was given last.

        Raises:
            NoToken: the application's callable failed.
        """
        with self._lock:
            if self._token is None:
                try:
                    self._token = self._ask()
                except Exception as error:
                    raise NoToken from error
            return self._token

    def fresh(self) -> str:
        """A new one."""
        self.forget()
        return self.current()

    def forget(self) -> None:
        """Do not use this one again."""
        with self._lock:
            self._token = None


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Rest:
    """Calls as one user.

    Args:
        url: of the API, such as `https://chat.example/api`.
        tokens: where access tokens come from.
        tls: for `https`; None takes the system's authorities.

    Every call raises `NoToken`, `Unreachable`, `Garbled` or `Refused`.
    """

    def __init__(self, url: str, tokens: Tokens, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._tokens = tokens
        self._open = build_opener(_NoRedirects, HTTPSHandler(context=tls)).open

    def user_id(self) -> str:
        """Whose the token is."""
        return _member(self.call("GET", "/session"), "user_id", str)

    def published_key(self, user_id: str) -> bytes | None:
        """A user's public key in the directory."""
        try:
            answer = self.call("GET", f"/keys/{_segment(user_id)}")
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return _binary(answer, "public_key")

    def publish_key(self, public_key: bytes) -> None:
        """Put mine into the directory."""
        self.call("POST", "/keys", {"public_key": encode_binary(public_key)})

    def history(self, contact: str, before: int | None, limit: int) -> Json:
        """A page, newest first."""
        query = {"limit": limit} if before is None else {"limit": limit, "before": before}
        page = self.call("GET", f"/messages/{_segment(contact)}?{urlencode(query)}")
        return check_page(page)

    def backup(self) -> tuple[bytes, int]:
        """The blob and its version.

        Raises:
            NoBackup: there is none.
        """
        try:
            answer = self.call("GET", "/key-backup")
        except Refused as refused:
            if refused.status == 404:
                raise NoBackup from None
            raise
        return _binary(answer, "blob"), _member(answer, "version", int)

    def put_backup(self, blob: bytes, version: int) -> None:
        """Replace the one of this version; 0 when there never was one."""
        self.call("PUT", "/key-backup", {"blob": encode_binary(blob), "version": version})

    def delete_backup(self) -> None:
        """Have the server forget it."""
        self.call("DELETE", "/key-backup")

    def call(self, method: str, target: str, body: Json | None = None) -> Json:
        """The JSON of an answer; with a fresh token once, when the first one is not taken."""
        try:
            return self._call(method, target, body)
        except Refused as refused:
            if refused.status != 401:
                raise
        self._tokens.forget()
        return self._call(method, target, body)

    def _call(self, method: str, target: str, body: Json | None) -> Json:
        headers = {"Authorization": f"Bearer {self._tokens.current()}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._url + target, data, headers, method=method)
        try:
            with self._open(request, timeout=TIMEOUT_SECONDS) as response:
                answer: Json = json.loads(response.read() or b"{}")
                return answer
        except HTTPError as error:
            with error:
                _refuse(error)
        except (OSError, http.client.HTTPException):
            # What the library says may quote the request.
            raise Unreachable from None
        except ValueError:
            raise Garbled from None


def _member(answer: Any, name: str, kind: type[Kind]) -> Kind:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind):
        raise Garbled
    return value


def _binary(answer: Any, name: str) -> bytes:
    try:
        return decode_binary(_member(answer, name, str), name)
    except BadRequest:
        raise Garbled from None


def _segment(text: str) -> str:
    return quote(text, safe="")


def _refuse(error: HTTPError) -> NoReturn:
    try:
        facts = json.loads(error.read())["error"]
        code = str(facts["code"])
    except (ValueError, KeyError, TypeError, OSError):
        facts, code = {}, ""
    raise Refused(error.code, code, seconds_of(error.headers.get("Retry-After")), facts) from None


def seconds_of(text: str | None) -> float | None:
    """A `Retry-After` in seconds; None when there is none, or a date."""
    return float(text) if text and text.isascii() and text.isdigit() else None
