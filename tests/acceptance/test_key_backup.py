"""`/api/key-backup`: one opaque blob for each user (docs/protocol.md 7)."""

from __future__ import annotations

import json
import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.people import People, Person
from tests.acceptance.rest import Answer
from tests.acceptance.wire import is_time, to_base64url

PATH = "/api/key-backup"
LARGEST = 65536


def put(person: Person, blob: str, version: object) -> Answer:
    body = json.dumps({"blob": blob, "version": version}).encode()
    return person.rest.call("PUT", PATH, body)


def new_blob(size: int = 100) -> str:
    return to_base64url(secrets.token_bytes(size))


@pytest.fixture
def person(people: People) -> Person:
    return people.new()


def test_nobody_has_one_at_first_and_the_answer_says_what_to_replace(person: Person) -> None:
    answer = person.rest.get(PATH)
    assert answer.refused(404, "not_found")
    assert answer.json["error"]["version"] == 0


def test_it_comes_back_as_it_was_put(person: Person) -> None:
    blob = new_blob()
    stored = put(person, blob, 0)
    assert (stored.status, stored.json["version"]) == (200, 1)
    found = person.rest.get(PATH)
    assert is_time(found.json["updated_at"])
    assert found.json == {"blob": blob, **stored.json}


def test_others_have_their_own(person: Person, alice: Person) -> None:
    assert put(person, new_blob(), 0).status == 200
    assert alice.rest.get(PATH).refused(404, "not_found")


def test_a_change_names_the_version_that_it_replaces(person: Person) -> None:
    first, second = new_blob(), new_blob()
    put(person, first, 0)
    for wrong in (0, 2, 7):
        answer = put(person, second, wrong)
        assert answer.refused(409, "bad_request")
        assert answer.json["error"]["version"] == 1
    assert person.rest.get(PATH).json["blob"] == first
    assert put(person, second, 1).json["version"] == 2
    assert person.rest.get(PATH).json["blob"] == second


def test_of_several_at_once_one_wins(person: Person) -> None:
    person.enrol()
    for version in (0, 1):
        blobs = [new_blob() for _ in range(8)]
        with ThreadPoolExecutor(len(blobs)) as pool:
            answers = list(pool.map(lambda blob, at=version: put(person, blob, at), blobs))
        [winner] = [
            blob for blob, answer in zip(blobs, answers, strict=True) if answer.status == 200
        ]
        assert sorted({answer.status for answer in answers}) == [200, 409]
        assert person.rest.get(PATH).json["blob"] == winner


def test_a_deleted_one_is_gone_and_its_version_does_not_come_again(person: Person) -> None:
    put(person, new_blob(), 0)
    for _ in range(2):
        assert person.rest.call("DELETE", PATH).status == 204
    answer = person.rest.get(PATH)
    assert answer.refused(404, "not_found")
    assert answer.json["error"]["version"] == 2
    assert put(person, new_blob(), 1).refused(409, "bad_request")
    assert put(person, new_blob(), 2).json["version"] == 3


def test_the_largest_one_fits_and_a_larger_one_is_refused(person: Person) -> None:
    assert put(person, new_blob(LARGEST), 0).status == 200
    assert put(person, new_blob(LARGEST + 1), 1).refused(413, "too_large")


@pytest.mark.parametrize("body", ["{}", '{"blob": 1, "version": 0}', "[]", "", '{"version": 0}'])
def test_a_body_of_another_shape_is_refused(person: Person, body: str) -> None:
    assert person.rest.call("PUT", PATH, body.encode()).refused(400, "bad_request")


@pytest.mark.parametrize("version", [-1, 1.5, "0", None, True, 2**63])
def test_a_version_is_a_whole_number(person: Person, version: object) -> None:
    assert put(person, new_blob(), version).refused(400, "bad_request")


@pytest.mark.parametrize("blob", ["", "a", "ab=", "a b", "ä"])
def test_a_blob_is_base64url(person: Person, blob: str) -> None:
    assert put(person, blob, 0).refused(400, "bad_request")
