"""The outbox: what is sent when, with which bytes, after which answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_e2emsg.client import events
from flask_e2emsg.client.errors import KeyNotAccepted, NoSuchKey, OwnKeyReplaced
from flask_e2emsg.client.keys import IdentityKey
from flask_e2emsg.client.plaintext import hash_of, hash_text
from flask_e2emsg.protocol.values import decode_binary
from tests.client.fakes import Desk, Frame


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "alice")
    desk.connect()
    yield desk
    desk.store.close()


def hash_in(frame: Frame) -> str | None:
    return hash_text(hash_of(decode_binary(frame["encrypted_content"], "content")))


def test_one_message_to_one_recipient_is_unanswered_at_a_time(desk: Desk) -> None:
    one, two, three = (desk.write(text) for text in ("one", "two", "three"))
    assert desk.sent() == [one]
    desk.accept(one)
    desk.accept(two)
    assert desk.sent() == [one, two, three]


def test_others_do_not_wait(desk: Desk) -> None:
    desk.rest.keys["carol"] = IdentityKey.generate().public
    ids = [desk.write("to bob"), desk.write("to carol", "carol")]
    assert desk.sent() == ids


def test_each_names_the_one_before(desk: Desk) -> None:
    for text in ("one", "two", "three"):
        desk.accept(desk.write(text))
    contents = [desk.read(frame) for frame in desk.out]
    assert [content.n for content in contents] == [1, 2, 3]
    assert [content.prev for content in contents] == [None, *map(hash_in, desk.out[:2])]


def test_what_was_not_answered_is_sent_again_with_the_same_bytes(desk: Desk) -> None:
    desk.write("one")
    desk.sending.disconnected()
    desk.restart()
    desk.connect()
    assert desk.out[0] == desk.out[1]


def test_what_was_written_without_a_connection_goes_out_with_the_next(desk: Desk) -> None:
    desk.accept(desk.write("one"))
    desk.sending.disconnected()
    ids = [desk.write("two"), desk.write("three")]
    desk.restart()
    desk.connect()
    desk.accept(ids[0])
    assert desk.sent()[1:] == ids
    assert [desk.read(frame).n for frame in desk.out] == [1, 2, 3]


def test_an_answer_that_comes_twice_is_one(desk: Desk) -> None:
    message_id = desk.write("one")
    desk.accept(message_id)
    desk.accept(message_id)
    assert [type(event) for event in desk.told] == [events.Sent]


@pytest.mark.parametrize("code", ["unknown_recipient", "too_large", "id_conflict", "bad_request"])
def test_after_a_final_refusal_what_follows_takes_its_place(desk: Desk, code: str) -> None:
    one, two, three = (desk.write(text) for text in ("one", "two", "three"))
    desk.accept(one)
    desk.refuse(two, code)
    assert desk.sent() == [one, two, three]
    assert desk.read(desk.out[2]).n == 2
    assert desk.read(desk.out[2]).prev == hash_in(desk.out[0])
    assert events.Refused(two, "bob", code, True) in desk.told


def test_what_is_refused_for_a_while_is_sent_again_when_the_time_has_come(desk: Desk) -> None:
    one = desk.write("one")
    desk.write("two")
    desk.refuse(one, "rate_limited", retry_after=0.01)
    assert desk.sent() == [one]
    assert (desk.sending.seconds_until_due() or 0) <= 0.01
    while desk.sending.seconds_until_due():
        pass
    desk.sending.kick_due()
    assert desk.out == [desk.out[0]] * 2


def test_a_stale_key_stops_until_it_is_accepted_and_then_all_is_sealed_for_it(desk: Desk) -> None:
    new = IdentityKey.generate()
    zero = desk.write("zero")
    desk.accept(zero)
    ids = [desk.write("one"), desk.write("two")]
    desk.stale(ids[0], "bob", new.public)
    number = desk.contacts.safety_number("bob")
    assert desk.told[-1] == events.KeyChanged("bob", number)
    with pytest.raises(KeyNotAccepted):
        desk.write("three")
    desk.contacts.accept("bob", number)
    desk.sending.resume("bob")
    desk.accept(ids[0])
    assert desk.sent() == [zero, ids[0], *ids]
    assert [desk.read(frame, new).body for frame in desk.out[2:]] == ["one", "two"]
    assert [desk.read(frame, new).n for frame in desk.out[2:]] == [2, 3]


def test_what_is_under_way_when_a_key_is_accepted_keeps_its_bytes(desk: Desk) -> None:
    one = desk.write("one")
    desk.contacts.accept("bob", None)
    desk.sending.resume("bob")  # the history does not show it yet
    desk.accept(one)
    desk.write("two")
    assert desk.read(desk.out[1]).prev == hash_in(desk.out[0])


def test_a_stale_key_that_was_accepted_meanwhile_is_just_sealed_for(desk: Desk) -> None:
    new = IdentityKey.generate()
    message_id = desk.write("one")
    desk.contacts.shown("bob", new.public)
    desk.contacts.accept("bob", None)
    desk.stale(message_id, "bob", new.public)
    assert desk.sent() == [message_id] * 2
    assert desk.read(desk.out[1], new).body == "one"


def test_a_contact_without_a_key_any_more_stops(desk: Desk) -> None:
    message_id = desk.write("one")
    desk.rest.keys.pop("bob")
    desk.stale(message_id, "bob", None)
    assert desk.told[-1] == events.KeyChanged("bob", None)
    desk.contacts.connected()
    with pytest.raises(NoSuchKey):
        desk.contacts.accept("bob", None)
    assert desk.sent() == [message_id]


def test_a_stale_key_of_mine_stops_everything(desk: Desk) -> None:
    message_id = desk.write("one")
    desk.stale(message_id, "alice", IdentityKey.generate().public)
    assert desk.told[-1] == events.OwnKeyChanged(known_here=True)
    with pytest.raises(OwnKeyReplaced):
        desk.write("two")
    desk.me.publish()
    desk.sending.reseal()
    assert desk.sent() == [message_id] * 2


def test_after_a_new_key_of_mine_what_waits_is_sealed_with_it(desk: Desk) -> None:
    desk.accept(desk.write("one"))
    desk.sending.disconnected()
    message_id = desk.write("two")
    desk.me.make_new_key()
    desk.sending.reseal()
    desk.connect()
    assert desk.sent()[1:] == [message_id]
    assert desk.read(desk.out[1]).n == 1  # a new key's chain


def test_a_directory_that_shows_the_old_key_again_lets_sending_go_on(desk: Desk) -> None:
    desk.accept(desk.write("zero"))
    desk.contacts.shown("bob", IdentityKey.generate().public)
    assert desk.contacts.is_stopped("bob")
    desk.contacts.shown("bob", desk.bob.public)
    message_id = desk.write("one")
    assert desk.sent()[1:] == [message_id]


@pytest.mark.parametrize("key", [bytes(32), b"short"])
def test_a_key_that_gives_no_secret_is_never_pinned(desk: Desk, key: bytes) -> None:
    desk.rest.keys["eve"] = key
    with pytest.raises(NoSuchKey):
        desk.write("one", "eve")


def test_a_device_that_lost_its_state_goes_on_after_the_history(desk: Desk, tmp_path: Path) -> None:
    for text in ("one", "two"):
        desk.accept(desk.write(text))
    key, history = desk.me.current(), desk.store.entries.of("bob", 10)
    desk.store.close()
    desk.path = tmp_path / "another"
    desk.rest.pages["bob"] = [{**frame, "position": 1} for frame in history]
    desk.open()
    desk.rest.keys["alice"] = key.public
    desk.store.add_own_key(key, made_here=False)
    desk.restart()
    desk.connect()
    desk.write("three")
    content = desk.read(desk.out[-1])
    assert (content.n, content.prev) == (3, hash_in(desk.out[-2]))
