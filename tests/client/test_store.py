"""The client's file: what opens it, whose it is, what is in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from flask_e2emsg.client import Store, vault
from flask_e2emsg.client.chain import Link
from flask_e2emsg.client.errors import StoreError, StoreInUse, WrongPassphrase, WrongUser
from flask_e2emsg.client.keys import IdentityKey
from flask_e2emsg.client.position import Position
from flask_e2emsg.protocol.values import Cursor


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "SCRYPT_N", 1 << 10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path, "passphrase")
    yield store
    store.close()


def test_keys_come_back_the_newest_first_and_are_unreadable(store: Store, path: Path) -> None:
    keys = [IdentityKey.generate() for _ in range(3)]
    for key in keys:
        store.add_own_key(key, made_here=True)
    store.add_own_key(keys[0], made_here=False)
    store.close()
    assert not [key for key in keys if key.to_bytes() in path.read_bytes()]
    again = Store(path, "passphrase")
    found = [key.public for key in again.own_keys()]
    assert found == [keys[at].public for at in (0, 2, 1)]
    assert [again.was_made_here(key) for key in keys] == [False, True, True]
    again.close()


def test_another_passphrase_opens_nothing(store: Store, path: Path) -> None:
    store.close()
    with pytest.raises(WrongPassphrase):
        Store(path, "another")
    Store(path, "passphrase").close()


def test_two_cannot_have_it_open(store: Store, path: Path) -> None:
    with pytest.raises(StoreInUse):
        Store(path, "passphrase")


def test_it_belongs_to_one_user(store: Store) -> None:
    store.belongs_to("alice")
    store.belongs_to("alice")
    with pytest.raises(WrongUser) as refused:
        store.belongs_to("bob")
    assert refused.value.owner == "alice"


def test_a_pin_replaces_an_offer_and_old_ones_stay(store: Store) -> None:
    store.pin("bob", b"1" * 32)
    store.offer("bob", b"2" * 32)
    assert store.offered("bob") == (b"2" * 32,)
    store.pin("bob", b"2" * 32)
    assert (store.offered("bob"), store.pins("bob")) == (None, [b"2" * 32, b"1" * 32])
    store.pin("bob", b"1" * 32)
    assert store.pins("bob") == [b"1" * 32, b"2" * 32]


def test_a_chain_only_grows(store: Store) -> None:
    for n in (1, 3, 2):
        store.add_link("from", "bob", b"kid", Link(n, bytes([n])))
    assert store.link("from", "bob", b"kid") == Link(3, b"\3")
    assert store.link("to", "bob", b"kid") is None


def test_what_fails_leaves_nothing(store: Store) -> None:
    with suppress(RuntimeError), store.database.transaction():
        store.move_cursor(Cursor("e" * 16, 7))
        raise RuntimeError
    assert store.cursor is None


def test_what_is_lazy_is_written_by_the_next_commit(store: Store, path: Path) -> None:
    with store.database.lazily():
        store.add_link("from", "bob", b"kid", Link(1, b"1"))
    store.close()
    again = Store(path, "passphrase")
    assert again.link("from", "bob", b"kid") == Link(1, b"1")
    again.close()


def test_without_a_passphrase_the_system_keeps_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[tuple[str, str], str] = {}
    keyring = ModuleType("keyring")
    vars(keyring).update(
        get_password=lambda service, name: kept.get((service, name)),
        set_password=lambda service, name, value: kept.update({(service, name): value}),
    )
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    for _ in range(2):
        Store(path).close()
    (passphrase,) = kept.values()
    Store(path, passphrase).close()


def test_without_either_it_says_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(StoreError, match="keyring"):
        Store(path)


def test_no_repr_shows_a_secret(store: Store) -> None:
    store.add_own_key(IdentityKey.generate(), made_here=True)
    assert "passphrase" not in repr(store)


def test_a_position_waits_for_what_is_below() -> None:
    position = Position(4)
    assert not position.accepted(6)
    assert not position.accepted(8)
    position.pushed(5)
    assert position.seq == 6
    position.pushed(7)
    assert position.seq == 8
    assert not position.accepted(3)
    assert position.accepted(9)
    position.pushed(20)  # what lies between is no more
    assert position.seq == 20
