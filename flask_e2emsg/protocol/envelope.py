"""What can be seen of an envelope without a key: its frame, and whom it is for.

docs/crypto.md, section 2. Nothing here reads a message; a well-formed envelope may still be
unreadable.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from hashlib import sha256
from uuid import UUID

import msgspec

from ..errors import BadRequest

VERSION, SUITE = 1, 1
KID_LENGTH = 8
WRAP_LENGTH = 88  # kid, HPKE `enc`, sealed content key
HEADER_LENGTH = 2 + 16 + KID_LENGTH + 1
NONCE_LENGTH, TAG_LENGTH = 12, 16

_OPENING = bytes((VERSION, SUITE))
_KID_LABEL = b"flask-e2emsg kid v1\x00"


class Outline(msgspec.Struct, frozen=True, gc=False):
    """Whose key sealed an envelope, and whose keys open it, by their kids."""

    sender: bytes
    readers: AbstractSet[bytes]

    def __repr__(self) -> str:
        return "Outline(...)"


def kid_of(public_key: bytes) -> bytes:
    """The short name of a key, 8 bytes: a hint for finding it, proof of nothing."""
    return sha256(_KID_LABEL + public_key).digest()[:KID_LENGTH]


def outline(content: bytes, message_id: UUID) -> Outline:
    """The outline of an envelope that is for this message.

    Raises:
        BadRequest: the bytes are no envelope of a known suite, or one for another message.
    """
    if len(content) < HEADER_LENGTH or content[:2] != _OPENING:
        raise BadRequest("`encrypted_content` is no envelope of a suite that this server knows.")
    if content[2:18] != message_id.bytes:
        raise BadRequest("The envelope is for another message id.")
    count = content[HEADER_LENGTH - 1]
    end = HEADER_LENGTH + count * WRAP_LENGTH
    if not count or len(content) < end + NONCE_LENGTH + TAG_LENGTH:
        raise BadRequest("The envelope is cut short.")
    readers = {content[at : at + KID_LENGTH] for at in range(HEADER_LENGTH, end, WRAP_LENGTH)}
    if len(readers) != count:
        raise BadRequest("The envelope has two wraps for one key.")
    return Outline(content[18 : 18 + KID_LENGTH], readers)
