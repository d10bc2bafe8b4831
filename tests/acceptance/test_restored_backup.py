"""Yesterday's backup is restored: every client is told to start anew, and gets what there is.

docs/protocol.md 3 `hello`, and `flask e2emsg restored`.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People
from tests.servers import REPOSITORY, GunicornServer


@pytest.fixture
def environment(hosting: Hosting) -> dict[str, str]:
    return hosting.environment("sqlite")


@pytest.fixture
def server(environment: dict[str, str], hosting: Hosting) -> Iterator[GunicornServer]:
    with GunicornServer(env=environment, log_path=hosting.log_path()) as running:
        yield running


def test_a_cursor_of_lost_time_is_reset_even_when_the_mailbox_has_grown_past_it(
    server: GunicornServer, environment: dict[str, str], tmp_path: Path, people: People
) -> None:
    alice, bob = people.new("alice").enrol(), people.new("bob").enrol()
    here, there = alice.connect(), bob.connect()
    kept = here.store(bob.id)
    there.expect("message", id=kept["id"])
    database = Path(environment["DATABASE_URL"].removeprefix("sqlite:///"))
    backup = tmp_path / "backup.sqlite"
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    lost = here.store(bob.id)
    there.expect("message", id=lost["id"])
    cursor = there.cursor
    server.stop()
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    shutil.copy(backup, database)
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "tests.acceptance.host", "e2emsg", "restored"],
        cwd=REPOSITORY,
        env=dict(server.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2 mailboxes have a new epoch.\n"
    server.start()
    people.abandon_the_lost()
    here = alice.reconnect()
    later = [here.store(bob.id)["id"] for _ in range(3)]
    # The mailbox now reaches beyond the cursor, and holds other messages there.
    there = bob.reconnect(cursor)
    assert there.hello["reset"] is True
    assert [frame["id"] for frame in there.entries(4)] == [kept["id"], *later]
