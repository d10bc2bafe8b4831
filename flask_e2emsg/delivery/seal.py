"""What shows that a text comes from a process of the same deployment: one that has its secret."""

from __future__ import annotations

import hashlib
import hmac

LENGTH = 32  # hex characters in front of the text: half of an HMAC-SHA-256


class Seal:
    """Puts a code in front of texts, and knows those that it has put there."""

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.blake2b(secret, key=b"flask_e2emsg bus", digest_size=32).digest()

    def put_on(self, text: str) -> str:
        """The text with its code."""
        return self._code(text) + text

    def take_off(self, sealed: str) -> str | None:
        """The text, or None for what somebody else made."""
        code, text = sealed[:LENGTH], sealed[LENGTH:]
        try:
            return text if hmac.compare_digest(code, self._code(text)) else None
        except (TypeError, UnicodeError):  # What is not ASCII, or no text at all, is no code.
            return None

    def _code(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(), "sha256").hex()[:LENGTH]
