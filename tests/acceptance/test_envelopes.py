"""E2EMSG_CHECK_ENVELOPES: what no recipient could open is refused (docs/crypto.md 8)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.client import SocketClient
from tests.acceptance.conftest import Hosting
from tests.acceptance.envelopes import Keys, envelope, sealed
from tests.acceptance.people import People, Person
from tests.acceptance.wire import Frame, new_id, to_base64url
from tests.servers import GunicornServer


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[GunicornServer]:
    env = hosting.environment("sqlite", E2EMSG_CHECK_ENVELOPES=True)
    with GunicornServer(env=env, log_path=hosting.log_path()) as running:
        yield running


def keys_of(person: Person) -> Keys:
    keys = Keys(person.id, person.rest)
    keys.renew()
    return keys


@pytest.fixture
def alice_keys(alice: Person) -> Keys:
    return keys_of(alice)


@pytest.fixture
def bob_keys(bob: Person) -> Keys:
    return keys_of(bob)


@pytest.fixture
def alice_online(alice: Person) -> SocketClient:
    return alice.connect()


def refusal(client: SocketClient, recipient: Keys, message_id: str, content: str) -> Frame:
    client.send(recipient.id, content, message_id=message_id)
    return client.expect("error", ref=message_id)


def test_an_envelope_for_both_keys_is_stored_and_arrives_unchanged(
    alice_online: SocketClient, alice_keys: Keys, bob_keys: Keys, bob: Person
) -> None:
    message_id, content = sealed(alice_keys, bob_keys)
    alice_online.store(bob_keys.id, content, message_id=message_id)
    assert bob.connect().message()["encrypted_content"] == content


def test_the_same_over_rest(alice: Person, alice_keys: Keys, bob_keys: Keys) -> None:
    message_id, content = sealed(alice_keys, bob_keys)
    body = {"id": message_id, "to": bob_keys.id, "encrypted_content": content}
    assert alice.rest.post("/api/messages", body).status == 201
    body = {**body, "id": new_id()}
    assert alice.rest.post("/api/messages", body).refused(400, "bad_request")


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "another version": lambda whole: b"\x02" + whole[1:],
    "another suite": lambda whole: whole[:1] + b"\x02" + whole[2:],
    "another message id": lambda whole: whole[:2] + secrets.token_bytes(16) + whole[18:],
    "no wrap": lambda whole: whole[:26] + b"\x00" + whole[27:],
    "more wraps than there are": lambda whole: whole[:26] + b"\xff" + whole[27:],
    "the same reader twice": lambda whole: whole[:115] + whole[27:115] + whole[203:],
    "cut in the header": lambda whole: whole[:26],
    "cut in a wrap": lambda whole: whole[:150],
    "no room for nonce and tag": lambda whole: whole[: 203 + 27],
}


@pytest.mark.parametrize("damage", BROKEN)
def test_what_is_no_envelope_is_a_bad_request(
    alice_online: SocketClient, alice_keys: Keys, bob_keys: Keys, damage: str
) -> None:
    message_id = new_id()
    readers = [bob_keys.public_key, alice_keys.public_key]
    whole = envelope(message_id, alice_keys.public_key, readers)
    content = to_base64url(BROKEN[damage](whole))
    assert refusal(alice_online, bob_keys, message_id, content)["code"] == "bad_request"
    alice_online.store(bob_keys.id, to_base64url(whole), message_id=message_id)


def test_an_empty_payload_has_only_nonce_and_tag(
    alice_online: SocketClient, alice_keys: Keys, bob_keys: Keys
) -> None:
    message_id = new_id()
    smallest = envelope(message_id, alice_keys.public_key, [bob_keys.public_key], size=0)
    alice_online.store(bob_keys.id, to_base64url(smallest), message_id=message_id)


def test_a_new_key_of_the_recipient_counts_at_once(
    alice_online: SocketClient, alice_keys: Keys, bob_keys: Keys
) -> None:
    message_id, content = sealed(alice_keys, bob_keys)
    alice_online.store(bob_keys.id, content, message_id=message_id)
    stale_id, stale = sealed(alice_keys, bob_keys)
    bob_keys.renew()
    error = refusal(alice_online, bob_keys, stale_id, stale)
    assert error["code"] == "stale_key"
    assert error["key"] == bob_keys.rest.get(f"/api/keys/{bob_keys.id}").json
    assert error["key"]["public_key"] == to_base64url(bob_keys.public_key)
    again_id, again = sealed(alice_keys, bob_keys)
    alice_online.store(bob_keys.id, again, message_id=again_id)


def test_a_new_key_of_the_sender_counts_at_once(
    alice_online: SocketClient, alice_keys: Keys, bob_keys: Keys
) -> None:
    stale_id, stale = sealed(alice_keys, bob_keys)
    alice_online.store(bob_keys.id, stale, message_id=stale_id)
    stale_id, stale = sealed(alice_keys, bob_keys)
    new = alice_keys.renew()
    error = refusal(alice_online, bob_keys, stale_id, stale)
    assert (error["code"], error["key"]["public_key"]) == ("stale_key", to_base64url(new))


def test_what_was_stored_may_be_sent_again_whatever_became_of_the_keys(
    alice_online: SocketClient, alice_keys: Keys, bob_keys: Keys
) -> None:
    message_id, content = sealed(alice_keys, bob_keys)
    first = alice_online.store(bob_keys.id, content, message_id=message_id)
    bob_keys.renew()
    alice_keys.renew()
    again = alice_online.store(bob_keys.id, content, message_id=message_id)
    assert again == {**first, "duplicate": True}


def test_a_recipient_without_a_key_has_none_to_seal_for(
    alice_online: SocketClient, alice_keys: Keys, people: People
) -> None:
    person = people.new("carol")
    person.connect()
    carol = Keys(person.id, person.rest, secrets.token_bytes(32))
    error = refusal(alice_online, carol, *sealed(alice_keys, carol))
    nothing = {"public_key": None, "key_version": None, "updated_at": None}
    assert error["code"] == "stale_key"
    assert error["key"] == {"user_id": carol.id, **nothing}


def test_of_several_messages_the_one_to_blame_is_named_and_none_is_stored(
    alice_online: SocketClient, alice_keys: Keys, bob_keys: Keys, bob: Person
) -> None:
    good_id, good = sealed(alice_keys, bob_keys)
    stale_id, stale = sealed(alice_keys, Keys(bob_keys.id, bob_keys.rest, secrets.token_bytes(32)))
    broken_id = new_id()
    for bad_id, bad, code in ((stale_id, stale, "stale_key"), (broken_id, good, "bad_request")):
        messages = [
            {"id": one, "to": bob_keys.id, "encrypted_content": content}
            for one, content in ((good_id, good), (bad_id, bad))
        ]
        alice_online.send_frame({"type": "send_many", "ref": "r", "messages": messages})
        error = alice_online.expect("error", ref="r")
        assert (error["code"], error["id"]) == (code, bad_id)
    alice_online.store(bob_keys.id, good, message_id=good_id)
    assert bob.connect().hello["head"] == 1


def test_whom_nobody_knows_stays_unknown(
    alice: Person, alice_online: SocketClient, alice_keys: Keys
) -> None:
    nobody = Keys("no-such-user", alice.rest, secrets.token_bytes(32))
    error = refusal(alice_online, nobody, *sealed(alice_keys, nobody))
    assert error["code"] == "unknown_recipient"
