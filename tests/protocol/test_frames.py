"""Frames: a client's text becomes a checked struct or a refusal, an answer becomes text."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_e2emsg.errors import BadRequest, IdConflict, RateLimited
from flask_e2emsg.protocol import frames
from flask_e2emsg.protocol.entries import Message, MessageEntry, ReceiptEntry
from flask_e2emsg.protocol.frames import (
    Ack,
    Outgoing,
    Ping,
    Read,
    Refresh,
    Send,
    SendMany,
    Typing,
    decode,
    decode_send,
)

ID = "0190a5b4-7e1c-7abc-8def-0123456789ab"
OTHER_ID = "0190a5b4-7e1c-7abc-8def-0123456789ac"
SEND = {"type": "send", "id": ID, "to": "bob", "encrypted_content": "AAEC"}
ITEM = {"id": ID, "to": "bob", "encrypted_content": "AAEC"}
SEND_MANY = {"type": "send_many", "ref": "r", "messages": [ITEM]}
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def text_of(frame: Any) -> bytes:
    return json.dumps(frame).encode()


def refusal_of(frame: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        decode(text_of(frame))
    return caught.value


class TestDecode:
    def test_send_with_what_it_must_have(self) -> None:
        assert decode(text_of(SEND)) == Send(Outgoing(UUID(ID), "bob", b"\0\1\2", "AAEC"))

    def test_send_with_all_it_may_have(self) -> None:
        frame = SEND | {"conversation_id": "c", "expires_in": 60}
        message = Outgoing(UUID(ID), "bob", b"\0\1\2", "AAEC", "c", 60)
        assert decode(text_of(frame)) == Send(message)

    def test_send_many_shares_its_conversation(self) -> None:
        frame = SEND_MANY | {
            "conversation_id": "c",
            "messages": [ITEM, ITEM | {"id": OTHER_ID, "to": "eve"}],
        }
        decoded = decode(text_of(frame))
        assert isinstance(decoded, SendMany)
        assert (decoded.ref, [m.recipient for m in decoded.messages]) == ("r", ["bob", "eve"])
        assert {m.conversation_id for m in decoded.messages} == {"c"}

    @pytest.mark.parametrize(
        ("frame", "decoded"),
        [
            ({"type": "ack", "seq": 0}, Ack(0)),
            ({"type": "ack", "seq": 2**63 - 1}, Ack(2**63 - 1)),
            ({"type": "read", "ids": [ID, OTHER_ID]}, Read([UUID(ID), UUID(OTHER_ID)])),
            ({"type": "typing", "to": "bob", "active": True}, Typing("bob", None, True)),
            (
                {"type": "typing", "to": "bob", "conversation_id": "c", "active": False},
                Typing("bob", "c", False),
            ),
            ({"type": "refresh", "token": "x.y.z"}, Refresh("x.y.z")),
            ({"type": "ping"}, Ping(None)),
            ({"type": "ping", "ref": "r"}, Ping("r")),
            ({"type": "ping", "ref": 7}, Ping(7)),
        ],
        ids=str,
    )
    def test_the_other_frames(self, frame: Any, decoded: Any) -> None:
        assert decode(text_of(frame)) == decoded

    def test_unknown_members_are_ignored(self) -> None:
        assert decode(text_of(SEND | {"later": {"x": [1]}})) == decode(text_of(SEND))

    def test_null_is_as_good_as_absent_where_a_member_is_optional(self) -> None:
        frame = SEND | {"conversation_id": None, "expires_in": None}
        assert decode(text_of(frame)) == decode(text_of(SEND))

    def test_the_limits_of_counts_are_inclusive(self) -> None:
        ids = [f"0190a5b4-7e1c-7abc-8def-{n:012x}" for n in range(500)]
        assert decode(text_of({"type": "read", "ids": ids})) == Read([UUID(i) for i in ids])
        many = decode(text_of(SEND_MANY | {"messages": [ITEM | {"id": i} for i in ids[:256]]}))
        assert isinstance(many, SendMany)
        assert len(many.messages) == 256


class TestRefusals:
    @pytest.mark.parametrize(
        "frame",
        [
            None,
            [],
            "send",
            {},
            {"type": None},
            {"type": "hello"},
            {"type": ["send"]},
            {"type": "ack"},
            {"type": "ack", "seq": -1},
            {"type": "ack", "seq": 2**63},
            {"type": "ack", "seq": "1"},
            {"type": "ack", "seq": 1.5},
            {"type": "ack", "seq": True},
            {"type": "ack", "seq": None},
            {"type": "read", "ids": []},
            {"type": "read", "ids": [ID] * 501},
            {"type": "read", "ids": ID},
            {"type": "read", "ids": [ID.upper()]},
            {"type": "read", "ids": [1]},
            {"type": "typing", "to": "bob"},
            {"type": "typing", "to": "bob", "active": 1},
            {"type": "typing", "to": "", "active": True},
            {"type": "refresh"},
            {"type": "refresh", "token": 1},
            {"type": "ping", "ref": "x" * 256},
            {"type": "ping", "ref": 2**63},
            {"type": "ping", "ref": []},
            SEND_MANY | {"messages": []},
            SEND_MANY | {"messages": [ITEM | {"id": ID[:-3] + f"{n:03x}"} for n in range(257)]},
            SEND_MANY | {"messages": [ITEM, ITEM]},
            SEND_MANY | {"messages": {}},
            SEND_MANY | {"ref": None},
            {"type": "send_many", "messages": [ITEM]},
        ],
        ids=lambda frame: str(frame)[:60],
    )
    def test_what_is_no_frame_is_a_bad_request(self, frame: Any) -> None:
        assert refusal_of(frame).code == "bad_request"

    @pytest.mark.parametrize(
        ("member", "value"),
        [
            *(("id", value) for value in (None, 1, "", "x", ID.upper(), ID.replace("-", ""))),
            *(("to", value) for value in (None, 1, "", "x" * 256, ["bob"])),
            *(
                ("encrypted_content", value)
                for value in (None, 1, "", "A", "AAE=", "AA E", "+/AA", "AB", {"ct": "AAEC"})
            ),
            *(("conversation_id", value) for value in (1, "", "x" * 256)),
            *(("expires_in", value) for value in (0, -1, 1.5, "60", True, 10**12)),
        ],
    )
    def test_a_wrong_member_of_a_message_is_refused_in_each_frame_that_has_it(
        self, member: str, value: Any
    ) -> None:
        wrong = SEND | {member: value}
        refusal = refusal_of(wrong)
        assert refusal.ref == (wrong["id"] if isinstance(wrong["id"], str) else None)
        with pytest.raises(BadRequest):
            decode_send(text_of(wrong))
        if member in ITEM:
            assert refusal_of(SEND_MANY | {"messages": [ITEM | {member: value}]}).ref == "r"

    @pytest.mark.parametrize("member", ["id", "to", "encrypted_content"])
    def test_a_missing_member_is_refused(self, member: str) -> None:
        frame = {name: value for name, value in SEND.items() if name != member}
        assert f"`{member}`" in refusal_of(frame).message

    def test_of_many_messages_the_one_to_blame_is_named(self) -> None:
        bad = {"id": OTHER_ID, "to": "", "encrypted_content": "AAEC"}
        refusal = refusal_of(SEND_MANY | {"messages": [ITEM, bad]})
        assert (refusal.ref, refusal.message_id) == ("r", OTHER_ID)

    @pytest.mark.parametrize(
        ("frame", "ref"),
        [
            (SEND | {"to": ""}, ID),
            ({"type": "nonsense", "id": "x"}, "x"),
            ({"type": "nonsense", "ref": 7}, 7),
            ({"type": "nonsense", "id": "x", "ref": "y"}, "x"),
            ({"type": "nonsense", "id": [], "ref": "y"}, "y"),
            ({"type": "nonsense", "id": 7}, None),
            ({"type": "nonsense", "ref": True}, None),
            ({"type": "nonsense", "ref": 2**63}, None),
            ({"type": "nonsense", "id": "x" * 256}, None),
            ({"type": "nonsense"}, None),
            (["x"], None),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_the_refusal_refers_to_the_frame_where_that_can_be_read(
        self, frame: Any, ref: Any
    ) -> None:
        refusal = refusal_of(frame)
        assert refusal.ref == ref
        assert type(refusal.ref) is type(ref)

    @pytest.mark.parametrize("text", [b"", b"{", b'{"type":"ping","type":"ping"}', b'"\\u0000"'])
    def test_what_is_not_strict_json_is_refused_too(self, text: bytes) -> None:
        with pytest.raises(BadRequest) as refusal:
            decode(text)
        assert refusal.value.ref is None

    def test_no_refusal_repeats_what_the_client_wrote(self) -> None:
        secret = "s3cr3t"
        for frame in (
            {"type": secret},
            {"type": "refresh", "token": {"a": secret}},
            SEND | {"encrypted_content": f"{secret}!"},
            SEND | {"to": "", "conversation_id": secret},
            {"type": "ack", "seq": secret},
            {"type": "read", "ids": [secret]},
        ):
            assert secret not in refusal_of(frame).message

    @given(
        st.dictionaries(
            st.sampled_from([*SEND, *SEND_MANY, "seq", "ids", "active", "token", "expires_in"]),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.sampled_from([*"0aA", ID, "send", "send_many", "ack", "read", "typing", "ping"])
            | st.lists(st.just(ITEM) | st.just(ID) | st.integers(), max_size=3),
        )
    )
    def test_any_object_is_a_frame_or_a_bad_request(self, frame: dict[str, Any]) -> None:
        try:
            decoded = decode(text_of(frame))
        except BadRequest:
            return
        assert isinstance(decoded, Send | SendMany | Ack | Read | Typing | Refresh | Ping)


class TestDecodeSend:
    def test_a_body_is_a_send_frame_with_or_without_its_type(self) -> None:
        body = {name: value for name, value in SEND.items() if name != "type"}
        decoded = decode(text_of(SEND))
        assert isinstance(decoded, Send)
        assert decode_send(text_of(body)) == decode_send(text_of(SEND)) == decoded.message

    @pytest.mark.parametrize(
        "body", [[], None, "x", SEND | {"type": "ack"}, SEND | {"type": None}, {}], ids=str
    )
    def test_another_body_is_refused(self, body: Any) -> None:
        with pytest.raises(BadRequest):
            decode_send(text_of(body))


class TestEncode:
    def test_accepted_answers_a_send(self) -> None:
        text = frames.encode_accepted(UUID(ID), 7, MOMENT, new=True)
        assert json.loads(text) == {
            "type": "accepted",
            "id": ID,
            "seq": 7,
            "created_at": "2026-01-02T03:04:05.678Z",
            "duplicate": False,
        }

    def test_accepted_answers_a_repeated_send_many(self) -> None:
        text = frames.encode_accepted_many("r", [UUID(ID), UUID(OTHER_ID)], MOMENT, new=False)
        assert json.loads(text) == {
            "type": "accepted",
            "ref": "r",
            "ids": [ID, OTHER_ID],
            "created_at": "2026-01-02T03:04:05.678Z",
            "duplicate": True,
        }

    def test_an_error_says_what_and_of_which_frame(self) -> None:
        assert json.loads(frames.encode_error(BadRequest("No.", ref="r"))) == {
            "type": "error",
            "ref": "r",
            "code": "bad_request",
            "message": "No.",
            "retry_after": None,
        }

    def test_an_error_says_when_to_try_again_and_which_message_is_to_blame(self) -> None:
        assert json.loads(frames.encode_error(RateLimited()))["retry_after"] == 1.0
        error = json.loads(frames.encode_error(IdConflict(ref="r", message_id=ID)))
        assert (error["ref"], error["id"], error["code"]) == ("r", ID, "id_conflict")

    def test_an_error_that_several_frames_share_names_the_frame_that_it_answers(self) -> None:
        shared = RateLimited()
        refs = [json.loads(frames.encode_error(shared, ref))["ref"] for ref in ("a", 0, None)]
        assert refs == ["a", 0, None]

    def test_a_message_entry_is_a_message_frame(self) -> None:
        message = Message(UUID(ID), "alice", "bob", None, b"\0\1\2", MOMENT, None)
        assert json.loads(MessageEntry(3, message, None).frame()) == {
            "type": "message",
            "seq": 3,
            "id": ID,
            "sender": "alice",
            "recipient": "bob",
            "conversation_id": None,
            "encrypted_content": "AAEC",
            "created_at": "2026-01-02T03:04:05.678Z",
            "expires_at": None,
        }

    def test_a_receipt_entry_is_a_receipt_frame(self) -> None:
        entry = ReceiptEntry(4, "read", "bob", [UUID(ID)], MOMENT)
        assert json.loads(entry.frame()) == {
            "type": "receipt",
            "seq": 4,
            "kind": "read",
            "by": "bob",
            "ids": [ID],
            "at": "2026-01-02T03:04:05.678Z",
        }


def test_no_repr_shows_content_or_tokens() -> None:
    content, token = "c29tZSBjaXBoZXJ0ZXh0", "header.payload.signature"
    send = decode(text_of(SEND | {"encrypted_content": content}))
    many = decode(text_of(SEND_MANY | {"messages": [ITEM | {"encrypted_content": content}]}))
    message = Message(UUID(ID), "alice", "bob", None, b"some ciphertext", MOMENT, None, content)
    shown = repr([send, many, MessageEntry(1, message, None)])
    shown += repr(decode(text_of({"type": "refresh", "token": token})))
    assert not re.search(r"some ciphertext|c29tZ|header|payload|signature", shown)
    assert ID in shown
