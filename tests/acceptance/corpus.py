"""Frames that no honest client sends, by what is wrong with them (docs/protocol.md 3)."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.wire import Frame

AN_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def nested(levels: int) -> str:
    """A ping whose text nests so many levels, the frame's own object counted."""
    return '{"type":"ping","x":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


NOT_STRICT_JSON = {
    "empty text": "",
    "only space": "  ",
    "no JSON": "hello",
    "cut off": '{"type":"ping"',
    "text behind": '{"type":"ping"}x',
    "two objects": '{"type":"ping"}{"type":"ping"}',
    "trailing comma": '{"type":"ping",}',
    "single quotes": "{'type':'ping'}",
    "a comment": '{"type":"ping"/* */}',
    "byte order mark": '\ufeff{"type":"ping"}',
    "NaN": '{"type":"ping","x":NaN}',
    "Infinity": '{"type":"ping","x":Infinity}',
    "minus Infinity": '{"type":"ping","x":-Infinity}',
    "leading zero": '{"type":"ping","x":01}',
    "plus sign": '{"type":"ping","x":+1}',
    "hexadecimal": '{"type":"ping","x":0x10}',
    "bare point": '{"type":"ping","x":1.}',
    "raw control character": '{"type":"ping","ref":"a\nb"}',
    "raw NUL": '{"type":"ping","ref":"a\x00b"}',
    "unknown escape": '{"type":"ping","ref":"\\x41"}',
    "cut escape": '{"type":"ping","ref":"\\u12"}',
    "duplicate type": '{"type":"ping","type":"ping"}',
    "duplicate key": '{"type":"ping","ref":"a","ref":"b"}',
    "duplicate key by escape": '{"type":"ping","\\u0074ype":"ping"}',
    "duplicate key within an ignored member": '{"type":"ping","x":{"a":1,"a":2}}',
    "duplicate key deep within": '{"type":"ping","x":[[{"a":[{"b":1,"b":1}]}]]}',
    "NUL": '{"type":"ping","ref":"a\\u0000b"}',
    "NUL in an ignored member": '{"type":"ping","x":["\\u0000"]}',
    "NUL in a key": '{"type":"ping","a\\u0000":1}',
    "lone high surrogate": '{"type":"ping","ref":"\\ud800"}',
    "lone low surrogate": '{"type":"ping","ref":"\\udc00"}',
    "surrogates in the wrong order": '{"type":"ping","ref":"\\udc00\\ud800"}',
    "lone surrogate in an ignored member": '{"type":"ping","x":{"y":"\\udfff!"}}',
    "lone surrogate in a key": '{"type":"ping","\\ud800":1}',
    "17 levels": nested(17),
    "1,000 levels": nested(1_000),
    "50,000 levels": nested(50_000),
    "50,000 open brackets": "[" * 50_000,
    "17 levels of objects": '{"type":"ping","x":' + '{"x":' * 16 + "1" + "}" * 17,
}

NOT_A_FRAME: dict[str, Any] = {
    "an array": [],
    "an array of a frame": [{"type": "ping"}],
    "a number": 1,
    "a text": "ping",
    "true": True,
    "null": None,
    "no type": {},
    "type null": {"type": None},
    "type a number": {"type": 1},
    "type a list": {"type": ["ping"]},
    "type an object": {"type": {"ping": 1}},
    "empty type": {"type": ""},
    "unknown type": {"type": "teleport"},
    "type of the wrong case": {"type": "Ping"},
    "a type of the server": {"type": "hello"},
    "another type of the server": {"type": "accepted", "id": AN_ID, "seq": 1},
}


NO_UUIDS: list[Any] = [None, 1, True, [], {}, "", "1"]
NO_TEXTS: list[Any] = [1, True, [], {}, ["AAAA"], 1e300]
NO_REFS: list[Any] = [True, [], {}, ["r"], 1e300]
NO_POSITIONS: list[Any] = [None, -1, 1.5, True, False, "1", [], {}, [1], -(2**63)]
NO_SECONDS: list[Any] = [0, -1, "1", [], {}, True]
NO_FLAGS: list[Any] = [None, 1, "yes", []]
NO_IDS: list[Any] = [None, 1, AN_ID, {}, [], [1], [None], ["x"], [[AN_ID]], [AN_ID.upper()]]
NO_MESSAGES: list[Any] = [None, 1, "x", {}, [], [1], [None], [[]], [{}], [{"id": AN_ID}]]


def a_send(**members: Any) -> Frame:
    return {"type": "send", "id": AN_ID, "to": "to", "encrypted_content": "AAAA", **members}


def a_send_without(name: str) -> Frame:
    return {key: value for key, value in a_send().items() if key != name}


def each(name: str, values: list[Any], frame: Frame) -> dict[str, Frame]:
    """The frame with each of these values for one member."""
    return {f"{frame['type']} {name} {v!r}"[:40]: {**frame, name: v} for v in values}


INVALID_SENDS: dict[str, Frame] = {
    **{f"send without {name}": a_send_without(name) for name in ("id", "to", "encrypted_content")},
    **each("id", NO_UUIDS, a_send()),
    **each("to", [None, *NO_TEXTS], a_send()),
    **each("encrypted_content", [None, *NO_TEXTS], a_send()),
    **each("conversation_id", NO_TEXTS, a_send()),
    **each("expires_in", NO_SECONDS, a_send()),
    "id in upper case": a_send(id=AN_ID.upper()),
    "id without hyphens": a_send(id=AN_ID.replace("-", "")),
    "id in braces": a_send(id="{" + AN_ID + "}"),
    "id as urn": a_send(id="urn:uuid:" + AN_ID),
    "id with a line break": a_send(id=AN_ID + "\n"),
    "id with a letter too many": a_send(id=AN_ID + "0"),
    "id with no hexadecimal digit": a_send(id=AN_ID[:-1] + "g"),
    "id with an Arabic digit": a_send(id=AN_ID[:-1] + "\u0661"),
    "to nobody": a_send(to=""),
    "to 256 characters": a_send(to="x" * 256),
    "to 256 emoji": a_send(to="😀" * 256),
    "content with padding": a_send(encrypted_content="AAA="),
    "content with double padding": a_send(encrypted_content="AA=="),
    "content in the other alphabet": a_send(encrypted_content="+/+/"),
    "content of impossible length": a_send(encrypted_content="AAAAA"),
    "content with space": a_send(encrypted_content="AA AA"),
    "content with a line break": a_send(encrypted_content="AAAA\n"),
    "content beyond ASCII": a_send(encrypted_content="ÄÄÄÄ"),
    "content with an emoji": a_send(encrypted_content="AAA😀"),
    "expires_in far beyond the calendar": a_send(expires_in=10**18),
}

INVALID_OTHERS: dict[str, Any] = {
    "ack without seq": {"type": "ack"},
    **each("seq", NO_POSITIONS, {"type": "ack"}),
    "ack of 2^63": {"type": "ack", "seq": 2**63},
    "ack of 2^64": {"type": "ack", "seq": 2**64},
    "ack of 1e400": '{"type":"ack","seq":1e400}',
    "ack of 4,000 digits": '{"type":"ack","seq":%s}' % ("9" * 4_000),
    "ack of 100,000 digits": '{"type":"ack","seq":%s}' % ("9" * 100_000),
    "read without ids": {"type": "read"},
    **each("ids", NO_IDS, {"type": "read"}),
    "typing without to": {"type": "typing", "active": True},
    "typing without active": {"type": "typing", "to": "to"},
    **each("active", NO_FLAGS, {"type": "typing", "to": "to"}),
    **each("to", [None, "", *NO_TEXTS], {"type": "typing", "active": True}),
    **each("conversation_id", NO_TEXTS, {"type": "typing", "to": "to", "active": True}),
    "refresh without token": {"type": "refresh"},
    **each("token", [None, *NO_TEXTS], {"type": "refresh"}),
    **each("ref", NO_REFS, {"type": "ping"}),
    "send_many without ref": {"type": "send_many", "messages": [a_send()]},
    "send_many without messages": {"type": "send_many", "ref": "r"},
    **each("messages", NO_MESSAGES, {"type": "send_many", "ref": "r"}),
    **each("ref", [None, *NO_REFS], {"type": "send_many", "messages": [a_send()]}),
}


def as_text(frame: Any) -> str:
    return frame if isinstance(frame, str) else json.dumps(frame, ensure_ascii=False)


CORPUS = {
    **NOT_STRICT_JSON,
    **{name: as_text(frame) for name, frame in (NOT_A_FRAME | INVALID_OTHERS).items()},
}
