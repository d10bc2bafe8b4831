"""The recovery code, and the backup of the identity key that it opens (docs/crypto.md, 6).

A code is shown once and kept nowhere; neither it nor a key is in any error.
"""

from __future__ import annotations

import hashlib
import secrets

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import BadRequest
from ..protocol.values import decode_binary, encode_binary
from .errors import Mistyped, WrongCode
from .keys import IdentityKey, label, length_prefixed

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_BYTES, CODE_LETTERS, CHECK_BITS = 16, 28, 12
VERSION = b"\x01"
NONCE_LENGTH, TAG_LENGTH = 12, 16
_READ_AS = str.maketrans("ILO", "110", "- \t\r\n")


class _Content(msgspec.Struct, frozen=True):
    private_key: str
    created_at: int  # milliseconds

    def __repr__(self) -> str:
        return "_Content(...)"


def new_code() -> str:
    """A fresh recovery code, as people read it."""
    return format_code(secrets.token_bytes(CODE_BYTES))


def format_code(secret: bytes) -> str:
    """The seven groups of four letters of 16 bytes."""
    bits = int.from_bytes(secret, "big") << CHECK_BITS | _checksum(secret)
    letters = [ALPHABET[bits >> 5 * at & 31] for at in reversed(range(CODE_LETTERS))]
    return "-".join("".join(letters[at : at + 4]) for at in range(0, CODE_LETTERS, 4))


def parse_code(code: str) -> bytes:
    """The 16 bytes of a code as somebody has typed it.

    Raises:
        Mistyped: a letter is wrong, missing or too much.
    """
    letters = code.upper().translate(_READ_AS)
    if len(letters) != CODE_LETTERS or not set(letters) <= set(ALPHABET):
        raise Mistyped
    bits = 0
    for letter in letters:
        bits = bits << 5 | ALPHABET.index(letter)
    secret = (bits >> CHECK_BITS).to_bytes(CODE_BYTES, "big")
    if bits & (1 << CHECK_BITS) - 1 != _checksum(secret):
        raise Mistyped
    return secret


def _checksum(secret: bytes) -> int:
    digest = hashlib.sha256(label("flask-e2emsg recovery code v1") + secret).digest()
    return int.from_bytes(digest[:2], "big") >> 16 - CHECK_BITS


def seal_backup(
    key: IdentityKey, user_id: str, code: str, created_at: int, nonce: bytes | None = None
) -> bytes:
    """The blob that the server keeps.

    Args:
        key: what is backed up.
        user_id: whose it is.
        code: the recovery code.
        created_at: milliseconds since 1970.
        nonce: fresh and random unless a vector fixes it.
    """
    nonce = nonce or secrets.token_bytes(NONCE_LENGTH)
    content = msgspec.json.encode(_Content(encode_binary(key.to_bytes()), created_at))
    return VERSION + nonce + _cipher(code).encrypt(nonce, content, _additional(user_id))


def open_backup(blob: bytes, user_id: str, code: str) -> IdentityKey:
    """The key in a backup.

    Raises:
        Mistyped: this is no code.
        WrongCode: it is the code of another backup, or somebody altered this one.
    """
    cipher = _cipher(code)
    try:
        if blob[:1] != VERSION or len(blob) < 1 + NONCE_LENGTH + TAG_LENGTH:
            raise ValueError
        content = cipher.decrypt(
            blob[1 : 1 + NONCE_LENGTH], blob[1 + NONCE_LENGTH :], _additional(user_id)
        )
        decoded = msgspec.json.decode(content, type=_Content)
        return IdentityKey.from_bytes(decode_binary(decoded.private_key, "private_key"))
    except (InvalidTag, ValueError, BadRequest, msgspec.MsgspecError):
        raise WrongCode from None


def _cipher(code: str) -> AESGCM:
    info = label("flask-e2emsg backup v1")
    return AESGCM(HKDF(SHA256(), 32, None, info).derive(parse_code(code)))


def _additional(user_id: str) -> bytes:
    return label("flask-e2emsg backup v1") + VERSION + length_prefixed(user_id)
