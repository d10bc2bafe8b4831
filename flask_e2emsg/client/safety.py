"""Safety numbers: 60 digits that two people compare over another channel (docs/crypto.md, 5)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

ROUNDS = 5200
_VERSION = b"\x00\x01"


@dataclass(frozen=True, slots=True)
class SafetyNumber:
    """The number of a pair of users. Both see the same."""

    digits: str

    @property
    def groups(self) -> str:
        """For people: twelve groups of five digits."""
        return " ".join(self.digits[at : at + 5] for at in range(0, 60, 5))

    @property
    def qr_text(self) -> str:
        """What the QR code says."""
        return f"e2emsg-safety:1:{self.digits}"

    def __str__(self) -> str:
        return self.groups


def safety_number(one: tuple[str, bytes], other: tuple[str, bytes]) -> SafetyNumber:
    """The number of two users, each given as user id and public key."""
    return SafetyNumber("".join(sorted([half(*one), half(*other)])))


def half(user_id: str, public_key: bytes) -> str:
    """The 30 digits of one side."""
    digest = _VERSION + public_key + user_id.encode()
    for _ in range(ROUNDS):
        digest = hashlib.sha512(digest + public_key).digest()
    numbers = (int.from_bytes(digest[at : at + 5], "big") for at in range(0, 30, 5))
    return "".join(f"{number % 100_000:05}" for number in numbers)
