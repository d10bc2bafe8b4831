"""Strict JSON: what json.loads reads and nobody could read in another way."""

from __future__ import annotations

import contextlib
import json
import math
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flask_e2emsg.errors import BadRequest
from flask_e2emsg.protocol.strict import MAX_CONTAINERS, MAX_DEPTH, loads

# Characters that mean something to a JSON reader are drawn more often than by chance.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(st.sampled_from('":,{}[]\\/ u0n\t\x7f') | characters, max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")])


def refused(text: bytes) -> str:
    with pytest.raises(BadRequest) as refusal:
        loads(text)
    return refusal.value.message


@settings(max_examples=400)
@given(values, separators, st.booleans())
@example({"a": ":", '"': {'":': '":'}}, (",", ":"), True)
def test_ordinary_json_is_read_as_json_loads_reads_it(
    value: Any, separators: tuple[str, str], ascii_only: bool
) -> None:
    text = json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode()
    read = loads(text)
    assert read == json.loads(text) == value
    assert type(read) is type(value)


@settings(max_examples=400)
@given(
    st.binary(max_size=30)
    | st.text(st.sampled_from('":,{}[]\\u01e.-ntf aN'), max_size=30).map(str.encode)
)
def test_any_bytes_are_refused_or_read_as_json_loads_reads_them(text: bytes) -> None:
    try:
        value = loads(text)
    except BadRequest:
        return
    assert value == json.loads(text)


@given(
    st.dictionaries(texts, scalars, min_size=1, max_size=4), separators, st.booleans(), st.data()
)
def test_a_key_may_stand_once(
    members: dict[str, Any], separators: tuple[str, str], ascii_only: bool, data: st.DataObject
) -> None:
    comma, colon = separators
    again = data.draw(st.sampled_from(sorted(members)))
    written = [
        json.dumps(key, ensure_ascii=ascii_only)
        + colon
        + json.dumps(value, ensure_ascii=ascii_only)
        for key, value in [*members.items(), (again, 0)]
    ]
    text = ("{" + comma.join(data.draw(st.permutations(written))) + "}").encode()
    assert "duplicate" in refused(text)
    assert "duplicate" in refused(b'{"outer":[1,' + text + b"]}")


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":1,"a":":"}',
        b'{"a":{"b":1,"b":2}}',
        b'[{"a":1},{"a":1,"a":2}]',
        b'{"a" :1,"a" :2}',
        b'{"":1,"":2}',
    ],
)
def test_two_spellings_of_a_key_are_one_key(text: bytes) -> None:
    assert "duplicate" in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        b'"\\u0000"',
        b'{"a":"x\\u0000y"}',
        b'{"\\u0000":1}',
        b'[[["\\u0000"]]]',
        b'{"a":[{"b":["\\u0000"]}]}',
        b'{"a":1,"b":["c",["\\u0000"]]}',
    ],
)
def test_nul_is_refused_wherever_it_stands(text: bytes) -> None:
    assert "NUL" in refused(text)


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert loads(rb'"\\u0000"') == r"\u0000"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_sixteen_levels_are_the_limit(opening: str) -> None:
    closing = {"[": "]", '{"a":': "}"}[opening]
    deepest = opening * MAX_DEPTH + "1" + closing * MAX_DEPTH
    assert loads(deepest.encode()) == json.loads(deepest)
    assert "deeper" in refused((opening + deepest + closing).encode())


@pytest.mark.parametrize("container", ["[]", '{"a":"["}'])
def test_so_many_arrays_and_objects_are_the_limit(container: str) -> None:
    most = "[" + ",".join([container] * (MAX_CONTAINERS - 1)) + "]"
    assert loads(most.encode()) == json.loads(most)
    assert "more than 4096" in refused(f"[{most}]".encode())


@given(st.integers(MAX_DEPTH + 1, 40), texts, st.data())
def test_depth_is_found_behind_any_string(depth: int, text: str, data: st.DataObject) -> None:
    string = json.dumps(text, ensure_ascii=data.draw(st.booleans()))
    opening = [data.draw(st.sampled_from([f"[{string},", '{"k":'])) for _ in range(depth)]
    closing = ["]" if part[0] == "[" else "}" for part in reversed(opening)]
    assert "deeper" in refused("".join([*opening, "1", *closing]).encode())


def test_brackets_in_strings_are_no_levels() -> None:
    text = json.dumps(["[" * 50, '\\"' + "{" * 50, {"[[[": "]]]"}] * 3)
    assert loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"NaN",
        b"[Infinity]",
        b'{"a":-Infinity}',
        b"1e400",
        b"[-1e400]",
        b"1" * 5000,
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'{"\\ud800":1}',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\0"',
        b'"\n"',
        b"'a'",
        b'"\\x41"',
        b"[1,]",
        b'{"a":1,}',
        b"{a:1}",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"[1 2]",
        b"1 1",
        b'"open',
        b"\xef\xbb\xbf1",
        '"a"'.encode("utf-16"),
        b"/*c*/1",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_what_is_not_strict_json_is_refused(text: bytes) -> None:
    assert refused(text) == "The text is not strict JSON."


def filled(unit: bytes, head: bytes = b'{"type":"ping","x":[', tail: bytes = b"0]}") -> bytes:
    """As much of a unit as a frame holds."""
    return head + unit * ((131_072 - len(head) - len(tail)) // len(unit)) + tail


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 131_072,
        b"[]" * 65_536,
        b'{"a":' * 26_000,
        b'"' * 131_072,
        b"\\" * 131_072,
        b":" * 131_072,
        b'["' + b'\\"' * 65_000,
        b"[" * 17 + b'"' + b'\\"' * 65_000,
        b"[" * 17 + b'"' * 131_000,
        b"[" * 17 + b'"' + b"\\\\" * 65_000,
        b'"\\u0041' + b":" * 130_000 + b'"',
        b"[" + b'{"a":1},' * 16_000 + b"1]",
        filled(b"[],"),
        filled(b"{},"),
        filled(b'{"":0},'),
        filled(b"[" * 14 + b"]" * 14 + b","),
        filled(b"[],", b'{"type":"ping","\\u0041":['),
        filled(b"[],", b'{"type":"ping","\\\\u0000":['),
        filled(b"\\\\", b'["\\\\u0000', b'"]'),
        filled(b"\\\\u0000", b'["', b'"]'),
        filled(b'\\":', b'["', b'"]'),
        filled(b'"[",'),
        filled(b"9" * 4_000 + b","),
    ],
    ids=lambda text: ascii(text[15:35]),
)
def test_no_text_of_the_size_of_a_frame_holds_up_a_loop(text: bytes) -> None:
    def took() -> float:
        start = time.process_time()
        with contextlib.suppress(BadRequest):
            loads(text)
        return time.process_time() - start

    assert min(took() for _ in range(3)) < 0.05


def test_large_numbers_keep_their_digits() -> None:
    assert loads(b"[9007199254740993, -170141183460469231731687303715884105728]") == [
        9007199254740993,
        -(2**127),
    ]
    assert math.copysign(1, loads(b"-0.0")) == -1
