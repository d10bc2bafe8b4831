"""Servers of the host with rules, and everybody who talks to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.canaries import check_all
from tests.acceptance.conftest import Hosting, _quiet_log, alice, bob, carol, people
from tests.servers import GunicornServer, PostgresServer

__all__ = ["_quiet_log", "alice", "bob", "carol", "people"]

Serve = Callable[..., GunicornServer]


@pytest.fixture(scope="session")
def hosting(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosting]:
    yield Hosting(tmp_path_factory.mktemp("hosting"), postgres, "tests.security.host")
    check_all()


@pytest.fixture(scope="session")
def serve(hosting: Hosting) -> Serve:
    """Makes a gunicorn of the host with rules, on a fresh database, not yet started."""

    def make(database: str, workers: int = 1, **settings: object) -> GunicornServer:
        env = hosting.environment(database, **settings)
        log_path = hosting.log_path()
        return GunicornServer(
            "tests.security.host:create_app()", env=env, log_path=log_path, workers=workers
        )

    return make
