"""How the entries of a mailbox stand in the tables, and how they come back out of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from ..protocol.entries import Entry, Message, MessageEntry, ReceiptEntry
from .accounts import Party
from .times import aware, aware_or_none


def entry_from_row(row: Any, owner: Party) -> Entry:
    """The entry in one row of an entries query.

    Columns: seq, place ('received', 'sent' or a receipt's kind), id, other (user id), and the
    message's or the receipt's own columns.
    """
    if row.place == "event":
        return receipt_from_json(row.seq, row.kind, row.data)
    sender, recipient = owner.user_id, row.other
    if row.place == "received":
        sender, recipient = recipient, sender
    message = Message(
        row.id if isinstance(row.id, UUID) else UUID(row.id),
        sender,
        recipient,
        row.conversation_id,
        bytes(row.encrypted_content),
        aware(row.created_at),
        aware_or_none(row.expires_at),
    )
    return MessageEntry(row.seq, message, row.origin if row.place == "sent" else None)


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
