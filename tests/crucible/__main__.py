"""`python -m tests.crucible`: play a profile, write the report, and say whether it holds.

The exit status is 0 when nothing was violated, 1 when something was, 2 when it could not be played.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.crucible import picture, report
from tests.crucible.nemesis import FAULTS
from tests.crucible.profiles import PROFILES, Profile
from tests.crucible.trial import Trial, run

DATABASES = ("sqlite", "postgresql")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    asked = _parser().parse_args(arguments)
    folder = asked.out.resolve()  # A host would look for a relative path of SQLite elsewhere.
    seed = int(asked.seed) if asked.seed else secrets.randbits(32)
    print(f"seed {seed}", flush=True)
    profile = _profile(asked)
    trials = []
    for database in asked.database or _usual_databases(profile):
        trial = asyncio.run(run(profile, database, seed, folder / database))
        print(f"{database}: {len(trial.violations)} violations", flush=True)
        trials.append(trial)
    _write(trials, folder)
    return 1 if any(trial.violations for trial in trials) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.crucible", description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="smoke")
    parser.add_argument("--database", choices=DATABASES, action="append", help="default: both")
    parser.add_argument("--seed", default="", help="of schedule and traffic; default: a new one")
    parser.add_argument("--seconds", type=float, help="of traffic; default: the profile's")
    parser.add_argument("--users", type=int, help="default: the profile's")
    parser.add_argument("--rate", type=float, help="messages per second; default: the profile's")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only these faults")
    parser.add_argument("--out", type=Path, default=Path("build/crucible"))
    return parser


def _profile(asked: argparse.Namespace) -> Profile:
    profile = PROFILES[asked.profile]
    faults = None if asked.fault is None else tuple(asked.fault)
    changes = {
        "seconds": asked.seconds,
        "users": asked.users,
        "per_second": asked.rate,
        "faults": faults,
    }
    return replace(profile, **{name: given for name, given in changes.items() if given is not None})


def _usual_databases(profile: Profile) -> Sequence[str]:
    """A campaign is for what runs in production."""
    return DATABASES if profile.name == "smoke" else ("postgresql",)


def _write(trials: Sequence[Trial], folder: Path) -> None:
    page = report.write(trials)
    (folder / "report.md").write_text(page)
    (folder / "verdict.json").write_text(json.dumps(report.as_json(trials), indent=2))
    for trial in trials:
        (folder / f"timeline-{trial.database}.svg").write_text(picture.draw(trial))
    print(page)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (AssertionError, OSError) as error:
        print(f"it could not be played: {error}", file=sys.stderr)
        sys.exit(2)
