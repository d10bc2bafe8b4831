"""Databases for the tests of every layer: empty ones, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from tests.nginx import OPT_OUT
from tests.servers import PostgresServer

DATABASES = ("sqlite", "postgresql")
WITHOUT_CHROMIUM = "WITHOUT_CHROMIUM"
BROWSER = Path(__file__).parent / "browser"


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


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave the tests in a browser out where a developer has asked for it.

    They are not even imported: who has no browser need not have what drives it.
    """
    return True if WITHOUT_CHROMIUM in os.environ and collection_path == BROWSER else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests with nginx out where a developer has asked for it."""
    if OPT_OUT in os.environ:
        left_out = [item for item in items if "nginx" in item.path.stem]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was left out."""
    for name, what in ((OPT_OUT, "nginx"), (WITHOUT_CHROMIUM, "the browser client")):
        if name in os.environ:
            text = f"NOT TESTED: {what}, because {name} is set. A change needs a run with it."
            terminalreporter.write_line(text, red=True, bold=True)
