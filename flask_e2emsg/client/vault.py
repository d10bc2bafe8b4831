"""Keeps private keys unreadable at rest: AES-256-GCM under a key that a passphrase gives (scrypt).

Without a passphrase a random one is kept by the operating system, through the package `keyring`.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import StoreError, WrongPassphrase
from .keys import label

SCRYPT_N = 1 << 17  # with r = 8: 128 MiB, and half a second
_SCRYPT_R = 8
_NONCE_LENGTH = 12
_SERVICE = "flask_e2emsg"


@dataclass(frozen=True)
class Lock:
    """What of the scrypt is no secret and stands in the file."""

    salt: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)
    cost: int = field(default_factory=lambda: SCRYPT_N)


class Vault:
    """Wraps and unwraps private keys."""

    def __init__(self, passphrase: str, lock: Lock) -> None:
        memory = 129 * lock.cost * _SCRYPT_R + (1 << 20)
        key = hashlib.scrypt(
            passphrase.encode(),
            salt=lock.salt,
            n=lock.cost,
            r=_SCRYPT_R,
            p=1,
            maxmem=memory,
            dklen=32,
        )
        self._cipher = AESGCM(key)

    def wrap(self, secret: bytes, purpose: str) -> bytes:
        """The secret, unreadable."""
        nonce = secrets.token_bytes(_NONCE_LENGTH)
        return nonce + self._cipher.encrypt(nonce, secret, label(purpose))

    def unwrap(self, wrapped: bytes, purpose: str) -> bytes:
        """The secret.

        Raises:
            WrongPassphrase: it was wrapped under another one, or was altered.
        """
        try:
            nonce, rest = wrapped[:_NONCE_LENGTH], wrapped[_NONCE_LENGTH:]
            return self._cipher.decrypt(nonce, rest, label(purpose))
        except InvalidTag:
            raise WrongPassphrase from None


def passphrase_of_the_system(name: str) -> str:
    """The passphrase that the operating system keeps for a store, made at the first time.

    Args:
        name: of the store, the same each time.

    Raises:
        StoreError: the package `keyring` is not installed.
    """
    try:
        import keyring
    except ImportError:
        raise StoreError("Give a passphrase, or install the package `keyring`.") from None
    known = keyring.get_password(_SERVICE, name)
    if known is None:
        known = secrets.token_urlsafe(32)
        keyring.set_password(_SERVICE, name, known)
    return str(known)
