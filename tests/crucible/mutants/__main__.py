"""`python -m tests.crucible.mutants`: plant each fault in a copy, and see whether it is caught.

A mutant is killed when the crucible ends with violations of an invariant that is named for it. The
exit status is 0 when all are killed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.crucible.mutants.planted import MUTANTS, NOT_PLANTED, Mutant
from tests.servers import REPOSITORY

COPIED = ("flask_e2emsg", "tests", "pyproject.toml")
RUN_SECONDS = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.crucible.mutants", description=__doc__)
    names = [mutant.name for mutant in MUTANTS]
    parser.add_argument("--only", choices=names, action="append", help="default: all")
    parser.add_argument("--seed", default="1", help="of each run")
    asked = parser.parse_args(arguments)
    survivors = []
    for mutant in MUTANTS:
        if asked.only is None or mutant.name in asked.only:
            verdict = _try(mutant, asked.seed)
            print(f"{mutant.name}: {verdict}", flush=True)
            if not verdict.startswith("killed"):
                survivors.append(mutant.name)
    print(f"not planted: {', '.join(NOT_PLANTED)}")
    print(f"survived: {', '.join(survivors) or 'none'}")
    return 1 if survivors else 0


def _try(mutant: Mutant, seed: str) -> str:
    with tempfile.TemporaryDirectory(prefix="crucible-") as name:
        folder = Path(name)
        _copy(folder)
        for replacement in mutant.replacements:
            replacement.apply(folder / "flask_e2emsg")
        return _play(mutant, seed, folder)


def _copy(folder: Path) -> None:
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)


def _play(mutant: Mutant, seed: str, folder: Path) -> str:
    command = [sys.executable, "-m", "tests.crucible", "--profile=smoke", f"--seed={seed}"]
    command += [f"--database={mutant.database}", f"--seconds={mutant.seconds}", "--out=out"]
    command += [f"--users={mutant.users}", f"--rate={mutant.rate}"]
    command += [f"--fault={fault}" for fault in mutant.faults]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    if done.returncode not in (0, 1):
        return f"could not be played\n{done.stderr[-2000:]}"
    [trial] = json.loads((folder / "out" / "verdict.json").read_text())["trials"]
    found: dict[str, int] = trial["invariants"]
    shown = ", ".join(f"{name} {count}" for name, count in found.items()) or "nothing"
    is_killed = bool(mutant.caught_by & found.keys())
    return f"{'killed' if is_killed else 'survived'} ({shown})"


if __name__ == "__main__":
    sys.exit(main())
