"""The entries of a mailbox, and the frame that each becomes on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from .values import encode_binary, format_time

_encoder = msgspec.json.Encoder()


class Message(msgspec.Struct, frozen=True, gc=False):
    """A stored message, as both of its entries show it. Its `repr` hides the content."""

    id: UUID
    sender: str
    recipient: str
    conversation_id: str | None
    content: bytes
    created_at: datetime
    expires_at: datetime | None
    content_text: str | None = None  # base64url of the content, where it is at hand

    def __repr__(self) -> str:
        return f"Message(id={self.id}, {len(self.content)} bytes)"


class MessageEntry(msgspec.Struct, frozen=True, gc=False):
    """`message` (to the mailbox's owner) or `sent` (by the owner, from any connection)."""

    seq: int
    message: Message
    origin: int | None  # the connection that sent it, in `sent` entries only

    @property
    def size(self) -> int:
        """About how many bytes of memory it keeps."""
        return 512 + 2 * len(self.message.content)

    def frame(self) -> bytes:
        """The frame's text."""
        message = self.message
        return _encoder.encode(
            _MessageFrame(
                self.seq,
                message.id,
                message.sender,
                message.recipient,
                message.conversation_id,
                message.content_text or encode_binary(message.content),
                format_time(message.created_at),
                None if message.expires_at is None else format_time(message.expires_at),
            )
        )


class ReceiptEntry(msgspec.Struct, frozen=True, gc=False):
    """Some of the owner's messages were delivered or read."""

    seq: int
    kind: str  # "delivered" or "read"
    by: str  # the recipient of those messages
    ids: Sequence[UUID]
    at: datetime
    origin: None = None

    @property
    def size(self) -> int:
        """About how many bytes of memory it keeps."""
        return 512 + 64 * len(self.ids)

    def frame(self) -> bytes:
        """The frame's text."""
        return _encoder.encode(
            _ReceiptFrame(self.seq, self.kind, self.by, self.ids, format_time(self.at))
        )


Entry = MessageEntry | ReceiptEntry


class _MessageFrame(msgspec.Struct, tag="message"):
    seq: int
    id: UUID
    sender: str
    recipient: str
    conversation_id: str | None
    encrypted_content: str
    created_at: str
    expires_at: str | None

    def __repr__(self) -> str:
        return f"_MessageFrame(seq={self.seq}, id={self.id})"


class _ReceiptFrame(msgspec.Struct, tag="receipt"):
    seq: int
    kind: str
    by: str
    ids: Sequence[UUID]
    at: str
