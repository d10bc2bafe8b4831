"""The registry under gevent: who comes while others go, and who stays while others churn."""

from __future__ import annotations

import pytest

from tests.servers import run_once

PATIENCE_SECONDS = 120.0


@pytest.mark.parametrize("seed", [1, 2])
def test_who_replaces_a_connection_still_receives(seed: int) -> None:
    play("replace", seed)


def test_who_stays_misses_nothing_while_others_come_and_go() -> None:
    play("churn", 1)


def play(game: str, seed: int) -> None:
    """One game of tests/delivery/greenlets.py in a process that gevent has patched."""
    script = ("gevent.monkey", "--module", "tests.delivery.greenlets", game, str(seed))
    run_once(*script, env={}, seconds=PATIENCE_SECONDS)
