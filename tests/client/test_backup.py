"""Recovery codes are random, and a backup opens with its own code for its own user alone."""

from __future__ import annotations

import pytest

from flask_e2emsg.client.backup import format_code, new_code, open_backup, parse_code, seal_backup
from flask_e2emsg.client.errors import CannotRestore, Mistyped, WrongCode
from flask_e2emsg.client.keys import IdentityKey

KEY, CODE = IdentityKey.generate(), new_code()
BLOB = seal_backup(KEY, "alice", CODE, 1)


def test_codes_are_fresh_and_have_seven_groups() -> None:
    codes = {new_code() for _ in range(100)}
    assert len(codes) == 100
    assert {len(code.split("-")) for code in codes} == {7}


def test_a_backup_opens_with_its_code() -> None:
    assert open_backup(BLOB, "alice", CODE.lower()).public == KEY.public


def test_a_backup_is_of_one_user() -> None:
    with pytest.raises(WrongCode):
        open_backup(BLOB, "bob", CODE)


def test_another_code_does_not_open_it() -> None:
    with pytest.raises(WrongCode):
        open_backup(BLOB, "alice", new_code())


def test_every_byte_that_is_changed_is_noticed() -> None:
    for at in range(len(BLOB)):
        with pytest.raises(WrongCode):
            open_backup(BLOB[:at] + bytes([BLOB[at] ^ 1]) + BLOB[at + 1 :], "alice", CODE)


@pytest.mark.parametrize("length", [0, 1, 13, 28])
def test_a_backup_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(WrongCode):
        open_backup(BLOB[:length], "alice", CODE)


def test_a_letter_off_is_a_slip_and_tells_no_code() -> None:
    code = format_code(bytes(range(16)))
    slips = [code[:at] + letter + code[at + 1 :] for at in (0, 6, 33) for letter in "37"]
    for slip in slips:
        with pytest.raises(Mistyped) as refused:
            parse_code(slip)
        assert slip not in str(refused.value)


def test_every_failure_is_one_that_a_user_can_be_told() -> None:
    assert issubclass(Mistyped, CannotRestore)
    assert issubclass(WrongCode, CannotRestore)
