"""Frames that no honest client sends: an `error` each, a usable socket after (docs/protocol.md 3).

The same corpus runs on SQLite and on PostgreSQL, and the answers must be the same.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.acceptance.client import SocketClient
from tests.acceptance.people import Person
from tests.acceptance.wire import Frame, new_content, new_id

MAX_FRAME_BYTES = 131_072
AN_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def nested(levels: int) -> str:
    """A ping whose text nests so many levels, the frame's own object counted."""
    return '{"type":"ping","x":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


def padded(size: int, filler: str = "x") -> str:
    """A ping of exactly so many bytes of UTF-8."""
    frame = '{"type":"ping","ref":"padded","x":"%s"}'
    room = size - len(frame) + 2
    width = len(filler.encode())
    text = frame % (filler * (room // width) + "y" * (room % width))
    assert len(text.encode()) == size
    return text


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


@pytest.mark.parametrize("text", CORPUS.values(), ids=CORPUS.keys())
def test_a_bad_frame_gets_an_error_and_the_socket_stays_open(alice: Person, text: str) -> None:
    client = alice.connect()
    client.expect("caught_up")
    client.send_text(text)
    answers = client.frames_before_pong()
    assert [(frame["type"], frame.get("code")) for frame in answers] == [("error", "bad_request")]


@pytest.mark.parametrize("name", sorted(NOT_STRICT_JSON.keys() - {"duplicate key by escape"}))
def test_what_is_not_strict_json_is_refused_by_rest_too(
    alice: Person, bob: Person, name: str
) -> None:
    # In place of the type, everything that a message needs: only the flaw is left to refuse.
    send = a_send_without("type") | {"id": new_id(), "to": bob.id}
    text = NOT_STRICT_JSON[name].replace('"type":"ping"', json.dumps(send)[1:-1])
    assert alice.rest.call("POST", "/api/messages", text.encode()).refused(400, "bad_request")
    assert bob.connect().hello["head"] == 0


@pytest.mark.parametrize("frame", INVALID_SENDS.values(), ids=INVALID_SENDS.keys())
def test_an_invalid_send_gets_an_error_and_stores_nothing(
    alice: Person, bob: Person, frame: Frame
) -> None:
    client = alice.connect()
    client.expect("caught_up")
    to_bob = {**frame, "to": bob.id} if frame.get("to") == "to" else frame
    client.send_frame(to_bob)
    (error,) = client.frames_before_pong()
    assert (error["type"], error["code"]) == ("error", "bad_request")
    assert bob.connect().hello["head"] == 0


@pytest.mark.parametrize("name", ["to", "encrypted_content"])
def test_the_error_of_an_invalid_send_names_its_id(alice: Person, name: str) -> None:
    client = alice.connect()
    message_id = new_id()
    client.send_frame({**a_send(id=message_id), name: 1})
    assert client.error("bad_request")["ref"] == message_id


@pytest.mark.parametrize("name", ["ref", "x"])
def test_text_that_json_can_hold_is_welcome(alice: Person, name: str) -> None:
    client = alice.connect()
    odd = '\u2028 \U0001f600 \\ " / \x7f \u00e9 e\u0301 \u202e \ufeff'
    client.send_frame({"type": "ping", name: odd})
    assert client.expect("pong")["ref"] == (odd if name == "ref" else None)


def test_sixteen_levels_of_nesting_are_welcome(alice: Person) -> None:
    client = alice.connect()
    client.send_text(nested(16))
    client.expect("pong", ref=None)


def test_brackets_within_a_text_are_no_nesting(alice: Person) -> None:
    client = alice.connect()
    client.send_frame({"type": "ping", "ref": "[" * 100 + '"\\' + "{" * 100})
    client.expect("pong")


def test_escaped_and_plain_text_mean_the_same(alice: Person) -> None:
    client = alice.connect()
    client.send_text('{"\\u0074ype":"\\u0070ing","ref":"\\ud83d\\ude00"}')
    client.expect("pong", ref="😀")


def test_white_space_around_a_frame_is_welcome(alice: Person) -> None:
    client = alice.connect()
    client.send_text(' \r\n\t{ "type" : "ping" , "ref" : "spacious" } \n')
    client.expect("pong", ref="spacious")


def test_nineteen_errors_in_a_row_are_forgiven_by_one_good_frame(alice: Person) -> None:
    client = alice.connect()
    for _ in range(3):
        for _ in range(19):
            client.send_text("nonsense")
            client.error("bad_request")
        client.round_trip()


@pytest.mark.parametrize("text", ["nonsense", '{"type":"teleport"}', '{"type":"ack","seq":-1}'])
def test_twenty_errors_in_a_row_close_with_1008(alice: Person, text: str) -> None:
    client = alice.connect()
    client.round_trip()
    for _ in range(20):
        client.send_text(text)
    frames = client.expect_close(1008)
    errors = [frame for frame in frames if frame["type"] == "error"]
    assert len(errors) in (19, 20)


@pytest.mark.parametrize("octets", [b"", b"\x00", b'{"type":"ping"}', bytes(range(256)) * 4])
def test_a_binary_frame_closes_with_1003(alice: Person, octets: bytes) -> None:
    client = alice.connect()
    client.socket.send(octets)
    client.expect_close(1003)


@pytest.mark.parametrize(
    "octets",
    [
        b"\xff",
        b'{"type":"ping","ref":"\xc3\x28"}',
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        b"\xf4\x90\x80\x80",
    ],
    ids=["ff", "broken pair", "surrogate", "overlong", "beyond Unicode"],
)
def test_bad_utf8_closes_with_1007(alice: Person, octets: bytes) -> None:
    client = alice.connect()
    client.socket.send(octets, text=True)
    client.expect_close(1007)


@pytest.mark.parametrize("filler", ["x", "é", "€", "😀"])
def test_a_frame_of_exactly_the_limit_is_read(alice: Person, filler: str) -> None:
    client = alice.connect()
    client.send_text(padded(MAX_FRAME_BYTES, filler))
    client.expect("pong", ref="padded")


@pytest.mark.parametrize("filler", ["x", "é", "€", "😀"])
def test_one_byte_over_the_limit_closes_with_1009(alice: Person, filler: str) -> None:
    client = alice.connect()
    client.round_trip()
    client.send_text(padded(MAX_FRAME_BYTES + 1, filler))
    assert {frame["type"] for frame in client.expect_close(1009)} <= {"caught_up"}


def test_a_frame_far_over_the_limit_closes_with_1009(alice: Person) -> None:
    # The close frame must reach a client that is still writing (a reset would lose it).
    for _ in range(5):
        client = alice.connect()
        client.send_text(padded(1024 * 1024))
        client.expect_close(1009)


def test_fragments_that_together_pass_the_limit_close_with_1009(alice: Person) -> None:
    client = alice.connect()
    client.socket.send(["x" * 10_000] * 14)
    client.expect_close(1009)


def test_a_send_of_the_largest_frame_is_delivered_in_a_frame_or_too_large(
    alice: Person, bob: Person
) -> None:
    # What is pushed has more members than what was sent, and the limit holds both ways: a message
    # that no frame can carry would close its recipient's every connection.
    ours, theirs = alice.connect(), bob.connect()
    frame = a_send(id=new_id(), to=bob.id, encrypted_content="")
    room = MAX_FRAME_BYTES - len(json.dumps(frame, ensure_ascii=False))
    frame["encrypted_content"] = "A" * (room - room % 4)
    ours.send_frame(frame)
    answers = [one for one in ours.frames_before_pong() if one["type"] != "caught_up"]
    answer = answers[0] if answers else ours.expect("accepted")
    if answer["type"] == "error":
        assert answer["code"] == "too_large"
    else:
        assert theirs.message()["encrypted_content"] == frame["encrypted_content"]


@pytest.mark.parametrize("size", [98_000, 98_200, 98_300, 1_000_000])
def test_a_post_of_much_content_is_delivered_in_a_frame_or_too_large(
    alice: Person, bob: Person, size: int
) -> None:
    theirs, content = bob.connect(), new_content(size)
    body = {"id": new_id(), "to": bob.id, "encrypted_content": content}
    answer = alice.rest.post("/api/messages", body)
    if answer.status == 201:
        assert theirs.message()["encrypted_content"] == content
    else:
        assert answer.refused(413, "too_large")


def test_others_are_served_while_somebody_sends_nonsense(
    alice: Person, bob: Person, carol: Person
) -> None:
    bad, ours, theirs = carol.connect(), alice.connect(), bob.connect()
    for _ in range(19):
        bad.send_text("[" * 50_000)
    for _ in range(10):
        theirs.message(ours.store(bob.id)["id"])


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=300)
    | st.sampled_from([AN_ID, "AAAA", "to", "", "x" * 256]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(string.ascii_lowercase, max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
member_names = st.sampled_from(
    "id to encrypted_content conversation_id expires_in ref messages seq ids active x".split()  # noqa: SIM905
)
client_types = st.sampled_from(["send", "send_many", "ack", "read", "typing", "ping", "unknown"])


@given(
    kind=client_types,
    members=st.dictionaries(member_names, json_values, max_size=7),
)
@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_json_object_is_answered_in_kind(
    one_client: Callable[[], SocketClient], kind: str, members: dict[str, Any]
) -> None:
    client = one_client()
    client.send_frame({**members, "type": kind})
    answers = {frame["type"] for frame in client.frames_before_pong()}
    assert answers <= {"error", "pong", "accepted", "caught_up"}


@given(text=st.text(max_size=400) | st.from_regex(r'\{"type":"(send|ack|ping)",.{0,60}\}'))
@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_text_is_answered_in_kind(one_client: Callable[[], SocketClient], text: str) -> None:
    client = one_client()
    client.send_text(text)
    answers = {frame["type"] for frame in client.frames_before_pong()}
    assert answers <= {"error", "pong", "caught_up"}


@pytest.fixture
def one_client(alice: Person) -> Callable[[], SocketClient]:
    """The same open connection for every example; a new one when an example closed it."""
    clients: list[SocketClient] = []

    def current() -> SocketClient:
        if not clients or clients[-1].closed_with is not None:
            clients.append(alice.connect())
        return clients[-1]

    return current


def test_content_is_carried_without_a_look_inside(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    for content in ["AA", "AAA", "AAAA", "____", "----", new_content(1)]:
        assert theirs.message(ours.store(bob.id, content)["id"])["encrypted_content"] == content
