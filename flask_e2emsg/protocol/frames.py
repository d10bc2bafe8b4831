"""The frames of the socket: text from a client becomes a checked struct, answers become text.

`decode` gives a struct whose every member is of the right type, size and alphabet, or raises the
refusal that the client gets. The encoders give the bytes of one frame. No frame's `repr` shows
content, keys or tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

import msgspec

from ..errors import BadRequest, Refusal
from . import strict
from .values import (
    LARGEST_EXPIRY_SECONDS,
    MAX_SEQ,
    check_user_id,
    check_uuid,
    decode_binary,
    format_time,
)

MAX_MESSAGES_IN_ONE_FRAME = 256
MAX_READ_IDS = 500
MAX_REF_LENGTH = 255
_BAD_EXPIRY = f"`expires_in` must be 1 to {LARGEST_EXPIRY_SECONDS} seconds."

Ref = str | int


class Outgoing(msgspec.Struct, frozen=True, gc=False, repr_omit_defaults=True):
    """One message as its sender hands it over."""

    id: UUID
    recipient: str
    content: bytes  # the ciphertext
    content_text: str  # the same as base64url, kept so that delivery need not encode it again
    conversation_id: str | None = None
    expires_in: int | None = None  # seconds

    def __repr__(self) -> str:
        return f"Outgoing(id={self.id}, {len(self.content)} bytes)"


class Send(msgspec.Struct, frozen=True, gc=False):
    """Store one message."""

    message: Outgoing


class SendMany(msgspec.Struct, frozen=True):
    """Store several messages in one transaction, all or none."""

    ref: Ref
    messages: list[Outgoing]


class Ack(msgspec.Struct, frozen=True, gc=False):
    """Every entry up to `seq` is stored by the client."""

    seq: int


class Read(msgspec.Struct, frozen=True):
    """These messages to me were read."""

    ids: list[UUID]


class Typing(msgspec.Struct, frozen=True):
    """Forwarded to live connections, stored nowhere."""

    to: str
    conversation_id: str | None
    active: bool


class Refresh(msgspec.Struct, frozen=True):
    """A fresh access token for this connection."""

    token: str

    def __repr__(self) -> str:
        return "Refresh(...)"


class Ping(msgspec.Struct, frozen=True):
    """The application's heartbeat."""

    ref: Ref | None


ClientFrame = Send | SendMany | Ack | Read | Typing | Refresh | Ping


class _Unshown(msgspec.Struct):
    """What holds a client's text shows nothing of it."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class _SendIn(_Unshown, tag="send"):
    id: str
    to: str
    encrypted_content: str
    conversation_id: str | None = None
    expires_in: int | None = None


class _ItemIn(_Unshown):
    id: str
    to: str
    encrypted_content: str


class _SendManyIn(msgspec.Struct, tag="send_many"):
    ref: Ref
    messages: list[_ItemIn]
    conversation_id: str | None = None


class _AckIn(msgspec.Struct, tag="ack"):
    seq: int


class _ReadIn(msgspec.Struct, tag="read"):
    ids: list[str]


class _TypingIn(msgspec.Struct, tag="typing"):
    to: str
    active: bool
    conversation_id: str | None = None


class _RefreshIn(_Unshown, tag="refresh"):
    token: str


class _PingIn(msgspec.Struct, tag="ping"):
    ref: Ref | None = None


_FrameIn = _SendIn | _SendManyIn | _AckIn | _ReadIn | _TypingIn | _RefreshIn | _PingIn

_decoder = msgspec.json.Decoder(_FrameIn)
_REQUIRED = {
    kind: 1 + sum(field.required for field in msgspec.structs.fields(kind))
    for kind in get_args(_FrameIn)
}

CLIENT_TYPES = frozenset(str(kind.__struct_config__.tag) for kind in get_args(_FrameIn))


def decode(text: bytes) -> ClientFrame:
    """The checked frame in a text.

    Raises:
        BadRequest: the text is not a frame; `ref` is the frame's own `id` or `ref` if readable.
    """
    plain = _plain(text)
    value = strict.loads(text) if plain is None else None
    try:
        return _checked(msgspec.convert(value, _FrameIn) if plain is None else plain)
    except msgspec.ValidationError as error:
        raise BadRequest(_describe(value, error), ref=_ref_of(value)) from None
    except BadRequest as error:
        if error.ref is None:
            error.ref = _ref_of(strict.loads(text))
        raise


def _plain(text: bytes) -> _FrameIn | None:
    """The frame in a text that has each required member once and no other; else None.

    With as many colons as that, it cannot hold what strict JSON forbids and msgspec lets through.
    """
    try:
        frame = _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        return None
    is_plain = text.count(b":") == _REQUIRED[type(frame)] and b"\\" not in text
    return frame if is_plain else None


def decode_send(text: bytes) -> Outgoing:
    """A message from a REST body: the members of a `send` frame, `type` not needed.

    Raises:
        BadRequest: the body is not one.
    """
    value = strict.loads(text)
    if not isinstance(value, dict) or value.get("type", "send") != "send":
        raise BadRequest("The body must be an object with the members of a `send` frame.")
    try:
        return _message(msgspec.convert({**value, "type": "send"}, _SendIn))
    except msgspec.ValidationError as error:
        raise BadRequest(_describe({"type": "send"}, error)) from None


def _checked(frame: _FrameIn) -> ClientFrame:
    match frame:
        case _SendIn():
            return Send(_message(frame))
        case _AckIn():
            _require(0 <= frame.seq <= MAX_SEQ, "`seq` must be a position.")
            return Ack(frame.seq)
        case _ReadIn(ids=ids):
            _require(1 <= len(ids) <= MAX_READ_IDS, f"`ids` must hold 1 to {MAX_READ_IDS} ids.")
            return Read([check_uuid(text, "ids") for text in ids])
        case _SendManyIn():
            return _checked_many(frame)
        case _TypingIn():
            return Typing(check_user_id(frame.to, "to"), _conversation(frame), frame.active)
        case _RefreshIn():
            return Refresh(frame.token)
        case _PingIn(ref=ref):
            return Ping(None if ref is None else _checked_ref(ref))


def _message(frame: _SendIn) -> Outgoing:
    seconds = frame.expires_in
    _require(seconds is None or 1 <= seconds <= LARGEST_EXPIRY_SECONDS, _BAD_EXPIRY)
    return Outgoing(
        check_uuid(frame.id),
        check_user_id(frame.to, "to"),
        decode_binary(frame.encrypted_content, "encrypted_content"),
        frame.encrypted_content,
        _conversation(frame),
        seconds,
    )


def _checked_many(frame: _SendManyIn) -> SendMany:
    ref = _checked_ref(frame.ref)
    count = len(frame.messages)
    _require(
        1 <= count <= MAX_MESSAGES_IN_ONE_FRAME,
        f"`messages` must hold 1 to {MAX_MESSAGES_IN_ONE_FRAME} messages.",
    )
    conversation_id = _conversation(frame)
    messages = []
    for item in frame.messages:
        try:
            content = decode_binary(item.encrypted_content, "encrypted_content")
            message_id, to = check_uuid(item.id), check_user_id(item.to, "to")
        except BadRequest as error:
            raise BadRequest(error.message, ref=ref, message_id=item.id[:36]) from None
        messages.append(Outgoing(message_id, to, content, item.encrypted_content, conversation_id))
    _require(len({message.id for message in messages}) == count, "`messages` repeats an `id`.")
    return SendMany(ref, messages)


def _conversation(frame: _SendIn | _SendManyIn | _TypingIn) -> str | None:
    text = frame.conversation_id
    return None if text is None else check_user_id(text, "conversation_id")


def _checked_ref(ref: Ref) -> Ref:
    readable = len(ref) <= MAX_REF_LENGTH if isinstance(ref, str) else abs(ref) <= MAX_SEQ
    _require(readable, f"`ref` must have at most {MAX_REF_LENGTH} characters.")
    return ref


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise BadRequest(message)


def _ref_of(value: Any) -> Ref | None:
    if not isinstance(value, dict):
        return None
    for member in ("id", "ref"):
        ref = value.get(member)
        if isinstance(ref, str) and len(ref) <= MAX_REF_LENGTH:
            return ref
    number = value.get("ref")
    if isinstance(number, int) and not isinstance(number, bool) and abs(number) <= MAX_SEQ:
        return number
    return None


def _describe(value: Any, error: msgspec.ValidationError) -> str:
    if not isinstance(value, dict):
        return "A frame is one JSON object."
    kind = value.get("type")
    if not isinstance(kind, str):
        return "A frame has a `type`."
    if "$.type" in str(error):
        return "There is no such `type`."
    # msgspec names the member and the types, never the value.
    return f"This is no valid `{kind}`: {error}."


class _Accepted(msgspec.Struct, tag="accepted"):
    id: UUID
    seq: int | None
    created_at: str
    duplicate: bool


_encoder = msgspec.json.Encoder()


def encode(kind: str, **members: Any) -> bytes:
    """The bytes of one server frame."""
    return _encoder.encode({"type": kind, **members})


def encode_error(refusal: Refusal, ref: Ref | None = None) -> bytes:
    """The `error` frame of a refusal. `id` is there when one message of several is to blame."""
    culprit = {} if refusal.message_id is None else {"id": refusal.message_id}
    return encode(
        "error",
        ref=refusal.ref if ref is None else ref,
        code=refusal.code,
        message=refusal.message,
        retry_after=refusal.retry_after,
        **culprit,
        **refusal.members,
    )


def encode_accepted(message_id: UUID, seq: int | None, created_at: datetime, new: bool) -> bytes:
    """The answer to `send`."""
    return _encoder.encode(_Accepted(message_id, seq, format_time(created_at), not new))


def encode_accepted_many(ref: Ref, ids: Sequence[UUID], created_at: datetime, new: bool) -> bytes:
    """The answer to `send_many`."""
    return encode(
        "accepted",
        ref=ref,
        ids=[str(message_id) for message_id in ids],
        created_at=format_time(created_at),
        duplicate=not new,
    )


def encode_value(value: object) -> bytes:
    """Any plain value as JSON."""
    return _encoder.encode(value)
