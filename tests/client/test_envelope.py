"""What does not open: every byte changed, every member of the frame changed, every other key."""

from __future__ import annotations

import dataclasses
import traceback
from uuid import UUID

import pytest

from flask_e2emsg.client.envelope import Address, open_envelope, parse, seal
from flask_e2emsg.client.errors import (
    CannotOpen,
    Forged,
    Incomplete,
    Malformed,
    NoText,
    NotForMe,
    TooLong,
    UnknownSenderKey,
    UnknownSuite,
    UnusableKey,
    WrongMessageId,
)
from flask_e2emsg.client.keys import IdentityKey
from flask_e2emsg.client.plaintext import BUCKETS, Plaintext, decode, encode, pad

TEXT = b'{"type":"text","sent_at":1,"n":1,"prev":null,"body":"canary-in-a-body"}'
ALICE, BOB, CAROL = (IdentityKey.generate() for _ in range(3))
ADDRESS = Address(UUID(int=7), "alice", "bob", "a talk")
SEALED = seal(TEXT, ADDRESS, ALICE, [BOB.public])
HEAD, WRAP = 27, 88


def open_as_bob(octets: bytes, address: Address = ADDRESS, sender: bytes = ALICE.public) -> bytes:
    return open_envelope(parse(octets), address, [BOB], [sender])


def flipped(octets: bytes, at: int) -> bytes:
    return octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :]


def test_what_was_sealed_opens() -> None:
    assert open_as_bob(SEALED) == TEXT
    assert open_envelope(parse(SEALED), ADDRESS, [ALICE], [ALICE.public]) == TEXT


def test_every_byte_that_is_changed_is_noticed() -> None:
    others = range(HEAD + WRAP, HEAD + 2 * WRAP)  # alice's wrap, which bob does not look at
    for at in set(range(len(SEALED))) - set(others):
        with pytest.raises(CannotOpen):
            open_envelope(parse(flipped(SEALED, at)), ADDRESS, [BOB], [ALICE.public])
    for at in others:
        with pytest.raises(CannotOpen):
            open_envelope(parse(flipped(SEALED, at)), ADDRESS, [ALICE], [ALICE.public])


@pytest.mark.parametrize(
    "change",
    [
        {"sender": "carol"},
        {"recipient": "carol"},
        {"conversation_id": None},
        {"conversation_id": "another talk"},
        {"sender": "alic", "recipient": "ebob"},
    ],
)
def test_an_envelope_that_is_readdressed_does_not_open(change: dict[str, str | None]) -> None:
    with pytest.raises(Forged):
        open_as_bob(SEALED, dataclasses.replace(ADDRESS, **change))  # type: ignore[arg-type]


def test_an_envelope_belongs_to_one_message() -> None:
    with pytest.raises(WrongMessageId):
        open_as_bob(SEALED, dataclasses.replace(ADDRESS, message_id=UUID(int=8)))


def test_an_envelope_that_is_cut_short_is_refused() -> None:
    for length in range(len(SEALED)):
        with pytest.raises(Malformed):
            parse(SEALED[:length])


@pytest.mark.parametrize("more", [1, 12, 88, 256, 65536])
def test_an_envelope_with_something_after_it_is_refused(more: int) -> None:
    with pytest.raises(CannotOpen):
        open_as_bob(SEALED + bytes(more))


def test_numbers_of_wraps_that_no_client_makes_are_refused() -> None:
    for count in (0, 1, 3, 255):
        with pytest.raises(Malformed):
            parse(SEALED[:26] + bytes([count]) + SEALED[27:])


def test_two_wraps_for_one_key_are_refused() -> None:
    wrap = SEALED[HEAD : HEAD + WRAP]
    with pytest.raises(Malformed):
        parse(SEALED[:HEAD] + wrap + wrap + SEALED[HEAD + 2 * WRAP :])


@pytest.mark.parametrize("first", [b"\x02\x01", b"\x01\x02", b"\x00\x00"])
def test_another_version_or_suite_is_named(first: bytes) -> None:
    with pytest.raises(UnknownSuite) as refused:
        parse(first + SEALED[2:])
    assert (refused.value.version, refused.value.suite) == tuple(first)


def test_somebody_elses_envelope_is_not_for_me() -> None:
    with pytest.raises(NotForMe):
        open_envelope(parse(SEALED), ADDRESS, [CAROL], [ALICE.public])


def test_a_sender_whose_key_is_not_pinned_is_named() -> None:
    with pytest.raises(UnknownSenderKey) as refused:
        open_as_bob(SEALED, sender=CAROL.public)
    assert refused.value.kid == ALICE.kid


def test_who_only_claims_to_be_the_sender_is_refused() -> None:
    """Carol seals as herself and writes alice's kid over her own."""
    forged = seal(TEXT, ADDRESS, CAROL, [BOB.public])
    with pytest.raises(Forged):
        open_as_bob(forged[:18] + ALICE.kid + forged[26:])


def test_a_reader_cannot_put_another_text_under_the_same_wraps() -> None:
    """Bob knows the content key; alice's wraps bind the ciphertext that she made."""
    other = seal(TEXT.replace(b"canary", b"forged"), ADDRESS, ALICE, [BOB.public])
    start = HEAD + 2 * WRAP
    with pytest.raises(Forged):
        open_as_bob(SEALED[:start] + other[start:])


def test_keys_of_before_still_open() -> None:
    text = open_envelope(parse(SEALED), ADDRESS, [CAROL, BOB], [CAROL.public, ALICE.public])
    assert text == TEXT


def test_a_message_to_oneself_has_one_wrap() -> None:
    address = Address(UUID(int=9), "alice", "alice")
    octets = seal(TEXT, address, ALICE, [ALICE.public])
    assert len(parse(octets).wraps) == 1
    assert open_envelope(parse(octets), address, [ALICE], [ALICE.public]) == TEXT


def test_nothing_is_used_twice() -> None:
    one, other = parse(SEALED), parse(seal(TEXT, ADDRESS, ALICE, [BOB.public]))
    assert one.nonce != other.nonce
    assert {wrap.enc for wrap in one.wraps}.isdisjoint(wrap.enc for wrap in other.wraps)


def test_the_length_tells_the_bucket_alone() -> None:
    lengths = {len(seal(b"x" * n, ADDRESS, ALICE, [BOB.public])) for n in (0, 100, 255)}
    assert lengths == {len(SEALED)}


def test_what_fits_no_bucket_is_not_sealed() -> None:
    assert len(pad(b"x" * 65535)) == BUCKETS[-1]
    with pytest.raises(TooLong):
        seal(b"x" * 65536, ADDRESS, ALICE, [BOB.public])


@pytest.mark.parametrize(
    ("type", "body", "target"),
    [("text", None, None), ("reply", "text", None), ("delete", None, "7"), ("edit", None, None)],
)
def test_what_a_recipient_would_refuse_is_not_sealed(
    type: str, body: str | None, target: str | None
) -> None:
    with pytest.raises(Incomplete):
        encode(Plaintext(type, 1, 1, None, body, target))


def test_what_is_no_text_is_not_sealed() -> None:
    body = decode(TEXT).body or ""
    with pytest.raises(NoText) as refused:
        encode(Plaintext("text", 1, 1, None, body + "\ud800"))
    assert "canary" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31), bytes(31), b"\xff" * 33])
def test_nothing_is_sealed_for_a_key_that_gives_no_secret(key: bytes) -> None:
    with pytest.raises(UnusableKey):
        seal(TEXT, ADDRESS, ALICE, [key])


def test_an_enc_of_low_order_is_refused() -> None:
    with pytest.raises(Forged):
        open_as_bob(SEALED[: HEAD + 8] + bytes(32) + SEALED[HEAD + 40 :])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"canary-in-a-body",
        b'{"type":"text","sent_at":1,"n":0,"prev":null,"body":"canary-in-a-body"}',
        b'{"type":"text","sent_at":1,"n":1,"prev":null}',
        b'{"type":"text","sent_at":1,"n":1,"prev":"AAAA","body":"canary-in-a-body"}',
        b'{"type":"text","sent_at":1,"n":1,"prev":null,"body":["canary-in-a-body"]}',
        b'{"type":"reply","sent_at":1,"n":1,"prev":null,"body":"canary-in-a-body"}',
        b'{"type":"edit","sent_at":1,"n":1,"prev":null,"body":"","target":"canary-in-a-body"}',
        b'{"type":"text","sent_at":1,"n":1,"prev":null,"body":"\xff"}',
    ],
)
def test_a_plaintext_that_no_client_writes_is_refused_without_quoting_it(text: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        decode(text)
    assert "canary" not in "".join(traceback.format_exception(refused.value))


def test_unknown_members_and_types_are_let_through() -> None:
    text = b'{"type":"poll","sent_at":1,"n":1,"prev":null,"log":[1,"x"]}'
    assert decode(text).type == "poll"


def test_no_repr_shows_keys_or_cleartext() -> None:
    shown = f"{ALICE!r} {parse(SEALED)!r} {decode(TEXT)!r} {ADDRESS!r}"
    assert "canary" not in shown
    assert ALICE.to_bytes().hex() not in shown
