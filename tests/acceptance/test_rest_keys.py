"""`POST /api/keys` and `GET /api/keys/<user_id>` (docs/protocol.md 7)."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.acceptance.people import People, Person
from tests.acceptance.rest import Answer, RestClient, segment
from tests.acceptance.wire import (
    Check,
    check_members,
    is_base64url,
    is_position,
    is_time,
    is_user_id,
    to_base64url,
)

KEY_ANSWER: dict[str, Check] = {
    "user_id": is_user_id,
    "public_key": is_base64url,
    "key_version": is_position,
    "updated_at": is_time,
}

LOW_ORDER = {  # as little-endian hexadecimal: https://cr.yp.to/ecdh.html#validate
    "0": "00" * 32,
    "1": "01" + "00" * 31,
    "order 8, first": "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "order 8, second": "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "p - 1": "ec" + "ff" * 30 + "7f",
    "p": "ed" + "ff" * 30 + "7f",
    "p + 1": "ee" + "ff" * 30 + "7f",
}


def new_key() -> str:
    return to_base64url(secrets.token_bytes(32))


def publish(person: Person, public_key: Any) -> Answer:
    return person.rest.post("/api/keys", {"public_key": public_key})


def fetch(person: Person, user_id: str) -> Answer:
    return person.rest.get(f"/api/keys/{segment(user_id)}")


def test_a_published_key_is_answered_with_its_members(people: People) -> None:
    person, key = people.new(), new_key()
    answer = publish(person, key)
    assert answer.status == 200
    check_members(answer.json, KEY_ANSWER, "key")
    assert (answer.json["user_id"], answer.json["public_key"]) == (person.id, key)


def test_anybody_authenticated_can_fetch_a_key(people: People, alice: Person) -> None:
    person = people.new()
    published = publish(person, new_key()).json
    for reader in (alice, person):
        answer = fetch(reader, person.id)
        assert (answer.status, answer.json) == (200, published)


def test_the_same_key_again_gets_the_same_answer(people: People) -> None:
    person, key = people.new(), new_key()
    assert publish(person, key).json == publish(person, key).json


def test_a_new_key_gets_the_next_version(people: People, alice: Person) -> None:
    person, second_key = people.new(), new_key()
    first = publish(person, new_key()).json
    second = publish(person, second_key).json
    assert second["key_version"] == first["key_version"] + 1
    assert second["updated_at"] >= first["updated_at"]
    assert fetch(alice, person.id).json["public_key"] == second_key


def test_a_user_without_key_and_an_unknown_user_are_the_same_404(
    people: People, alice: Person
) -> None:
    keyless = people.new()
    keyless.connect().close()
    without, unknown = fetch(alice, keyless.id), fetch(alice, people.new().id)
    assert without.refused(404, "not_found")
    assert (unknown.status, unknown.body) == (without.status, without.body)


@pytest.mark.parametrize("high_bit", [0, 0x80], ids=["canonical", "high bit set"])
@pytest.mark.parametrize("name", LOW_ORDER)
def test_a_low_order_point_is_refused_with_422(
    people: People, alice: Person, name: str, high_bit: int
) -> None:
    # X25519 ignores the highest bit (RFC 7748, 5), so with it the point is as bad.
    person = people.new()
    *low, highest = bytes.fromhex(LOW_ORDER[name])
    point = to_base64url(bytes([*low, highest | high_bit]))
    assert publish(person, point).refused(422, "bad_request")
    assert fetch(alice, person.id).refused(404, "not_found")


MALFORMED: dict[str, Any] = {
    "31 bytes": to_base64url(b"\x09" * 31),
    "33 bytes": to_base64url(b"\x09" * 33),
    "empty": "",
    "padded": to_base64url(b"\x09" * 32) + "=",
    "the other alphabet": "+/" * 21 + "8",
    "bits beyond the last byte": to_base64url(b"\x09" * 32)[:-1] + "l",
    "a line break": to_base64url(b"\x09" * 32) + "\n",
    "beyond ASCII": "é" * 43,
    "null": None,
    "a number": 9,
    "a list": [to_base64url(b"\x09" * 32)],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_key_is_refused(people: People, alice: Person, name: str) -> None:
    person = people.new()
    answer = publish(person, MALFORMED[name])
    assert answer.status in (400, 422)
    assert answer.code == "bad_request"
    assert fetch(alice, person.id).refused(404, "not_found")


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"null", b'"x"', b"{}", b"\xff", b'{"a":NaN}'])
def test_a_malformed_body_is_refused(alice: Person, body: bytes) -> None:
    assert alice.rest.call("POST", "/api/keys", body).refused(400, "bad_request")


def test_a_body_that_claims_to_be_no_json_does_no_harm(alice: Person) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = {"Content-Type": content_type}
        assert alice.rest.call("POST", "/api/keys", b"a=b", headers).code == "bad_request"


def test_nobody_reaches_the_keys_without_a_token(alice: Person) -> None:
    nobody = RestClient(alice.server.url)
    assert nobody.post("/api/keys", {"public_key": new_key()}).refused(401, "unauthorized")
    assert nobody.get(f"/api/keys/{segment(alice.id)}").refused(401, "unauthorized")
