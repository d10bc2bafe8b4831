"""The gate: who is asking, and may this connection be opened. All of it before the 101.

Tokens are verified as Flask-JWT-Extended does it, with the host's settings unchanged (tokens.py):
signature, expiry, type, revocation, custom verification, user lookup. Whatever is wrong with a
token, the answer is one 401 with one text. What a token claimed is kept for as long as its
connection lives, and the host can be asked about it again; the token itself is not.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import urlsplit

import jwt
from flask import Flask, Request, g, request
from flask_jwt_extended import default_callbacks, get_jwt_request_location, verify_jwt_in_request
from flask_jwt_extended.config import config as jwt_config
from flask_jwt_extended.exceptions import JWTExtendedException
from werkzeug.local import LocalProxy

from ..config import Settings
from ..errors import BadRequest, OriginDenied, Unauthorized, UpgradeRequired
from ..protocol.values import Cursor, is_user_id
from ..store.tickets import Ticket, Tickets
from . import tokens

logger = logging.getLogger("flask_e2emsg.auth")

SUBPROTOCOL = "e2emsg.v1"
_BEARER = "bearer."
_TOKEN = re.compile(r"[A-Za-z0-9_.+/=-]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a verified access token names, and until when."""

    user_id: str
    expires_at: datetime  # the host's leeway included
    header: dict[str, Any] = field(repr=False)
    claims: dict[str, Any] = field(repr=False)
    ticket: str | None = field(repr=False, default=None)  # that has yet to be used up
    has_only_cookie: bool = False  # nothing but the browser's cookie says who this is

    @property
    def key(self) -> tuple[str, object]:
        """Equal for connections that were opened with the same token."""
        token_id = self.claims.get("jti")
        return self.user_id, id(self) if token_id is None else str(token_id)

    def to_ticket(self) -> Ticket:
        """What a ticket for this user stands for."""
        return Ticket(self.user_id, self.expires_at, json.dumps([self.header, self.claims]))

    @classmethod
    def of_ticket(cls, ticket: Ticket, text: str) -> Identity:
        """Whom a ticket stands for."""
        header, claims = json.loads(ticket.claims)
        return cls(ticket.user_id, ticket.token_expires_at, header, claims, text)


def identify_request(settings: Settings) -> Identity:
    """The user of a REST request, by whatever the host configured, never by the query.

    Raises:
        Unauthorized: there is no valid access token.
    """
    locations = [place for place in jwt_config.token_location if place != "query_string"]
    return _verify(locations or ["headers"], settings)


def identify_token(token: str, settings: Settings) -> Identity:
    """The user that a bare access token names. Needs a request context to verify it in.

    Raises:
        Unauthorized: the token is not valid.
    """
    return _identify_text(_present_request(), token, settings)


def identify_socket(settings: Settings, tickets: Tickets) -> Identity:
    """The user who wants to open a socket, by the first carrier that is there.

    A ticket is looked at, and used up by `use_ticket`, so that a handshake which fails for another
    reason does not cost it.

    Raises:
        Unauthorized: no carrier, the first is not valid, or another names another user.
    """
    request = _present_request()
    explicit, cookies = _explicit_carriers(request), _cookies(request)
    if not (explicit or cookies):
        raise Unauthorized
    first, *others = explicit + cookies
    if isinstance(first, _TicketText):
        identity = _identify_ticket(first, tickets)
    else:
        identity = _identify_text(request, first, settings)
    for other in others:
        claimed = _claimed_user(other, tickets)
        if claimed is not None and claimed != identity.user_id:
            raise Unauthorized
    return identity if explicit else replace(identity, has_only_cookie=True)


def use_ticket(identity: Identity, tickets: Tickets) -> None:
    """Use up the ticket by which somebody came, if it was one.

    Raises:
        Unauthorized: somebody else was faster.
    """
    if identity.ticket is not None and not tickets.redeem(identity.ticket):
        raise Unauthorized


def confirm(identity: Identity) -> None:
    """Ask the host again about a token that was verified before. Needs a request context.

    Raises:
        Unauthorized: it was revoked, or the host has something else against it or its user.
    """
    try:
        tokens.ask_host(identity.header, identity.claims)
    except (JWTExtendedException, jwt.PyJWTError):
        raise Unauthorized from None


def host_has_questions(app: Flask) -> bool:
    """Whether `confirm` can ever have another answer than when the token came."""
    manager = app.extensions["flask-jwt-extended"]
    return (
        manager._user_lookup_callback is not None
        or manager._token_in_blocklist_callback is not default_callbacks.default_blocklist_callback
        or manager._token_verification_callback
        is not default_callbacks.default_token_verification_callback
    )


def user_of_request() -> str | None:
    """Whom a token named that was verified in this request, by whatever code of the host."""
    claims = g.get("_jwt_extended_jwt") or {}
    user_id = claims.get(jwt_config.identity_claim_key)
    return None if user_id is None else str(user_id)


class _TicketText(str):
    """A credential that is a ticket, not a token."""


def _identify_ticket(text: str, tickets: Tickets) -> Identity:
    ticket = tickets.look_at(text)
    if ticket is None or ticket.token_expires_at <= datetime.now(UTC):
        raise Unauthorized
    identity = Identity.of_ticket(ticket, str(text))
    confirm(identity)
    return identity


def check_origin(settings: Settings, *, required: bool) -> None:
    """Refuse pages of foreign origins.

    Raises:
        OriginDenied: an origin that is not allowed, or none where one is required.
    """
    origin = request.headers.get("Origin")
    if origin is None:
        if required:
            raise OriginDenied
        return
    allowed = settings.allowed_origins
    # A cookie comes along from any page, so "any" cannot mean those that have nothing else.
    if allowed is None or (required and allowed == "*"):
        # Behind a proxy the scheme that we see is the proxy's, so compare with the origin's own.
        scheme = origin.partition("://")[0]
        own = _authority(f"{scheme}://{request.host}")
        if own is None or _authority(origin) != own:
            raise OriginDenied
    elif allowed != "*" and origin not in allowed:
        raise OriginDenied


def check_handshake(is_websocket: bool) -> None:
    """Refuse what is no opening handshake (RFC 6455, section 4.2.1).

    Raises:
        UpgradeRequired: an ordinary request.
        BadRequest: a handshake with something wrong in it.
    """
    request = _present_request()
    environ = request.environ
    if not is_websocket:
        if any(name.startswith("HTTP_SEC_WEBSOCKET_") for name in environ):
            raise BadRequest("This WebSocket handshake lacks `Upgrade: websocket`.")
        raise UpgradeRequired
    if request.method != "GET":  # Where GET is routed, HEAD is.
        raise BadRequest("A WebSocket handshake is a GET.")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise BadRequest("The WebSocket version must be 13.")
    try:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise BadRequest("`Sec-WebSocket-Key` must be 16 bytes in base64.")
    if "HTTP_HOST" not in environ:
        raise BadRequest("A WebSocket handshake needs a Host.")
    if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        raise BadRequest("A WebSocket handshake needs HTTP/1.1.")
    if request.content_length or "HTTP_TRANSFER_ENCODING" in environ:
        raise BadRequest("A WebSocket handshake has no body.")


def requested_cursor() -> Cursor | None:
    """The cursor in the query, if there is one.

    Raises:
        BadRequest: it is malformed.
    """
    text = request.args.get("cursor")
    return None if text is None else Cursor.parse(text)


def offered_subprotocol() -> str | None:
    """Our subprotocol, if the client offers it."""
    return SUBPROTOCOL if SUBPROTOCOL in _offered(request) else None


def _authority(origin: str) -> tuple[str | None, int | None] | None:
    """Host and port of an origin; None for what is none, such as `null`."""
    try:
        parts = urlsplit(origin)
        port = _DEFAULT_PORTS.get(parts.scheme) if parts.port is None else parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or "@" in parts.netloc:
        return None
    if parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname, port


def _present_request() -> Request:
    """The request itself: every look through Flask's proxy costs more than what it finds."""
    found: Request = cast(LocalProxy[Request], request)._get_current_object()
    return found


def _cookies(request: Request) -> list[str]:
    if "cookies" not in jwt_config.token_location:
        return []
    cookie = request.cookies.get(jwt_config.access_cookie_name)
    return [cookie] if cookie else []


def _explicit_carriers(request: Request) -> list[str]:
    carriers = []
    header, kind = request.environ.get(_header_in_environ(), ""), jwt_config.header_type
    scheme, _, value = header.partition(" ")
    if not kind:
        carriers += [header] if header else []
    elif scheme == kind:
        carriers.append(value.strip())
    carriers += [
        item.removeprefix(_BEARER) for item in _offered(request) if item.startswith(_BEARER)
    ]
    carriers += map(_TicketText, request.args.getlist("ticket"))
    carriers += request.args.getlist("token")
    return carriers


def _offered(request: Request) -> list[str]:
    header = request.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
    return [item.strip() for item in header.split(",")]


def _header_in_environ() -> str:
    return "HTTP_" + jwt_config.header_name.upper().replace("-", "_")


def _present(request: Request, token: str) -> None:
    """Put a token where Flask-JWT-Extended looks for it under the host's settings."""
    if _TOKEN.fullmatch(token) is None:
        raise Unauthorized
    kind = jwt_config.header_type
    request.environ[_header_in_environ()] = f"{kind} {token}" if kind else token


def _identify_text(request: Request, token: str, settings: Settings) -> Identity:
    _present(request, token)
    accepted = tokens.accept(token)
    return _identity(accepted.header, accepted.claims, accepted.own_claims, settings)


def _verify(locations: list[str], settings: Settings) -> Identity:
    try:
        verified = verify_jwt_in_request(locations=locations)
    except (JWTExtendedException, jwt.PyJWTError):
        raise Unauthorized from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        logger.warning("a token could not be verified: %s", type(error).__name__)
        raise Unauthorized from None
    if verified is None:
        raise Unauthorized
    # Flask-JWT-Extended fills in a missing `type`, so ask the token itself.
    own_claims = tokens.unverified_claims(_token_used()) or {}
    return _identity(verified[0], verified[1], own_claims, settings)


def _identity(
    header: dict[str, Any],
    claims: dict[str, Any],
    own_claims: dict[str, Any],
    settings: Settings,
) -> Identity:
    user_id = str(claims[jwt_config.identity_claim_key])
    lacks = any(own_claims.get(name) is None for name in settings.required_claims)
    if lacks or claims.get("type") != "access" or not is_user_id(user_id):
        raise Unauthorized
    try:
        expires_at = datetime.fromtimestamp(claims["exp"], UTC) + _leeway()
        return Identity(user_id, expires_at, header, claims)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        raise Unauthorized from None


def _leeway() -> timedelta:
    leeway: timedelta | float = jwt_config.leeway
    return leeway if isinstance(leeway, timedelta) else timedelta(seconds=leeway)


def _token_used() -> str:
    """The token that Flask-JWT-Extended has just verified."""
    location = get_jwt_request_location()
    if location == "cookies":
        return request.cookies.get(jwt_config.access_cookie_name, "")
    if location == "json":
        return str(request.get_json()[jwt_config.json_key])
    kind, header = jwt_config.header_type, request.headers.get(jwt_config.header_name, "")
    if not kind:
        return header.split()[0]
    # Of several fields, one is of the right type: it is the one that was verified.
    fields = [field.split() for field in header.split(",")]
    return next(field[1] for field in fields if field[:1] == [kind])


def _claimed_user(carrier: str, tickets: Tickets) -> str | None:
    """Whom a token or a ticket names, without believing it."""
    if isinstance(carrier, _TicketText):
        ticket = tickets.look_at(carrier)
        return None if ticket is None else ticket.user_id
    claims = tokens.unverified_claims(carrier)
    claimed = None if claims is None else claims.get(jwt_config.identity_claim_key)
    return None if claimed is None else str(claimed)
