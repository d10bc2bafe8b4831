"""The shared vectors: this client agrees with them, and they are what make.py makes."""

from __future__ import annotations

import pytest
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey, KEMKeyPair

from flask_e2emsg.client import backup, safety
from flask_e2emsg.client.chain import Link, judge, newest_of
from flask_e2emsg.client.envelope import _Randomness, _seal, open_envelope, parse
from flask_e2emsg.client.errors import Malformed, Mistyped, TooLong
from flask_e2emsg.client.keys import IdentityKey
from flask_e2emsg.client.plaintext import decode, hash_of, pad, unpad
from flask_e2emsg.protocol.values import decode_binary, encode_binary
from tests.client.vectors import Json, address_of, load, private
from tests.vectors.make import FILES, FOLDER, text_of

ENVELOPES = [*load("envelope")["envelopes"], *load("chain")["messages"]]


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_what_the_script_makes(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text_of(FILES[name]())


def pair(key: IdentityKey) -> KEMKeyPair:
    public = key._private.public_key()
    return KEMKeyPair(key.hpke, KEMKey.from_pyca_cryptography_key(public))


def test_the_library_does_hpke_as_the_rfc_says() -> None:
    vector = {name: value for name, value in load("hpke").items() if name != "about"}
    suite = CipherSuite.new(
        KEMId(vector["kem_id"]), KDFId(vector["kdf_id"]), AEADId(vector["aead_id"])
    )
    ours, theirs = private(vector["skSm"]), private(vector["skRm"])
    info = bytes.fromhex(vector["info"])
    enc, sealing = suite.create_sender_context(
        pair(theirs).public_key, info=info, sks=ours.hpke, eks=pair(private(vector["skEm"]))
    )
    opening = suite.create_recipient_context(enc, theirs.hpke, info=info, pks=pair(ours).public_key)
    assert enc.hex() == vector["enc"]
    for one in vector["encryptions"]:
        text, aad, sealed = (bytes.fromhex(one[name]) for name in ("pt", "aad", "ct"))
        assert sealing.seal(text, aad) == sealed
        assert opening.open(sealed, aad) == text


@pytest.mark.parametrize("vector", load("kid")["keys"], ids=lambda one: one["kid"])
def test_kids(vector: Json) -> None:
    key = private(vector["private_key"])
    assert (key.public.hex(), key.kid.hex()) == (vector["public_key"], vector["kid"])


@pytest.mark.parametrize("vector", ENVELOPES, ids=lambda one: one["name"])
def test_envelopes_open_for_each_reader(vector: Json) -> None:
    envelope = parse(decode_binary(vector["envelope"], "envelope"))
    sender = private(vector["sender_private_key"])
    for reader in (private(vector["recipient_private_key"]), sender):
        text = open_envelope(envelope, address_of(vector), [reader], [sender.public])
        assert text.decode() == vector["plaintext"]


@pytest.mark.parametrize("vector", ENVELOPES, ids=lambda one: one["name"])
def test_envelopes_are_sealed_byte_for_byte(vector: Json) -> None:
    ephemerals = [pair(private(text)) for text in vector["ephemeral_private_keys"]]
    content_key, nonce = bytes.fromhex(vector["content_key"]), bytes.fromhex(vector["nonce"])
    envelope = _seal(
        vector["plaintext"].encode(),
        address_of(vector),
        private(vector["sender_private_key"]),
        [bytes.fromhex(vector["recipient_public_key"])],
        _Randomness(content_key, nonce, ephemerals),
    )
    assert encode_binary(envelope) == vector["envelope"]


@pytest.mark.parametrize("vector", load("padding")["buckets"], ids=lambda one: one["length"])
def test_buckets(vector: Json) -> None:
    padded = pad(b"x" * vector["length"])
    assert len(padded) == vector["padded_length"]
    assert unpad(padded) == b"x" * vector["length"]


def test_padded_texts() -> None:
    for vector in load("padding")["padded"]:
        text, padded = bytes.fromhex(vector["text"]), bytes.fromhex(vector["padded"])
        assert (pad(text), unpad(padded)) == (padded, text)


def test_what_is_too_long_is_not_padded() -> None:
    with pytest.raises(TooLong) as refused:
        pad(bytes(load("padding")["too_long"]))
    assert (refused.value.length, refused.value.limit) == (65536, 65535)


@pytest.mark.parametrize(("why", "padded"), load("padding")["refused"].items())
def test_padding_that_is_refused(why: str, padded: str) -> None:
    with pytest.raises(Malformed):
        unpad(bytes.fromhex(padded))


@pytest.mark.parametrize("vector", load("safety")["numbers"], ids=lambda one: one["digits"][:5])
def test_safety_numbers(vector: Json) -> None:
    one, other = ((side["user_id"], bytes.fromhex(side["public_key"])) for side in vector["sides"])
    number = safety.safety_number(one, other)
    assert number == safety.safety_number(other, one)
    assert [safety.half(*one), safety.half(*other)] == vector["halves"]
    assert (number.digits, number.groups, number.qr_text) == (
        vector["digits"],
        vector["groups"],
        vector["qr_text"],
    )


def test_recovery_codes() -> None:
    for vector in load("backup")["codes"]:
        secret = bytes.fromhex(vector["secret"])
        assert backup.format_code(secret) == vector["code"]
        assert backup.parse_code(vector["code"]) == secret


def test_recovery_codes_as_people_type_them() -> None:
    for vector in load("backup")["typed"]:
        assert backup.parse_code(vector["typed"]).hex() == vector["secret"]


@pytest.mark.parametrize("typed", load("backup")["mistyped"])
def test_a_mistyped_code_is_noticed(typed: str) -> None:
    with pytest.raises(Mistyped):
        backup.parse_code(typed)


@pytest.mark.parametrize("vector", load("backup")["backups"], ids=lambda one: one["user_id"])
def test_backups(vector: Json) -> None:
    key, nonce = private(vector["private_key"]), bytes.fromhex(vector["nonce"])
    facts = (vector["user_id"], vector["code"], vector["created_at"])
    assert encode_binary(backup.seal_backup(key, *facts, nonce)) == vector["blob"]
    blob = decode_binary(vector["blob"], "blob")
    opened = backup.open_backup(blob, vector["user_id"], vector["code"])
    assert opened.to_bytes() == key.to_bytes()


@pytest.mark.parametrize("vector", load("chain")["orders"], ids=lambda one: str(one["order"]))
def test_chains(vector: Json) -> None:
    messages, newest, seen, verdicts = load("chain")["messages"], None, set(), []
    for number in vector["order"]:
        text, content = messages[number]["plaintext"], messages[number]["envelope"]
        hashed = hash_of(decode_binary(content, "envelope"))
        assert encode_binary(hashed) == messages[number]["hash"]
        if number in seen:
            verdicts.append("replay")
            continue
        seen.add(number)
        plaintext = decode(text.encode())
        verdicts.append(judge(newest, plaintext.n, plaintext.prev_hash).value)
        newest = newest_of(newest, Link(plaintext.n, hashed))
    assert verdicts == vector["verdicts"]
