"""Ids, binary text, times and cursors: one text for one value, and nothing a database refuses."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_e2emsg.errors import BadRequest
from flask_e2emsg.protocol.values import (
    Cursor,
    check_user_id,
    check_uuid,
    decode_binary,
    encode_binary,
    format_time,
    is_user_id,
    now,
)

EPOCH = "0123456789abcdef"


class TestCursor:
    @pytest.mark.parametrize("seq", [0, 1, 10, 2**63 - 1])
    def test_a_cursor_is_an_epoch_and_a_position(self, seq: int) -> None:
        assert Cursor.parse(f"{EPOCH}:{seq}") == Cursor(EPOCH, seq)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            EPOCH,
            f"{EPOCH}:",
            f"{EPOCH}:-1",
            f"{EPOCH}:+1",
            f"{EPOCH}:01",
            f"{EPOCH}:1 ",
            f" {EPOCH}:1",
            f"{EPOCH}:1\n",
            f"{EPOCH}:1.0",
            f"{EPOCH}:1_0",
            f"{EPOCH}:\u0661",
            f"{EPOCH}:{2**63}",
            f"{EPOCH}:{10**30}",
            f"{EPOCH.upper()}:1",
            f"{EPOCH}0:1",
            f"{EPOCH[1:]}:1",
            f"{EPOCH[1:]}g:1",
            "1",
        ],
    )
    def test_anything_else_is_none(self, text: str) -> None:
        with pytest.raises(BadRequest):
            Cursor.parse(text)


class TestUserId:
    @pytest.mark.parametrize(
        "text", ["a", "x" * 255, "\U0001f600" * 255, " ", "a/b?c", "\x01", "\n"]
    )
    def test_up_to_255_characters_of_any_kind(self, text: str) -> None:
        assert check_user_id(text, "to") == text

    @pytest.mark.parametrize("text", ["", "x" * 256, "a\0", "\ud800", "a\udfff"], ids=ascii)
    def test_nothing_that_cannot_be_stored(self, text: str) -> None:
        assert not is_user_id(text)
        with pytest.raises(BadRequest, match="`conversation_id`"):
            check_user_id(text, "conversation_id")


class TestUuid:
    def test_the_canonical_text_is_accepted(self) -> None:
        text = "0190a5b4-7e1c-7abc-8def-0123456789ab"
        assert check_uuid(text) == UUID(text)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "0190A5B4-7E1C-7ABC-8DEF-0123456789AB",
            "0190a5b47e1c7abc8def0123456789ab",
            "{0190a5b4-7e1c-7abc-8def-0123456789ab}",
            "urn:uuid:0190a5b4-7e1c-7abc-8def-0123456789ab",
            "0190a5b4-7e1c-7abc-8def-0123456789ab\n",
            "0190a5b4-7e1c-7abc-8def-0123456789a",
            "0190a5b4-7e1c-7abc-8def-0123456789ag",
            "0190a5b47-e1c-7abc-8def-0123456789ab",
        ],
    )
    def test_no_other_spelling_is(self, text: str) -> None:
        with pytest.raises(BadRequest, match="`ids`"):
            check_uuid(text, "ids")


class TestBinary:
    @given(st.binary(min_size=1, max_size=200))
    def test_bytes_come_back_and_have_one_text(self, data: bytes) -> None:
        text = encode_binary(data)
        assert text == urlsafe_b64encode(data).decode().rstrip("=")
        assert decode_binary(text, "x") == data

    @given(st.text(alphabet=st.sampled_from("ABQZabgz0189-_+/= \n\u0661"), max_size=12))
    def test_a_text_that_is_accepted_is_the_only_one_of_its_bytes(self, text: str) -> None:
        try:
            data = decode_binary(text, "x")
        except BadRequest:
            return
        assert encode_binary(data) == text

    @pytest.mark.parametrize(
        "text",
        ["", "A", "AA==", "AA=", "AAAAA", "A+A/", "AAA A", "AAAA\n", "AB", "AAB", "\u0661AAA"],
    )
    def test_padding_other_alphabets_and_stray_bits_are_refused(self, text: str) -> None:
        with pytest.raises(BadRequest, match="`encrypted_content`"):
            decode_binary(text, "encrypted_content")


class TestTimes:
    def test_a_time_has_milliseconds_and_z(self) -> None:
        moment = datetime(2026, 1, 2, 3, 4, 5, 6999, tzinfo=UTC)
        assert format_time(moment) == "2026-01-02T03:04:05.006Z"

    def test_a_time_of_another_zone_is_told_in_utc(self) -> None:
        moment = datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))
        assert format_time(moment) == "2025-12-31T23:00:00.000Z"

    def test_the_present_loses_nothing_on_the_wire(self) -> None:
        moment = now()
        assert datetime.fromisoformat(format_time(moment)) == moment
        assert abs(datetime.now(UTC) - moment) < timedelta(seconds=10)
