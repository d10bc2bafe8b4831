"""Servers of the host with rules, and everybody who talks to them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Hosting, _quiet_log, alice, bob, carol, hosting, people
from tests.servers import GunicornServer, run_once

__all__ = ["_quiet_log", "alice", "bob", "carol", "hosting", "people"]

Serve = Callable[..., GunicornServer]


@pytest.fixture(scope="session")
def serve(hosting: Hosting) -> Serve:
    """Makes a gunicorn of the host with rules, on a fresh database, not yet started."""

    def make(database: str, workers: int = 1, **settings: object) -> GunicornServer:
        env = hosting.environment(database, **settings)
        run_once("tests.security.host", "create", env=env)
        log_path = hosting.log_path()
        return GunicornServer(
            "tests.security.host:create_app()", env=env, log_path=log_path, workers=workers
        )

    return make
