"""Strict JSON: what a frame or a body must be before anybody looks at its members.

Refused: text that is not UTF-8 JSON, `NaN`, lone surrogates, duplicate keys, NUL in a string,
nesting over 16, more than 4,096 arrays and objects, numbers out of range. msgspec refuses most of
it by itself; what it lets through is looked for only in texts that could hold it, so an ordinary
frame pays for a few counts. Nothing here loops in Python over what a client wrote: a text as long
as a frame may be would hold up everybody else on the same loop.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any

import msgspec

from ..errors import BadRequest

MAX_DEPTH = 16
MAX_CONTAINERS = 4096

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def loads(text: bytes) -> Any:
    """The value of a strict JSON text.

    Raises:
        BadRequest: the text is not strict JSON; the message says in what.
    """
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH:
        _refuse_too_much_nesting(text)
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        raise BadRequest("The text is not strict JSON.") from None
    if b"\\u0000" in text and _NUL.search(text):
        raise BadRequest("The JSON has NUL in a string.")
    if _has_duplicate_key(text, value):
        raise BadRequest("The JSON has a duplicate key.")
    return value


def _refuse_too_much_nesting(text: bytes) -> None:
    brackets = _STRING.sub(b"", text).translate(None, _NO_BRACKETS)
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise BadRequest(f"The JSON is nested deeper than {MAX_DEPTH}.")
    # Python's garbage collector walks over all that a process has when so many are made at once.
    if brackets.count(b"[") + brackets.count(b"{") > MAX_CONTAINERS:
        raise BadRequest(f"The JSON has more than {MAX_CONTAINERS} arrays and objects.")


def _has_duplicate_key(text: bytes, value: Any) -> bool:
    """Whether there are fewer keys than were written: of equal ones only the last is kept."""
    colons = text.count(b":")
    if not colons or (isinstance(value, dict) and len(value) == colons):
        return False
    return _keys_written(text) != _keys_written(msgspec.json.encode(value))


def _keys_written(text: bytes) -> int:
    return _STRING.sub(b"", text).count(b":")
