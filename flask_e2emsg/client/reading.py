"""Frames become messages: opened, checked, and never written down."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ..errors import BadRequest
from ..protocol.values import check_uuid, decode_binary
from . import events, plaintext
from .chain import Link
from .contacts import Contacts
from .envelope import Address, open_envelope, parse
from .errors import CannotOpen, Malformed, NotForMe, UnknownSenderKey
from .identity import Identity

Frame = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Opened:
    """What was in an envelope."""

    content: plaintext.Plaintext = field(repr=False)
    kid: bytes = field(repr=False)  # of the sender's key
    hash: bytes = field(repr=False)  # of the envelope

    @property
    def link(self) -> Link:
        """Its place in the chain."""
        return Link(self.content.n, self.hash)


class Reader:
    """Opens with my keys what was sealed under pinned ones."""

    def __init__(self, me: Identity, contacts: Contacts) -> None:
        self._me, self._contacts = me, contacts

    def open(self, frame: Frame) -> Opened:
        """The content of a frame's envelope.

        Raises:
            CannotOpen: in one of its kinds.
        """
        octets = octets_of(frame)
        address = Address(
            UUID(frame["id"]), frame["sender"], frame["recipient"], frame["conversation_id"]
        )
        envelope = parse(octets)
        senders = self._contacts.public_keys(frame["sender"])
        text = open_envelope(envelope, address, self._me.keys, senders)
        return Opened(plaintext.decode(text), envelope.sender_kid, plaintext.hash_of(octets))

    def read(self, frame: Frame) -> events.Message | events.Unreadable:
        """A frame, or a message of a page of history, as the application gets it."""
        try:
            return self.message(frame, self.open(frame))
        except CannotOpen as error:
            return self.unreadable(frame, error)

    def contact_of(self, frame: Frame) -> str:
        """The other one of the two."""
        mine = frame["sender"] == self._me.user_id
        return str(frame["recipient"] if mine else frame["sender"])

    def message(self, frame: Frame, opened: Opened) -> events.Message:
        """The message of a frame that was opened."""
        content = opened.content
        return events.Message(
            id=frame["id"],
            sender=frame["sender"],
            recipient=frame["recipient"],
            conversation_id=frame["conversation_id"],
            type=content.type,
            body=content.body,
            target=content.target,
            sent_at=_from_milliseconds(content.sent_at),
            created_at=time_of(frame["created_at"]),
            mine=frame["sender"] == self._me.user_id,
            position=frame.get("position", frame.get("seq")),
            delivered_at=_time_or_none(frame.get("delivered_at")),
            read_at=_time_or_none(frame.get("read_at")),
        )

    def unreadable(self, frame: Frame, error: CannotOpen) -> events.Unreadable:
        """What is told of a frame that does not open."""
        position = frame.get("position", frame.get("seq"))
        held = isinstance(error, NotForMe | UnknownSenderKey)
        return events.Unreadable(frame["id"], self.contact_of(frame), error.reason, held, position)


def octets_of(frame: Frame) -> bytes:
    """The bytes of a frame's envelope.

    Raises:
        Malformed: it is no base64url, or the frame has no proper id.
    """
    try:
        check_uuid(frame["id"])
        return decode_binary(frame["encrypted_content"], "encrypted_content")
    except BadRequest:
        raise Malformed("The frame has no envelope.") from None


def kid_in(frame: Frame) -> bytes | None:
    """The kid of the sender that an envelope names; None when it is none of ours."""
    try:
        return parse(octets_of(frame)).sender_kid
    except CannotOpen:
        return None


def time_of(text: str) -> datetime:
    """A time of the wire."""
    return datetime.fromisoformat(text)


def _time_or_none(text: str | None) -> datetime | None:
    return None if text is None else time_of(text)


def _from_milliseconds(milliseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)  # a sender may write any number
