"""How long a key is remembered, and what makes it be looked up again."""

from __future__ import annotations

import secrets
from unittest.mock import Mock
from uuid import UUID, uuid4

import pytest

from flask_e2emsg.delivery import envelopes
from flask_e2emsg.delivery.background import Ticker
from flask_e2emsg.delivery.envelopes import KEY_SECONDS, TOLD_KEY_SECONDS, Envelopes
from flask_e2emsg.delivery.hub import Hub
from flask_e2emsg.delivery.recheck import Rechecker
from flask_e2emsg.errors import StaleKey
from flask_e2emsg.process import _Heard
from flask_e2emsg.protocol.frames import Outgoing
from flask_e2emsg.protocol.values import encode_binary, now
from flask_e2emsg.store.accounts import Party, PublicKey
from tests.acceptance.envelopes import envelope

ALICE = Party(1, "alice")


class Directory:
    """Keys, how often they were asked for, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.stored: set[UUID] = set()
        self.now = 1000.0
        self.is_overtaken = False  # bob's key, while it is read, by his next one
        monkeypatch.setattr("flask_e2emsg.delivery.envelopes.time.monotonic", lambda: self.now)
        self.hears = False
        self.check = Envelopes(self.find, self.stored.__contains__, lambda: self.hears)
        for user_id in ("alice", "bob"):
            self.renew(user_id)

    def renew(self, user_id: str) -> None:
        self.keys[user_id] = secrets.token_bytes(32)

    def find(self, user_id: str) -> PublicKey | None:
        self.asked.append(user_id)
        key = self.keys.get(user_id)
        if user_id == "bob" and self.is_overtaken:
            self.is_overtaken = False
            self.renew("bob")
            self.check.forget("bob")
        return None if key is None else PublicKey(user_id, key, 1, now())

    def message(self) -> Outgoing:
        """One from alice to bob that fits the keys of now."""
        message_id = uuid4()
        content = envelope(str(message_id), self.keys["alice"], [self.keys["bob"]])
        return Outgoing(message_id, "bob", content, encode_binary(content))

    def send(self, message: Outgoing) -> None:
        self.check.check(ALICE, message, names_message=False)


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Directory:
    return Directory(monkeypatch)


def test_many_sends_ask_once_for_each_key(directory: Directory) -> None:
    for _ in range(5):
        directory.send(directory.message())
    assert directory.asked == ["alice", "bob"]


def test_a_key_is_asked_for_again_when_its_time_is_over(directory: Directory) -> None:
    directory.send(directory.message())
    directory.now += KEY_SECONDS
    directory.send(directory.message())
    assert directory.asked == ["alice", "bob"] * 2


def test_a_key_is_remembered_longer_where_a_new_one_would_be_heard_of(directory: Directory) -> None:
    directory.hears = True
    directory.send(directory.message())
    directory.now += TOLD_KEY_SECONDS - 1
    directory.send(directory.message())
    assert directory.asked == ["alice", "bob"]
    directory.hears = False
    directory.send(directory.message())
    assert directory.asked == ["alice", "bob"] * 2
    directory.hears = True
    directory.now += TOLD_KEY_SECONDS
    directory.send(directory.message())
    assert directory.asked == ["alice", "bob"] * 3


def test_a_key_that_was_read_before_the_news_of_another_one_is_not_remembered(
    directory: Directory,
) -> None:
    old = directory.message()
    directory.is_overtaken = True
    directory.send(old)
    with pytest.raises(StaleKey):
        directory.send(old)


def test_after_what_may_have_been_missed_every_key_is_asked_for(directory: Directory) -> None:
    sweeper = Ticker("no sweep", 1.0, lambda: None)
    heard = _Heard(Hub(1, 1), Mock(spec=Rechecker), directory.check, sweeper)
    directory.send(directory.message())
    heard.missed()
    directory.send(directory.message())
    assert directory.asked == ["alice", "bob"] * 2


@pytest.mark.parametrize("user_id", ["alice", "bob"])
def test_what_fits_the_newest_key_passes_though_another_one_is_remembered(
    directory: Directory, user_id: str
) -> None:
    directory.send(directory.message())
    directory.renew(user_id)
    directory.send(directory.message())
    directory.send(directory.message())
    assert directory.asked == ["alice", "bob", user_id]


@pytest.mark.parametrize("user_id", ["alice", "bob"])
def test_an_old_key_is_refused_once_the_new_one_is_known(
    directory: Directory, user_id: str
) -> None:
    old = directory.message()
    directory.send(old)
    directory.renew(user_id)
    directory.check.forget(user_id)
    with pytest.raises(StaleKey) as refused:
        directory.send(old)
    shown = refused.value.members["key"]
    assert isinstance(shown, dict)
    assert shown["public_key"] == encode_binary(directory.keys[user_id])


def test_what_is_stored_already_is_left_to_the_store(directory: Directory) -> None:
    old = directory.message()
    directory.renew("bob")
    directory.stored.add(old.id)
    directory.send(old)


def test_a_refusal_shows_no_key_in_its_text(directory: Directory) -> None:
    old = directory.message()
    directory.renew("bob")
    with pytest.raises(StaleKey) as refused:
        directory.send(old)
    key = encode_binary(directory.keys["bob"])
    assert key not in str(refused.value) + repr(refused.value)


def test_no_more_keys_are_remembered_than_there_is_room_for(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelopes, "REMEMBERED_KEYS", 1)
    directory.send(directory.message())
    directory.send(directory.message())
    assert directory.asked == ["alice", "bob"] * 2
