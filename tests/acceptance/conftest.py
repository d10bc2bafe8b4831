"""Servers and people for the acceptance tests.

`server` is one gunicorn for all tests of a database; a module that needs other settings, or kills
its server, has a `server` of its own made by `hosting`. Everything else builds on `server`.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.acceptance.canaries import check_all, text_after, watch
from tests.acceptance.people import People, Person
from tests.servers import GunicornServer, PostgresServer, WebServer, run_once

DATABASES = ("sqlite", "postgresql")
# Everything is logged, and searched for secrets; gunicorn's own format has the query in it.
LOUD = {"LOG_LEVEL": "DEBUG", "GUNICORN_CMD_ARGS": "--access-logfile=- --log-level=debug"}
JWT_SECRET_KEY = "acceptance-tests-only-" + "0123456789abcdef" * 4


HOST = "tests.acceptance.host"


class Hosting:
    """Fresh databases, and the environment of a host application on them.

    `python -m <host> create` makes the host's tables in a database, which is then copied.
    """

    def __init__(self, folder: Path, postgres: PostgresServer, host: str = HOST) -> None:
        self._folder = folder
        self._postgres = postgres
        self._host = host
        self._numbers = itertools.count(1)
        self._originals: dict[str, str] = {}

    def environment(self, database: str, **settings: object) -> dict[str, str]:
        """Make a database with the host's tables in it; the environment to serve it with.

        Settings are `E2EMSG_…` and `SQLALCHEMY_…` keys of the host's configuration.
        """
        env = self._environment(self._new_url(database, self._original(database)))
        env.update({name: json.dumps(value) for name, value in settings.items()})
        return env

    def log_path(self) -> Path:
        """Where the next server writes its log, which is watched for secrets."""
        return watch(self._folder / f"server-{next(self._numbers)}.log").path

    def gunicorn(self, database: str, **settings: object) -> GunicornServer:
        """A gevent worker on a fresh database: not yet started, use it in a `with`."""
        env = self.environment(database, **settings)
        return GunicornServer(env=env, log_path=self.log_path())

    def configuration(self, *lines: str) -> Path:
        """A gunicorn.conf.py with the settings that ship with the extension, and these lines."""
        path = self._folder / f"gunicorn-{next(self._numbers)}.conf.py"
        path.write_text("\n".join(["from flask_e2emsg.gunicorn import *", *lines, ""]))
        return path

    def _original(self, database: str) -> str:
        """The URL of a database that has the host's tables, and nothing in them, to be copied."""
        if database not in self._originals:
            url = self._new_url(database)
            run_once(self._host, "create", env=self._environment(url))
            self._originals[database] = url
        return self._originals[database]

    def _new_url(self, database: str, original: str = "") -> str:
        if database == "postgresql":
            return self._postgres.create_database(original)
        path = self._folder / f"database-{next(self._numbers)}.sqlite"
        if original:
            shutil.copyfile(str(make_url(original).database), path)
        return f"sqlite:///{path}"

    def _environment(self, url: str) -> dict[str, str]:
        return {"DATABASE_URL": url, "JWT_SECRET_KEY": JWT_SECRET_KEY, **LOUD}


@pytest.fixture(scope="session")
def hosting(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosting]:
    yield Hosting(tmp_path_factory.mktemp("hosting"), postgres)
    check_all()  # What servers wrote when no test was looking, and when they stopped.


@pytest.fixture(scope="session", params=DATABASES)
def server(request: pytest.FixtureRequest, hosting: Hosting) -> Iterator[WebServer]:
    """A gunicorn with one gevent worker and default settings, on each database."""
    with hosting.gunicorn(request.param) as running:
        yield running


@pytest.fixture(autouse=True)
def _quiet_log(server: WebServer) -> Iterator[None]:
    """No test may leave a traceback or a secret in the server's log."""
    before = server.log_path.stat().st_size
    yield
    watch(server.log_path).check()
    written = text_after(server.log_path, before)
    assert "Traceback" not in written, written[-4000:]


@pytest.fixture
def people(server: WebServer, _quiet_log: None) -> Iterator[People]:
    with People(server) as crowd:
        yield crowd


@pytest.fixture
def alice(people: People) -> Person:
    return people.new("alice").enrol()


@pytest.fixture
def bob(people: People) -> Person:
    return people.new("bob").enrol()


@pytest.fixture
def carol(people: People) -> Person:
    return people.new("carol").enrol()
