"""Strict JSON: what a frame or a body must be before anybody looks at its members.

Refused: text that is not UTF-8 JSON, `NaN`, lone surrogates, duplicate keys, NUL in a string,
nesting over 16, numbers out of range. msgspec refuses most of it by itself; what it lets through is
looked for only in texts that could hold it, so an ordinary frame pays for two counts.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from ..errors import BadRequest

MAX_DEPTH = 16

_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


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
    # Every colon stands behind a quotation mark or inside a string. When all do the former, their
    # number is the number of keys as written, and a missing one was a duplicate.
    colons = text.count(b":")
    if b"\\" in text or colons != text.count(b'":') or colons != _count_keys(value):
        _refuse_duplicates_and_nul(text)
    return value


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        kind = text[token.start()]
        if kind in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif kind in b"}]":
            depth -= 1
    return deepest


def _count_keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(
            _count_keys(inner) for inner in value.values() if isinstance(inner, dict | list)
        )
    if isinstance(value, list):
        return sum(_count_keys(inner) for inner in value if isinstance(inner, dict | list))
    return 0


def _refuse_duplicates_and_nul(text: bytes) -> None:
    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise BadRequest("The JSON has a duplicate key.")
        for item in pairs:
            _refuse_nul(item)
        return members

    try:
        _refuse_nul([json.loads(text, object_pairs_hook=check)])
    except (ValueError, RecursionError):
        raise BadRequest("The text is not strict JSON.") from None


def _refuse_nul(items: tuple[str, Any] | list[Any]) -> None:
    for item in items:
        if isinstance(item, str) and "\x00" in item:
            raise BadRequest("The JSON has NUL in a string.")
        if isinstance(item, list):
            _refuse_nul(item)
