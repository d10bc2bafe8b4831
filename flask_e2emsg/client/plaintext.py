"""What an envelope has inside: a JSON object, padded to a bucket (docs/crypto.md, 3).

No `repr` here shows what people write.
"""

from __future__ import annotations

import hashlib

import msgspec

from ..errors import BadRequest
from ..protocol.values import check_uuid, decode_binary, encode_binary
from .errors import Incomplete, Malformed, NoText, TooLong

BUCKETS = tuple(256 << doubling for doubling in range(9))  # 256 to 65,536 bytes
HASH_LENGTH = 32
WITH_BODY = ("text", "reply", "edit", "reaction")
WITH_TARGET = ("reply", "edit", "delete", "reaction")


class Plaintext(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message as its sender wrote it."""

    type: str
    sent_at: int  # milliseconds since 1970, by the sender's clock
    n: int  # the how-manieth envelope of this sender key to this recipient, from 1
    prev: str | None  # base64url of the SHA-256 of the envelope before that one
    body: str | None = None
    target: str | None = None  # the id of the message that this one is about

    @property
    def prev_hash(self) -> bytes | None:
        """`prev` as bytes."""
        return None if self.prev is None else decode_binary(self.prev, "prev")

    def __repr__(self) -> str:
        return f"Plaintext({self.type!r}, n={self.n})"


_decoder = msgspec.json.Decoder(Plaintext)
_encoder = msgspec.json.Encoder()


def encode(plaintext: Plaintext) -> bytes:
    """The JSON, not yet padded.

    Raises:
        Incomplete: a recipient would refuse it.
        NoText: the body has no UTF-8.
    """
    try:
        encoded = _encoder.encode(plaintext)
        _check(plaintext)
    except UnicodeError:
        raise NoText from None
    except (ValueError, BadRequest):
        raise Incomplete(plaintext.type) from None
    return encoded


def decode(text: bytes) -> Plaintext:
    """The checked object in a JSON text.

    Raises:
        Malformed: a member is missing or of the wrong type.
    """
    try:
        plaintext = _decoder.decode(text)
        _check(plaintext)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, BadRequest):
        # What the library says may quote what it has read.
        raise Malformed("The plaintext is not one that a client writes.") from None
    return plaintext


def _check(plaintext: Plaintext) -> None:
    if plaintext.n < 1 or plaintext.sent_at < 0:
        raise ValueError
    if (hashed := plaintext.prev_hash) is not None and len(hashed) != HASH_LENGTH:
        raise ValueError
    if plaintext.type in WITH_BODY and plaintext.body is None:
        raise ValueError
    if plaintext.type in WITH_TARGET and plaintext.target is None:
        raise ValueError
    if plaintext.target is not None:
        check_uuid(plaintext.target, "target")


def hash_of(envelope: bytes) -> bytes:
    """What the next envelope of the chain names as `prev`, as bytes."""
    return hashlib.sha256(envelope).digest()


def hash_text(hashed: bytes | None) -> str | None:
    """A hash as it stands in the JSON."""
    return None if hashed is None else encode_binary(hashed)


def pad(text: bytes) -> bytes:
    """The text, one byte 80, and zeros up to the smallest bucket that takes both.

    Raises:
        TooLong: no bucket does.
    """
    for bucket in BUCKETS:
        if len(text) < bucket:
            return (text + b"\x80").ljust(bucket, b"\0")
    raise TooLong(len(text), BUCKETS[-1] - 1)


def unpad(padded: bytes) -> bytes:
    """The text before the last byte 80.

    Raises:
        Malformed: the length is no bucket, or the end is not one byte 80 and zeros.
    """
    text = padded.rstrip(b"\0")
    if len(padded) not in BUCKETS or text[-1:] != b"\x80":
        raise Malformed("The padding is not that of docs/crypto.md.")
    return text[:-1]
