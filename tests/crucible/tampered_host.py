"""The host that the crucible serves: with a window inside, a clock that jumps, a disk that fills.

`tests.crucible.tampered_host:create_app()`; `CRUCIBLE_LEVERS` names the file of the levers.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.pool import Pool

from tests import stepped_clock
from tests.acceptance import inside
from tests.crucible.levers import VARIABLE, Levers

NO_LIMIT = 1_073_741_823  # pages, which every version of SQLite takes
_LIMIT = "crucible_most_pages"


def create_app() -> Flask:
    """The acceptance host, whose clock and disk obey the levers."""
    levers = Levers(Path(os.environ[VARIABLE]))
    stepped_clock.install(lambda: levers.step_seconds)

    # The limit belongs to a connection, and the host and the extension have pools of their own.
    def limit(connection: Any, record: Any, _proxy: Any) -> None:
        wanted = levers.most_pages or NO_LIMIT
        if isinstance(connection, sqlite3.Connection) and record.info.get(_LIMIT) != wanted:
            connection.execute(f"PRAGMA max_page_count = {wanted}").close()
            record.info[_LIMIT] = wanted

    sa.event.listen(Pool, "checkout", limit)
    return inside.create_app()
