"""The small values of the wire: ids, binary text, times, cursors. All checks are exact.

A value that passes here is safe for every database: no NUL, no lone surrogate, bounded length.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID

import msgspec

from ..errors import BadRequest

MAX_USER_ID_LENGTH = 255  # characters, also of a conversation id
MAX_SEQ = 2**63 - 1
LARGEST_EXPIRY_SECONDS = 10 * 365 * 86400

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_CURSOR = re.compile(r"([0-9a-f]{16}):(0|[1-9][0-9]{0,18})")
# What is no letter of base64url, but would become one, becomes `!`, which is none of base64.
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_BASE64URL = bytes.maketrans(b"+/", b"-_")
_BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# What a text may end with, by its length modulo 4: with no unused bit set. One more is no text.
_LAST = (_BASE64URL, "", _BASE64URL[::16], _BASE64URL[::4])
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in one incarnation of a mailbox."""

    epoch: str  # 16 hex characters: the incarnation of the mailbox
    seq: int  # last position that the client has stored; 0 before the first entry

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read `epoch:seq`.

        Raises:
            BadRequest: it is not of that form.
        """
        match = _CURSOR.fullmatch(text)
        if match is None or int(match[2]) > MAX_SEQ:
            raise BadRequest("A cursor is 16 hex characters, a colon and a position.")
        return cls(match[1], int(match[2]))


def is_user_id(text: str) -> bool:
    """Whether this can be a user or conversation id: 1 to 255 storable characters."""
    return 0 < len(text) <= MAX_USER_ID_LENGTH and _FORBIDDEN.search(text) is None


def check_user_id(text: str, member: str) -> str:
    """The same text, or BadRequest that names the member."""
    if not is_user_id(text):
        raise BadRequest(f"`{member}` must have 1 to {MAX_USER_ID_LENGTH} characters.")
    return text


def check_uuid(text: str, member: str = "id") -> UUID:
    """A UUID from its canonical lower-case text, or BadRequest."""
    if _UUID.fullmatch(text) is None:
        raise BadRequest(f"`{member}` must be a UUID in canonical lower-case text.")
    return msgspec.convert(text, UUID)  # four times quicker than UUID(text)


def encode_binary(data: bytes) -> str:
    """base64url without padding (RFC 4648, section 5)."""
    return b2a_base64(data, newline=False).translate(_TO_BASE64URL, b"=").decode("ascii")


def decode_binary(text: str, member: str) -> bytes:
    """Bytes from base64url without padding, canonical only, or BadRequest.

    Canonical: the unused bits of the last character are zero, so a text has one meaning and
    bytes have one text.
    """
    if text.isascii():
        padding = b"=" * (-len(text) % 4)
        try:
            data = a2b_base64(text.encode().translate(_TO_BASE64) + padding, strict_mode=True)
        except Base64Error:
            data = b""
        if data and text[-1] in _LAST[len(text) % 4]:
            return data
    raise BadRequest(f"`{member}` must be base64url without padding, and not empty.")


def now() -> datetime:
    """The present in UTC, in whole milliseconds: what is stored is what was answered."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@lru_cache(maxsize=256)  # A batch of messages has one time.
def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds and `Z`."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
