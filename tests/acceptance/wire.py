"""The wire contract as data: what every frame of the server must look like, to the member.

Written from docs/protocol.md alone. It is strict where a tolerant client would shrug: one member
more or less, a padded base64url text, a time without milliseconds, a key given twice, all fail.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

Frame = dict[str, Any]
Check = Callable[[Any], bool]

UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME_TEXT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
EPOCH_TEXT = re.compile(r"[0-9a-f]{16}")
BASE64URL_TEXT = re.compile(r"[A-Za-z0-9_-]*")

ERROR_CODES = frozenset(
    {
        "bad_request",
        "unauthorized",
        "forbidden",
        "not_found",
        "unknown_recipient",
        "id_conflict",
        "too_large",
        "rate_limited",
        "quota_exceeded",
        "stale_key",
        "unavailable",
        "internal",
        "draining",
        "overloaded",
        "origin_denied",
        "upgrade_required",
        "too_many_connections",
    }
)
CODES_WITH_RETRY = frozenset({"rate_limited", "unavailable", "draining", "overloaded"})
CODES_THAT_MAY_RETRY = CODES_WITH_RETRY | {"too_many_connections", "quota_exceeded"}


def new_id() -> str:
    """A fresh UUIDv7: its first 48 bits are the time in milliseconds, so ids sort by time."""
    milliseconds = time.time_ns() // 1_000_000
    high = milliseconds << 80 | 7 << 76 | secrets.randbits(12) << 64
    return str(uuid.UUID(int=high | 0b10 << 62 | secrets.randbits(62)))


def new_content(size: int = 48) -> str:
    """Random opaque bytes as `encrypted_content`."""
    return to_base64url(secrets.token_bytes(size))


def to_base64url(octets: bytes) -> str:
    """The bytes as base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def to_time(text: str) -> datetime:
    """A time of the wire, aware and in UTC."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_user_id(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 255


def is_uuid(value: Any) -> bool:
    return isinstance(value, str) and UUID_TEXT.fullmatch(value) is not None


def is_time(value: Any) -> bool:
    return isinstance(value, str) and TIME_TEXT.fullmatch(value) is not None


def is_epoch(value: Any) -> bool:
    return isinstance(value, str) and EPOCH_TEXT.fullmatch(value) is not None


def is_base64url(value: Any) -> bool:
    if not isinstance(value, str) or not BASE64URL_TEXT.fullmatch(value) or len(value) % 4 == 1:
        return False
    return to_base64url(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))) == value


def is_ref(value: Any) -> bool:
    """What a client gave as `ref`: the protocol leaves open whether that is a text or a number."""
    return isinstance(value, str) or type(value) is int


def is_position(value: Any) -> bool:
    return type(value) is int and value >= 1


def is_head(value: Any) -> bool:
    return type(value) is int and value >= 0


def is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def is_positive(value: Any) -> bool:
    return type(value) in (int, float) and value > 0


def is_anything(_value: Any) -> bool:
    return True


def is_ids(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(is_uuid, value))


def is_code(value: Any) -> bool:
    return value in ERROR_CODES


def is_kind(value: Any) -> bool:
    return value in ("delivered", "read")


def optional(check: Check) -> Check:
    """The member is always there; `null` stands for none."""
    return lambda value: value is None or check(value)


MESSAGE: dict[str, Check] = {
    "seq": is_position,
    "id": is_uuid,
    "sender": is_user_id,
    "recipient": is_user_id,
    "conversation_id": optional(is_text),
    "encrypted_content": is_base64url,
    "created_at": is_time,
    "expires_at": optional(is_time),
}

SERVER_FRAMES: dict[str, dict[str, Check]] = {
    "hello": {
        "user_id": is_user_id,
        "connection_id": is_uuid,
        "epoch": is_epoch,
        "head": is_head,
        "after": is_head,
        "reset": is_flag,
        "expires_at": is_time,
        "heartbeat": is_positive,
        "max_in_flight": is_position,
        "max_frame_bytes": is_position,
    },
    "message": MESSAGE,
    "receipt": {
        "seq": is_position,
        "kind": is_kind,
        "by": is_user_id,
        "ids": is_ids,
        "at": is_time,
    },
    "caught_up": {"head": is_head},
    "accepted": {
        "id": is_uuid,
        "seq": optional(is_position),
        "created_at": is_time,
        "duplicate": is_flag,
    },
    "typing": {"sender": is_user_id, "conversation_id": optional(is_text), "active": is_flag},
    "event": {"name": is_text, "data": is_anything},
    "expiring": {"expires_at": is_time},
    "refreshed": {"expires_at": is_time},
    "pong": {"ref": optional(is_ref)},
    "error": {
        "ref": optional(is_ref),
        "code": is_code,
        "message": is_text,
        "retry_after": optional(is_positive),
    },
}

ACCEPTED_MANY: dict[str, Check] = {
    "ref": is_ref,
    "ids": is_ids,
    "created_at": is_time,
    "duplicate": is_flag,
}

HISTORY_MESSAGE: dict[str, Check] = {
    **MESSAGE,
    "position": is_position,
    "delivered_at": optional(is_time),
    "read_at": optional(is_time),
}


KEY: dict[str, Check] = {
    "user_id": is_user_id,
    "public_key": optional(is_base64url),
    "key_version": optional(is_position),
    "updated_at": optional(is_time),
}


def is_key(value: Any) -> bool:
    """The directory's entry in a `stale_key`, with nulls where there is none."""
    return isinstance(value, dict) and all(
        name in value and check(value[name]) for name, check in KEY.items()
    )


def parse_server_frame(text: str) -> Frame:
    """The frame, when the text is strict JSON with exactly the members of its type."""
    frame = parse_json(text)
    assert isinstance(frame, dict), f"a frame is one JSON object: {text}"
    return check_frame(frame)


def check_frame(frame: Frame) -> Frame:
    """The same frame, when it has exactly the members of its type and each is well formed."""
    kind = frame.get("type")
    assert kind in SERVER_FRAMES, f"unknown type of frame: {frame}"
    members = dict(SERVER_FRAMES[kind])
    if kind == "accepted" and "ref" in frame:
        members = ACCEPTED_MANY
    if kind == "error" and "id" in frame:
        members["id"] = is_uuid  # how the error of a `send_many` names the offending message
    if kind == "error" and frame.get("code") == "stale_key":
        members["key"] = is_key
    check_members({name: frame[name] for name in frame if name != "type"}, members, str(kind))
    if kind == "accepted" and "seq" in frame:
        # Only a message that `send_many` has stored has no `sent` entry to name.
        assert frame["seq"] is not None or frame["duplicate"], f"accepted nowhere: {frame}"
    if kind == "error":
        needs_retry = frame["code"] in CODES_WITH_RETRY
        assert not needs_retry or frame["retry_after"] is not None, f"no retry_after: {frame}"
    return frame


def check_members(found: Mapping[str, Any], members: Mapping[str, Check], where: str) -> None:
    """Fail unless exactly these members are there and each passes its check."""
    missing, additional = members.keys() - found.keys(), found.keys() - members.keys()
    assert not missing, f"{where} lacks {sorted(missing)}: {found}"
    assert not additional, f"{where} has the additional {sorted(additional)}: {found}"
    wrong = {name: found[name] for name, check in members.items() if not check(found[name])}
    assert not wrong, f"{where} has malformed members {wrong}: {found}"


def check_error_body(body: Any) -> None:
    """Fail unless it is `{"error": {"code", "message"}}`, with `retry_after` where it belongs."""
    assert isinstance(body, dict), f"not an error body: {body!r}"
    assert body.keys() == {"error"}, f"not an error body: {body!r}"
    error = dict(body["error"])
    members: dict[str, Check] = {"code": is_code, "message": is_text}
    may_retry = error.get("code") in CODES_THAT_MAY_RETRY and "retry_after" in error
    if may_retry or error.get("code") in CODES_WITH_RETRY:
        members["retry_after"] = is_positive
    if error.get("code") == "stale_key":
        members["key"] = is_key
    if "version" in error:
        members["version"] = is_head
    check_members(error, members, "error body")


def parse_json(text: str | bytes) -> Any:
    """Strict JSON: no key twice, no NaN, no infinity."""
    return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    assert len(members) == len(pairs), f"a key stands twice in {pairs}"
    return members


def _refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")
