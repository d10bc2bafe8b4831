"""Tokens are judged as Flask-JWT-Extended itself judges them in a request."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask
from flask_jwt_extended import (
    JWTManager,
    current_user,
    get_jwt,
    get_jwt_header,
    get_jwt_identity,
    get_jwt_request_location,
    verify_jwt_in_request,
)

from flask_e2emsg.errors import Unauthorized
from flask_e2emsg.transport import tokens

SECRET = "a secret of these tests, which is long enough for HS512 as well, and so"
OTHER = "another secret of these tests, which is long enough for HS512 as well, too"
PRIVATE_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)  # much longer than all tests take


def app_with(**config: object) -> Flask:
    app = Flask(__name__)
    app.config.update({"JWT_SECRET_KEY": SECRET, **config})
    JWTManager(app)
    return app


def manager_of(app: Flask) -> Any:
    return app.extensions["flask-jwt-extended"]


def with_keys_by_id() -> Flask:
    app = app_with()
    keys = {"old": OTHER, "new": SECRET}
    manager_of(app).decode_key_loader(lambda header, claims: keys[header["kid"]])
    return app


def with_a_revoked_token() -> Flask:
    app = app_with()
    manager_of(app).token_in_blocklist_loader(lambda header, claims: claims["jti"] == "revoked")
    return app


def with_a_rule_of_its_own() -> Flask:
    app = app_with()
    manager_of(app).token_verification_loader(lambda header, claims: not claims["fresh"])
    return app


def with_users() -> Flask:
    app = app_with()
    users = {"alice": "Alice"}
    manager_of(app).user_lookup_loader(lambda header, claims: users.get(claims["sub"]))
    return app


HOSTS: dict[str, Callable[[], Flask]] = {
    "plain": app_with,
    "audience": lambda: app_with(JWT_DECODE_AUDIENCE="chat"),
    "audiences": lambda: app_with(JWT_DECODE_AUDIENCE=["mail", "chat"]),
    "issuer": lambda: app_with(JWT_DECODE_ISSUER="us"),
    "leeway": lambda: app_with(JWT_DECODE_LEEWAY=86400),
    "leeway as a time": lambda: app_with(JWT_DECODE_LEEWAY=DAY),
    "any subject": lambda: app_with(JWT_VERIFY_SUB=False),
    "another claim": lambda: app_with(JWT_IDENTITY_CLAIM="uid"),
    "algorithms": lambda: app_with(JWT_DECODE_ALGORITHMS=["HS512", "HS256"]),
    "HS512": lambda: app_with(JWT_ALGORITHM="HS512"),
    "RS256": lambda: app_with(JWT_ALGORITHM="RS256", JWT_PUBLIC_KEY=PRIVATE_KEY.public_key()),
    "keys by id": with_keys_by_id,
    "blocklist": with_a_revoked_token,
    "verification": with_a_rule_of_its_own,
    "users": with_users,
}


def signed(
    key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **claims: object
) -> str:
    """An access token of alice's with these claims instead; None leaves one out."""
    usual = {"sub": "alice", "type": "access", "jti": "1", "fresh": False, "exp": NOW + 24 * DAY}
    merged = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(merged, key, algorithm=algorithm, headers=headers)


def unsigned(header: dict[str, object], claims: object) -> str:
    parts = [json.dumps(part).encode() for part in (header, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


TOKENS: dict[str, str] = {
    "good": signed(),
    "other key": signed(OTHER),
    "HS512": signed(SECRET, "HS512"),
    "RS256": signed(PRIVATE_KEY, "RS256"),
    "none": unsigned({"alg": "none", "typ": "JWT"}, {"sub": "alice", "exp": 2**32}),
    "no algorithm": unsigned({"typ": "JWT"}, {"sub": "alice"}),
    "no object": unsigned({"alg": "HS256"}, ["sub", "alice"]),
    "cut": signed()[:-3],
    "padded": signed() + "=",
    "no token": "garbage",
    "two parts": "e30.e30",
    "refresh": signed(type="refresh"),
    "another type": signed(type="other"),
    "no type": signed(type=None),
    "no jti": signed(jti=None),
    "no fresh": signed(fresh=None),
    "fresh": signed(fresh=True),
    "no exp": signed(exp=None),
    "expired": signed(exp=NOW - DAY / 2),
    "expired long ago": signed(exp=NOW - 24 * DAY),
    "exp no number": signed(exp="soon"),
    "not yet": signed(nbf=NOW + DAY / 2),
    "not for long": signed(nbf=NOW + 24 * DAY),
    "of tomorrow": signed(iat=NOW + 24 * DAY),
    "audience": signed(aud="chat"),
    "audiences": signed(aud=["x", "chat"]),
    "second audience": signed(aud="mail"),
    "other audience": signed(aud="other"),
    "issuer": signed(iss="us"),
    "other issuer": signed(iss="them"),
    "subject 42": signed(sub=42),
    "no subject": signed(sub=None),
    "uid": signed(uid="alice", sub=None),
    "bob": signed(sub="bob"),
    "new key": signed(kid="new"),
    "old key": signed(OTHER, kid="old"),
    "old key, new id": signed(OTHER, kid="new"),
    "unknown key": signed(kid="unknown"),
    "revoked": signed(jti="revoked"),
}


def theirs(app: Flask, text: str) -> tuple[object, ...] | None:
    """What Flask-JWT-Extended leaves for the host when it is sent a token; None for a bad one."""
    with app.test_request_context(headers={"Authorization": f"Bearer {text}"}):
        try:
            verify_jwt_in_request()
        except Exception:
            return None
        return seen_by_the_host(app)


def ours(app: Flask, text: str) -> tuple[object, ...] | None:
    """The same of ours."""
    with app.test_request_context():
        try:
            token = tokens.accept(text)
        except Unauthorized:
            return None
        assert (token.header, token.claims) == (get_jwt_header(), get_jwt())
        return seen_by_the_host(app)


def seen_by_the_host(app: Flask) -> tuple[object, ...]:
    user = str(current_user) if manager_of(app)._user_lookup_callback else None
    place = get_jwt_request_location()
    return get_jwt_header(), get_jwt(), get_jwt_identity(), user, place


@pytest.mark.parametrize("kind", HOSTS)
def test_every_token_is_judged_as_by_flask_jwt_extended(kind: str) -> None:
    app = HOSTS[kind]()
    verdicts = {name: (theirs(app, text), ours(app, text)) for name, text in TOKENS.items()}
    assert {name: mine for name, (_, mine) in verdicts.items()} == {
        name: their for name, (their, _) in verdicts.items()
    }
    accepted = [name for name, (their, _) in verdicts.items() if their is not None]
    assert 0 < len(accepted) < len(TOKENS)


def test_these_hosts_differ_in_what_they_accept() -> None:
    accepted = {
        kind: frozenset(name for name, text in TOKENS.items() if ours(app(), text))
        for kind, app in HOSTS.items()
    }
    alike = [
        pair
        for pair in itertools.combinations(accepted, 2)
        if len({accepted[k] for k in pair}) == 1
    ]
    assert alike == [("leeway", "leeway as a time")]


def test_what_a_token_lacks_is_not_taken_for_its_own() -> None:
    with app_with().test_request_context():
        token = tokens.accept(TOKENS["no type"])
    assert token.claims["type"] == "access"
    assert "type" not in token.own_claims
