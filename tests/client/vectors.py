"""Reads the shared vectors."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from flask_e2emsg.client.envelope import Address
from flask_e2emsg.client.keys import IdentityKey
from tests.vectors.make import FOLDER

Json = dict[str, Any]


def load(name: str) -> Json:
    """One of the files."""
    loaded: Json = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def private(text: str) -> IdentityKey:
    """A key pair from the hexadecimal of its private half."""
    return IdentityKey.from_bytes(bytes.fromhex(text))


def address_of(vector: Json) -> Address:
    """What the frame around an envelope says."""
    return Address(
        UUID(vector["message_id"]),
        vector["sender"],
        vector["recipient"],
        vector["conversation_id"],
    )
