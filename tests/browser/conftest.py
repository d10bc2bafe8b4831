"""A real Chromium, and a real gunicorn that serves the client's modules and the API."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.acceptance.conftest import JWT_SECRET_KEY
from tests.browser.tabs import Devices, Tab
from tests.servers import GunicornServer, run_once


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the server's database."""
    return tmp_path_factory.mktemp("browser") / "database.sqlite"


@pytest.fixture(scope="session")
def server(database: Path) -> Iterator[GunicornServer]:
    """One gevent worker on SQLite."""
    with serving(f"sqlite:///{database}", database.with_name("server.log")) as running:
        yield running


def serving(database_url: str, log_path: Path) -> GunicornServer:
    """A server that checks envelopes, with the page, on an empty database; not yet started."""
    env = {
        "DATABASE_URL": database_url,
        "JWT_SECRET_KEY": JWT_SECRET_KEY,
        "E2EMSG_CHECK_ENVELOPES": "true",
    }
    run_once("tests.acceptance.host", "create", env=env)
    return GunicornServer("tests.browser.host:create_app()", env=env, log_path=log_path)


@pytest.fixture
def devices(browser: Browser, server: GunicornServer) -> Iterator[Devices]:
    with Devices(browser, server) as made:
        yield made


NUMBERS = itertools.count(1)


@pytest.fixture
def alice(devices: Devices) -> Tab:
    """A user of this test only, her client open."""
    return opened(devices, "alice")


@pytest.fixture
def bob(devices: Devices) -> Tab:
    return opened(devices, "bob")


def opened(devices: Devices, name: str) -> Tab:
    tab = devices.new(f"{name}-{next(NUMBERS)}")
    assert tab.start() == "ready"
    return tab
