"""Frames that no honest client sends: an `error` each, a usable socket after (docs/protocol.md 3).

The same corpus runs on SQLite and on PostgreSQL, and the answers must be the same.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from tests.acceptance.client import SocketClient
from tests.acceptance.corpus import (
    AN_ID,
    CORPUS,
    INVALID_SENDS,
    NOT_STRICT_JSON,
    a_send,
    a_send_without,
    nested,
)
from tests.acceptance.people import Person
from tests.acceptance.wire import Frame, new_content, new_id

MAX_FRAME_BYTES = 131_072


def padded(size: int, filler: str = "x") -> str:
    """A ping of exactly so many bytes of UTF-8."""
    frame = '{"type":"ping","ref":"padded","x":"%s"}'
    room = size - len(frame) + 2
    width = len(filler.encode())
    text = frame % (filler * (room // width) + "y" * (room % width))
    assert len(text.encode()) == size
    return text


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
    with suppress(ConnectionClosed):  # The server need not wait for the last, empty one.
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
