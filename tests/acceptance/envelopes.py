"""Envelopes as the server sees them, laid out from docs/crypto.md: nobody can open these."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

from tests.acceptance.rest import RestClient
from tests.acceptance.wire import new_id, to_base64url


@dataclass
class Keys:
    """The key that a user has published last."""

    id: str
    rest: RestClient
    public_key: bytes = field(default=b"", repr=False)

    def renew(self) -> bytes:
        """Publish another key; the new one."""
        self.public_key = secrets.token_bytes(32)
        answer = self.rest.post("/api/keys", {"public_key": to_base64url(self.public_key)})
        assert answer.status == 200, answer.body
        return self.public_key


def kid(public_key: bytes) -> bytes:
    return sha256(b"flask-e2emsg kid v1\0" + public_key).digest()[:8]


def envelope(message_id: str, sender: bytes, readers: Sequence[bytes], size: int = 256) -> bytes:
    """The bytes of an envelope by the sender's public key for those of the readers."""
    return b"".join(
        (
            b"\x01\x01",
            UUID(message_id).bytes,
            kid(sender),
            bytes([len(readers)]),
            *(kid(reader) + secrets.token_bytes(80) for reader in readers),
            secrets.token_bytes(12 + size + 16),
        )
    )


def sealed(sender: Keys, recipient: Keys) -> tuple[str, str]:
    """A new message id, and content that fits it and both current keys."""
    message_id = new_id()
    readers = [recipient.public_key, sender.public_key]
    return message_id, to_base64url(envelope(message_id, sender.public_key, readers))
