"""Two gunicorns on one database, `server` and `other`; each module gives them `environment`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.canaries import text_after, watch
from tests.acceptance.client import SocketClient
from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People, Person
from tests.servers import GunicornServer, RedisServer

APP = "tests.acceptance.telling_host:create_app()"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture(scope="module")
def server(environment: dict[str, str], hosting: Hosting) -> Iterator[GunicornServer]:
    with GunicornServer(APP, env=environment, log_path=hosting.log_path()) as running:
        yield running


@pytest.fixture(scope="module")
def other(environment: dict[str, str], hosting: Hosting) -> Iterator[GunicornServer]:
    with GunicornServer(APP, env=environment, log_path=hosting.log_path()) as running:
        yield running


@pytest.fixture
def elsewhere(other: GunicornServer) -> Iterator[People]:
    """People on the other worker; who has the same id there is the same user."""
    before = other.log_path.stat().st_size
    with People(other) as crowd:
        yield crowd
    watch(other.log_path).check()
    assert "Traceback" not in text_after(other.log_path, before)


@pytest.fixture
def here(alice: Person) -> SocketClient:
    """Alice's socket on one worker."""
    return alice.connect()
