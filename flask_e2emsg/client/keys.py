"""Identity keys: X25519 key pairs and the kids that name them (docs/crypto.md, 1).

A private key shows nothing of itself: its `repr` has the kid.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pyhpke import KEMKey, KEMKeyInterface

from .. import errors as wire
from ..protocol.envelope import kid_of
from ..protocol.keys import check_public_key
from .errors import UnusableKey


def label(text: str) -> bytes:
    """The ASCII text and one zero byte."""
    return text.encode("ascii") + b"\0"


def length_prefixed(text: str) -> bytes:
    """The length of the UTF-8 bytes in two bytes, then those bytes."""
    octets = text.encode()
    return len(octets).to_bytes(2, "big") + octets


@lru_cache(maxsize=1024)
def hpke_public_key(public_key: bytes) -> KEMKeyInterface:
    """A public key as pyhpke takes it.

    Raises:
        UnusableKey: it does not have 32 bytes, or is a point of low order.
    """
    try:
        check_public_key(public_key)
    except wire.UnusableKey:
        raise UnusableKey from None
    return KEMKey.from_pyca_cryptography_key(X25519PublicKey.from_public_bytes(public_key))


class IdentityKey:
    """A key pair of mine."""

    __slots__ = ("_private", "hpke", "kid", "public")

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.hpke = KEMKey.from_pyca_cryptography_key(private)
        self.public = private.public_key().public_bytes_raw()
        self.kid = kid_of(self.public)

    @classmethod
    def generate(cls) -> IdentityKey:
        """A new one."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, private_key: bytes) -> IdentityKey:
        """The one of these 32 bytes."""
        return cls(X25519PrivateKey.from_private_bytes(private_key))

    def to_bytes(self) -> bytes:
        """The 32 private bytes, for the store and the backup alone."""
        return self._private.private_bytes_raw()

    def __repr__(self) -> str:
        return f"IdentityKey({self.kid.hex()})"
