"""The example app on a real gunicorn, and people who use its chat in a real Chromium."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.example_app.people import Crowd, Person
from tests.servers import GunicornServer, run_once

NUMBERS = itertools.count(1)
# It tells of changed keys at once, as hosts do whose clients all send envelopes.
APP = "example_app:create_app()"
SECRET = "a secret of the chat's tests, long enough"


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the server's database."""
    return tmp_path_factory.mktemp("chat") / "database.sqlite"


@pytest.fixture(scope="session")
def server(database: Path) -> Iterator[GunicornServer]:
    env = {"DATABASE_URL": f"sqlite:///{database}", "JWT_SECRET_KEY": SECRET}
    run_once("flask", "--app", "example_app", "db", "upgrade", env=env)
    log_path = database.with_name("server.log")
    with GunicornServer(APP, env=env, log_path=log_path) as running:
        yield running


@pytest.fixture
def crowd(browser: Browser, server: GunicornServer) -> Iterator[Crowd]:
    """Makes browsers for people; at the end no page has broken its policy, or thrown."""
    with Crowd(browser, server.url) as made:
        yield made


@pytest.fixture
def register(crowd: Crowd) -> Callable[[str], Person]:
    """Somebody of this test only, registered in a browser of their own."""

    def registered(name: str) -> Person:
        person = crowd.person(f"{name}{next(NUMBERS)}")
        person.register()
        return person

    return registered


@pytest.fixture
def ada(register: Callable[[str], Person]) -> Person:
    return register("ada")


@pytest.fixture
def ben(register: Callable[[str], Person]) -> Person:
    return register("ben")
