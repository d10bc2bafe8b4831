"""Tokens that no honest host would mint, for the gate to refuse."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt

Claims = dict[str, Any]


def claims_of(token: str) -> Claims:
    """The claims of a token, unverified."""
    payload = token.split(".")[1]
    claims: Claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def sign(claims: Claims, secret: str, algorithm: str = "HS256") -> str:
    """A token of these claims. Algorithm `none` takes an empty secret."""
    return jwt.encode(claims, secret, algorithm=algorithm)


def without(claims: Claims, *names: str) -> Claims:
    """The claims but for these."""
    return {name: value for name, value in claims.items() if name not in names}
