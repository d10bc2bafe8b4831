"""A stepped clock shows in whatever way the time is asked for, and not in the monotonic clock."""

from __future__ import annotations

import subprocess
import sys

from tests.servers import REPOSITORY

# In a process of its own: what is replaced everywhere cannot be put back.
SCRIPT = """
import time
from datetime import UTC, datetime
from time import time as taken
import jwt
import msgspec
from flask_e2emsg.protocol.values import now
from tests import stepped_clock

step, true, monotonic = 0.0, time.time(), time.monotonic()
stepped_clock.install(lambda: step)
token = jwt.encode({"exp": datetime.now(UTC)}, "k" * 32)
for step in (-3600.0, 3600.0):
    shown = (time.time(), taken(), time.time_ns() / 1e9, now().timestamp(),
        datetime.now(UTC).timestamp(), datetime.now().timestamp(), datetime.utcnow().replace(
        tzinfo=UTC).timestamp())
    assert all(abs(one - true - step) < 60 for one in shown), (true, step, shown)
    assert time.monotonic() - monotonic < 60
    assert isinstance(now(), datetime)
    assert msgspec.json.encode(now())
step = -3600.0
jwt.decode(token, "k" * 32, algorithms=["HS256"])
"""


def test_a_stepped_clock_is_seen_by_all_but_the_monotonic_one() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], cwd=REPOSITORY, check=True)
