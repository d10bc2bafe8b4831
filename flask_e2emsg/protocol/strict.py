"""Strict JSON: what a frame or a body must be before anybody looks at its members.

Refused: text that is not UTF-8 JSON, `NaN`, lone surrogates, duplicate keys, NUL in a string,
nesting over 16, numbers out of range. msgspec refuses most of it by itself; what it lets through is
looked for only in texts that could hold it, so an ordinary frame pays for a few counts. Nothing
here loops in Python over what a client wrote: a text as long as a frame may be would hold up
everybody else on the same loop.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any

import msgspec

from ..errors import BadRequest

MAX_DEPTH = 16

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def loads(text: bytes) -> Any:
    """The value of a strict JSON text.

    Raises:
        BadRequest: the text is not strict JSON; the message says in what.
    """
    nested = text.count(b"{") + text.count(b"[")
    if nested > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise BadRequest(f"The JSON is nested deeper than {MAX_DEPTH}.")
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        raise BadRequest("The text is not strict JSON.") from None
    if b"\\u0000" in text and _NUL.search(text):
        raise BadRequest("The JSON has NUL in a string.")
    if _has_duplicate_key(text, value):
        raise BadRequest("The JSON has a duplicate key.")
    return value


def _depth(text: bytes) -> int:
    brackets = _STRING.sub(b"", text).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _has_duplicate_key(text: bytes, value: Any) -> bool:
    """Whether there are fewer keys than were written: of equal ones only the last is kept."""
    colons = text.count(b":")
    if not colons or (isinstance(value, dict) and len(value) == colons):
        return False
    return _keys_written(text) != _keys_written(msgspec.json.encode(value))


def _keys_written(text: bytes) -> int:
    return _STRING.sub(b"", text).count(b":")
