"""A store with its tables made, and the people who write to each other in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from flask_e2emsg.store.accounts import Party
from flask_e2emsg.store.models import Base
from tests.conftest import DATABASES
from tests.servers import PostgresServer
from tests.store.process import Process


@pytest.fixture(scope="session")
def postgres_with_tables(postgres: PostgresServer) -> str:
    """One database for all tests that only need its tables empty: much quicker than a new one."""
    url = postgres.create_database()
    _on_engine(url, Base.metadata.create_all)
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database with empty tables."""
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    _on_engine(url, Base.metadata.create_all)
    return url


@pytest.fixture
def postgresql_url(postgres_with_tables: str) -> str:
    """A PostgreSQL database with empty tables."""
    _on_engine(postgres_with_tables, _empty_tables)
    return postgres_with_tables


@pytest.fixture(params=DATABASES)
def store_url(request: pytest.FixtureRequest) -> str:
    """A database of each kind with empty tables."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def _on_engine(url: str, work: Callable[[Engine], None]) -> None:
    engine = sa.create_engine(url)
    work(engine)
    engine.dispose()


def _empty_tables(engine: Engine) -> None:
    with engine.begin() as connection:
        # TRUNCATE would make new files each time, which the server has to bring to disk.
        for table in Base.metadata.sorted_tables:
            connection.execute(sa.delete(table))


@pytest.fixture
def another_process(
    store_url: str, connect_to: Callable[[str], Engine]
) -> Iterator[Callable[[], Process]]:
    """Makes what each further process of the app has: a pool and a memory of its own."""
    processes: list[Process] = []

    def make() -> Process:
        processes.append(Process(connect_to(store_url)))
        return processes[-1]

    yield make
    for process in processes:
        process.database.dispose()


@pytest.fixture
def store(another_process: Callable[[], Process]) -> Process:
    return another_process()


@pytest.fixture
def alice(store: Process) -> Party:
    return store.user("alice")


@pytest.fixture
def bob(store: Process) -> Party:
    return store.user("bob")


@pytest.fixture
def carol(store: Process) -> Party:
    return store.user("carol")
