"""Backups of identity keys, as several workers see them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_e2emsg.errors import NoBackup, VersionConflict
from flask_e2emsg.store.accounts import Party
from flask_e2emsg.store.backups import Backups
from flask_e2emsg.store.models import key_backups
from tests.store.process import Process


@pytest.fixture
def backups(store: Process) -> Backups:
    return Backups(store.database)


def test_two_workers_cannot_both_write_the_first_one(
    backups: Backups, another_process: Callable[[], Process], alice: Party
) -> None:
    assert backups.put(alice, b"one", 0).version == 1
    with pytest.raises(VersionConflict) as refused:
        Backups(another_process().database).put(alice, b"two", 0)
    assert refused.value.members == {"version": 1}
    assert backups.get(alice).blob == b"one"


def test_a_change_is_of_one_user(backups: Backups, alice: Party, bob: Party) -> None:
    backups.put(alice, b"hers", 0)
    backups.put(bob, b"his", 0)
    backups.put(bob, b"his new one", 1)
    backups.delete(bob)
    assert backups.get(alice).blob == b"hers"
    with pytest.raises(NoBackup):
        backups.get(bob)


def test_it_goes_with_its_account(store: Process, backups: Backups, alice: Party) -> None:
    backups.put(alice, b"hers", 0)
    store.accounts.delete("alice")
    assert store.count(key_backups) == 0


def test_no_repr_shows_it(backups: Backups, alice: Party) -> None:
    backups.put(alice, b"canary", 0)
    assert "canary" not in repr(backups.get(alice))
