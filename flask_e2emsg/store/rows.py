"""How the entries of a mailbox stand in the tables, and how they come back out of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from ..protocol.entries import Entry, Message, MessageEntry, ReceiptEntry
from .accounts import Party
from .mailbox import Page
from .times import aware, aware_or_none


def page_from_rows(rows: Sequence[Sequence[Any]], owner: Party, seq: int, limit: int) -> Page:
    """The page after `seq` from the rows of an entries query.

    Columns: the mailbox's last_seq, and NULL or seq, place ('received', 'sent' or 'event'), id,
    other (user id), conversation_id, encrypted_content, created_at, expires_at, origin, and a
    receipt's kind and data.
    """
    if not rows:
        return Page([], seq)
    entries = [_entry(row, owner) for row in rows if row[1] is not None]
    return Page(entries, entries[-1].seq if len(entries) == limit else rows[0][0])


def _entry(row: Sequence[Any], owner: Party) -> Entry:
    _, seq, place, message_id, other, conversation_id, content, *times, origin, kind, data = row
    if place == "event":
        return receipt_from_json(seq, kind, data)
    created_at, expires_at = times
    is_received = place == "received"
    message = Message(
        message_id if isinstance(message_id, UUID) else UUID(message_id),
        other if is_received else owner.user_id,
        owner.user_id if is_received else other,
        conversation_id,
        bytes(content),
        aware(created_at),
        aware_or_none(expires_at),
    )
    return MessageEntry(seq, message, None if is_received else origin)


class _ReceiptData(msgspec.Struct):
    by: str
    ids: list[UUID]
    at: datetime


_receipt_encoder = msgspec.json.Encoder()
_receipt_decoder = msgspec.json.Decoder(_ReceiptData)


def receipt_to_json(by: str, ids: Sequence[UUID], at: datetime) -> str:
    """What the `data` of a receipt's event holds."""
    return _receipt_encoder.encode(_ReceiptData(by, list(ids), at)).decode()


def receipt_from_json(seq: int, kind: str, data: str) -> ReceiptEntry:
    """A receipt from its event."""
    fields = _receipt_decoder.decode(data)
    return ReceiptEntry(seq, kind, fields.by, fields.ids, fields.at)
