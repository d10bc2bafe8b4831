"""How large, how long and with which faults: smoke for every test run, campaign for a release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.crucible.client import Habits
from tests.crucible.nemesis import FAULTS, ON_POSTGRESQL, ON_SQLITE, Lengths
from tests.crucible.wallet import Trust

QUICK = Lengths(
    redis_killed=5.0,
    redis_stopped=5.0,
    frozen=5.0,
    slow=5.0,
    database_frozen=2.0,
    read_only=3.0,
    worker_stopped=3.0,
    clock_stepped=3.0,
    disk_full=3.0,
)
SMOKE_FAULTS = (
    *("kill_worker", "sighup", "reset_clients", "freeze_clients"),
    *("kill_redis", "end_backends", "swallow_answers"),
    *("clock_step", "disk_full"),
)


@dataclass(frozen=True)
class Profile:
    """One kind of run.

    Attributes:
        every: seconds from one fault to the next, on average.
        quiet: seconds without a fault at the end of the traffic.
    """

    name: str
    users: int
    per_second: float
    seconds: float
    every: float
    faults: Sequence[str]
    lengths: Lengths
    masters: int = 2
    contacts: int = 3
    quiet: float = 4.0
    habits: Habits = field(default_factory=Habits)
    settings: dict[str, Any] = field(default_factory=dict)

    def on(self, database: str) -> Profile:
        """What of it there is on a database: SQLite has one master, and nothing to talk to."""
        is_sqlite = database == "sqlite"
        strange = ON_POSTGRESQL if is_sqlite else ON_SQLITE
        faults = tuple(name for name in self.faults if name not in strange)
        return replace(self, masters=1 if is_sqlite else self.masters, faults=faults)


SMOKE = Profile(
    name="smoke",
    users=40,
    per_second=20.0,
    seconds=31.0,
    every=3.2,
    faults=SMOKE_FAULTS,
    lengths=QUICK,
    settings={"E2EMSG_MAX_IN_FLIGHT": 16, "E2EMSG_HEARTBEAT_SECONDS": 5},
)
CAMPAIGN = Profile(
    name="campaign",
    users=200,
    per_second=60.0,
    seconds=900.0,
    every=12.0,
    faults=tuple(FAULTS),
    lengths=Lengths(),
    contacts=6,
    quiet=15.0,
    habits=Habits(trust=Trust(short=0.1)),
    settings={"E2EMSG_MAX_IN_FLIGHT": 32, "E2EMSG_HEARTBEAT_SECONDS": 10},
)
PROFILES = {profile.name: profile for profile in (SMOKE, CAMPAIGN)}
