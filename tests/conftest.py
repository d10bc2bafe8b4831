"""Databases for the tests of every layer: empty ones, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from tests.servers import PostgresServer

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for the session; it starts when a test first needs a database on it."""
    lazy = PostgresServer()
    yield lazy
    lazy.stop()


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer) -> str:
    """A fresh, empty database of each kind."""
    if request.param == "postgresql":
        return postgres.create_database()
    return f"sqlite:///{tmp_path / 'database.sqlite'}"


@pytest.fixture
def connect_to() -> Iterator[Callable[[str], Engine]]:
    """Makes engines and closes their connections at the end."""
    engines: list[Engine] = []

    def make(url: str) -> Engine:
        engines.append(create_engine(url))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(database_url: str, connect_to: Callable[[str], Engine]) -> Engine:
    """The engine of a host on a fresh, empty database."""
    return connect_to(database_url)
