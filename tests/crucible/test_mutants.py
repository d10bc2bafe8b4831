"""Every planted fault still fits the package: its places are there, and Python reads the result."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.crucible.checker import INVARIANTS
from tests.crucible.mutants.planted import MUTANTS, Mutant
from tests.crucible.nemesis import FAULTS
from tests.servers import REPOSITORY


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_can_be_planted(mutant: Mutant, tmp_path: Path) -> None:
    package = tmp_path / "flask_e2emsg"
    shutil.copytree(REPOSITORY / "flask_e2emsg", package)
    for replacement in mutant.replacements:
        replacement.apply(package)
        path = package / replacement.file
        compile(path.read_text(), str(path), "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_names_faults_and_invariants_that_there_are(mutant: Mutant) -> None:
    assert set(mutant.faults) <= FAULTS.keys()
    assert mutant.caught_by
    assert mutant.caught_by <= INVARIANTS.keys()
