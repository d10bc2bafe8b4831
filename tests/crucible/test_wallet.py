"""What a client expects of its tokens."""

from __future__ import annotations

import itertools
import random

from tests.crucible.wallet import Trust, Wallet


def wallet(trust: Trust) -> Wallet:
    numbers = itertools.count()
    return Wallet("ann", lambda *_: f"token {next(numbers)}", trust, random.Random(1))


def test_the_usual_token_is_good_until_it_is_to_be_revoked() -> None:
    ours = wallet(Trust(bad=0.0))
    token = ours.choose()
    assert ours.choose() == token
    assert ours.is_good(token)
    assert ours.drop() == token
    assert not ours.is_good(token)
    assert ours.what_is_wrong(token) is None  # Whoever was asked has not answered yet.
    assert ours.choose() != token


def test_a_revoked_token_is_tried_again() -> None:
    ours = wallet(Trust(bad=1.0))
    ours.note_revoked("revoked")
    assert "revoked" in {ours.choose() for _ in range(20)}
    assert ours.what_is_wrong("revoked") == "a revoked token"


def test_nothing_is_expected_of_a_short_token() -> None:
    ours = wallet(Trust(bad=0.0, short=1.0))
    token = ours.choose()
    assert not ours.is_good(token)
    assert ours.what_is_wrong(token) is None
