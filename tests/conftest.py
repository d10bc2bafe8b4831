"""What tests of several layers share: empty databases, on SQLite and on a real PostgreSQL, and a
real browser.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, create_engine

from tests import nginx
from tests.servers import PostgresServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for the session; it starts when a test first needs a database on it."""
    lazy = PostgresServer()
    yield lazy
    lazy.stop()


@pytest.fixture
def collector_as_before() -> Iterator[None]:
    """What a test has told Python's collector of garbage is over with it."""
    before = list(gc.callbacks)
    yield
    gc.callbacks[:] = before
    gc.unfreeze()


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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of a process."""
    from tests import chromium  # where nothing needs a browser, Playwright need not be there

    yield from chromium.launched()


def is_with_nginx(item: pytest.Item) -> bool:
    return "nginx" in item.path.stem


def is_with_chromium(item: pytest.Item) -> bool:
    return "browser" in getattr(item, "fixturenames", ())


# What a developer can leave out: the variable that asks for it, what it is, and which tests.
OPT_OUTS = [
    (nginx.OPT_OUT, "nginx", is_with_nginx),
    ("WITHOUT_CHROMIUM", "the browser client", is_with_chromium),
]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that a developer has asked to leave out; those with a browser come last.

    What drives the browser keeps an event loop running in its process, where no other test could
    run one, and a browser takes the processors from those that measure time.
    """
    items.sort(key=is_with_chromium)
    for variable, _, needs in OPT_OUTS:
        if variable in os.environ:
            left_out = [item for item in items if needs(item)]
            items[:] = [item for item in items if not needs(item)]
            config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was left out."""
    for variable, what, _ in OPT_OUTS:
        if variable in os.environ:
            text = f"NOT TESTED: {what}, because {variable} is set. A change needs a run with it."
            terminalreporter.write_line(text, red=True, bold=True)
