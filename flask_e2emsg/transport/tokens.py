"""Access tokens, judged as Flask-JWT-Extended judges them in a request, with the host's settings.

Its own way parses a token four times before it has an answer, and we needed a fifth, which was a
good part of what a handshake cost; here it is parsed once, or twice where the host chooses a key
for each token. Whatever the host has set or registered decides: keys, algorithms, audience, issuer,
leeway, revocation, its own verification, the lookup of users.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import jwt
from flask import current_app, g
from flask_jwt_extended import JWTManager, default_callbacks
from flask_jwt_extended.config import config
from flask_jwt_extended.exceptions import JWTDecodeError, JWTExtendedException
from flask_jwt_extended.internal_utils import (
    custom_verification_for_token,
    has_user_lookup,
    user_lookup,
    verify_token_not_blocklisted,
    verify_token_type,
)
from jwt.api_jwt import decode_complete

from ..errors import Unauthorized

logger = logging.getLogger("flask_e2emsg.auth")

# What Flask-JWT-Extended fills in where a token lacks it.
_FILLED_IN = {"type": "access", "fresh": False, "jti": None}


@dataclass(frozen=True, slots=True)
class Token:
    """An access token that was verified, and that the host accepts."""

    header: dict[str, Any] = field(repr=False)
    claims: dict[str, Any] = field(repr=False)  # as the host's callbacks see them
    own_claims: dict[str, Any] = field(repr=False)  # as they stand in it


def accept(text: str) -> Token:
    """Verify an access token, and ask the host about it. Needs a request context.

    Raises:
        Unauthorized: something is wrong with it, or the host has something against it or its user.
    """
    try:
        header, own_claims = _decoded(text)
        claims = {**_FILLED_IN, **own_claims}
        verify_token_type(claims, refresh=False)
        ask_host(header, claims)
    except (JWTExtendedException, jwt.PyJWTError):
        raise Unauthorized from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        logger.warning("a token could not be verified: %s", type(error).__name__)
        raise Unauthorized from None
    return Token(header, claims, own_claims)


def ask_host(header: dict[str, Any], claims: dict[str, Any]) -> None:
    """Ask the host's callbacks about a token that was verified. Needs a request context.

    Raises:
        Unauthorized, JWTExtendedException: the host has something against it or its user.
    """
    verify_token_not_blocklisted(header, claims)
    custom_verification_for_token(header, claims)
    user = None
    if has_user_lookup():
        loaded = user_lookup(header, claims)
        if loaded is None:
            raise Unauthorized
        user = {"loaded_user": loaded}
    # Where Flask-JWT-Extended keeps them: the host may use get_jwt() and current_user.
    g._jwt_extended_jwt_header, g._jwt_extended_jwt = header, claims
    g._jwt_extended_jwt_user, g._jwt_extended_jwt_location = user, "headers"


def unverified_claims(text: str) -> dict[str, Any] | None:
    """What a token says, without believing it; None for what is no token."""
    try:
        return jwt.decode(text, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError):
        return None


def _decoded(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token whose signature, times, audience and issuer are right."""
    host = current_app.config
    audience = host["JWT_DECODE_AUDIENCE"]
    found = decode_complete(
        text,
        _key_for(text),
        algorithms=config.decode_algorithms,
        audience=audience,
        issuer=host["JWT_DECODE_ISSUER"],
        leeway=host["JWT_DECODE_LEEWAY"],
        options={"verify_aud": audience is not None, "verify_sub": host["JWT_VERIFY_SUB"]},
    )
    header, claims = found["header"], found["payload"]
    if host["JWT_IDENTITY_CLAIM"] not in claims:
        raise JWTDecodeError("the token names nobody")
    return header, claims


def _key_for(text: str) -> Any:
    manager: JWTManager = current_app.extensions["flask-jwt-extended"]
    choose = manager._decode_key_callback
    if choose is default_callbacks.default_decode_key_callback:
        return config.decode_key
    unverified = decode_complete(text, options={"verify_signature": False})
    return choose(unverified["header"], unverified["payload"])
