"""The smoke profile: a short crucible on each database, in every run of the tests."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

import pytest

from tests.crucible.figures import counts, effects
from tests.crucible.profiles import SMOKE
from tests.crucible.trial import run

FIRST_ACK_SECONDS = 10.0  # the aim is far less, on a machine that does nothing else


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_faults_under_load_violate_nothing(database: str, tmp_path: Path) -> None:
    """CRUCIBLE_SEED=<seed> injects the same faults again."""
    if database == "postgresql" and "TEST_DATABASE_URL" in os.environ:
        pytest.skip("TEST_DATABASE_URL names a server that is not ours to put under faults")
    seed = int(os.environ.get("CRUCIBLE_SEED") or secrets.randbits(32))
    trial = asyncio.run(run(SMOKE, database, seed, tmp_path))
    story = "\n".join(str(one) for one in trial.violations[:20])
    assert not trial.violations, f"CRUCIBLE_SEED={seed}\n{story}"
    injected = {fault.name for fault in trial.evidence.faults}
    assert injected == set(trial.profile.faults), f"CRUCIBLE_SEED={seed}"
    for fault in trial.evidence.faults:
        assert fault.detail != "0 refusals", f"CRUCIBLE_SEED={seed}: nobody felt {fault}"
    counted = counts(trial.evidence)
    assert counted["of these by `send_many`"] > 0, f"CRUCIBLE_SEED={seed}"
    assert trial.written > 0.5 * SMOKE.per_second * SMOKE.seconds, f"CRUCIBLE_SEED={seed}"
    assert counted["messages accepted"] > 0.8 * trial.written, f"CRUCIBLE_SEED={seed}"
    for effect in effects(trial.evidence, trial.violations):
        waited = effect.first_ack or 0.0  # Nothing may have been written after the last one.
        assert waited < FIRST_ACK_SECONDS, f"CRUCIBLE_SEED={seed}: {effect}"
