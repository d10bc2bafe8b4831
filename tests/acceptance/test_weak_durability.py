"""A database that forgets what it has committed: the log says so, and a strict host takes nothing.

docs/integration.md, `The database`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from tests.acceptance.conftest import Hosting
from tests.acceptance.outbox import read_all
from tests.acceptance.people import People, Person
from tests.acceptance.refusals import refused, status_of_post
from tests.acceptance.sqlite_host import SQLITE_HOST
from tests.acceptance.wire import new_content, new_id
from tests.servers import GunicornServer, PostgresServer, wait_until

LOG_SECONDS = 10.0
STRICT: dict[str, object] = {"E2EMSG_REQUIRE_DURABILITY": True}
LOST = "loses messages that were accepted"
Environment = dict[str, str]


def sound(_env: Environment) -> Environment:
    return {}


def weak_for_the_database(env: Environment) -> Environment:
    _alter(env, "ALTER DATABASE {database} SET synchronous_commit = off")
    return {}


def weak_for_the_role(env: Environment) -> Environment:
    _alter(env, "ALTER ROLE {role} IN DATABASE {database} SET synchronous_commit = off")
    return {}


def weak_for_the_connection(env: Environment) -> Environment:
    url = make_url(env["DATABASE_URL"]).update_query_dict({"options": "-csynchronous_commit=off"})
    return {"DATABASE_URL": url.render_as_string(hide_password=False)}


def weak_in_sqlite(_env: Environment) -> Environment:
    return {"SQLITE_PRAGMAS": json.dumps({"synchronous": "NORMAL"})}


def _alter(env: Environment, statement: str) -> None:
    url = env["DATABASE_URL"].replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(url, autocommit=True) as admin:
        names = {"database": admin.info.dbname, "role": admin.info.user}
        identifiers = {name: sql.Identifier(value) for name, value in names.items()}
        admin.execute(sql.SQL(statement).format(**identifiers))


WEAKENINGS: dict[str, tuple[str, Callable[[Environment], Environment]]] = {
    "database": ("postgresql", weak_for_the_database),
    "role": ("postgresql", weak_for_the_role),
    "connection": ("postgresql", weak_for_the_connection),
    "sqlite": ("sqlite", weak_in_sqlite),
}


class Servers:
    """Starts gunicorns with the settings that ship with the extension."""

    def __init__(self, hosting: Hosting, stack: ExitStack) -> None:
        self._hosting = hosting
        self._stack = stack

    def start(
        self,
        database: str,
        weaken: Callable[[Environment], Environment],
        settings: dict[str, object],
    ) -> GunicornServer:
        env = self._hosting.environment(database, **settings)
        server = GunicornServer(
            SQLITE_HOST,
            env={**env, **weaken(env)},
            log_path=self._hosting.log_path(),
            config=self._hosting.configuration(),
        )
        return self._stack.enter_context(server)

    def two_people(self, server: GunicornServer) -> tuple[Person, Person]:
        people = self._stack.enter_context(People(server))
        return people.new("alice").enrol(), people.new("bob").enrol()


@pytest.fixture
def servers(hosting: Hosting) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(hosting, stack)


@pytest.fixture(autouse=True)
def _quiet_log() -> None:
    """Each test reads the log of its own server."""


def lines_about_losses(server: GunicornServer) -> list[str]:
    return [line for line in server.log().splitlines() if "flask_e2emsg.durability" in line]


def wait_for_the_line(server: GunicornServer) -> str:
    wait_until(lambda: bool(lines_about_losses(server)), LOG_SECONDS, lambda: server.log()[-2000:])
    [line] = lines_about_losses(server)
    return line


@pytest.mark.parametrize("where", WEAKENINGS)
def test_the_log_warns_at_the_start_and_once(servers: Servers, where: str) -> None:
    server = servers.start(*WEAKENINGS[where], {})
    line = wait_for_the_line(server)
    assert line.startswith("WARNING:")
    assert LOST in line
    alice, bob = servers.two_people(server)
    stored = [alice.connect().store(bob.id)["id"] for _ in range(2)]
    assert [frame["id"] for frame in read_all(bob)] == stored
    assert lines_about_losses(server) == [line]


@pytest.mark.parametrize("where", WEAKENINGS)
def test_a_strict_host_takes_nothing_and_says_why(servers: Servers, where: str) -> None:
    server = servers.start(*WEAKENINGS[where], STRICT)
    line = wait_for_the_line(server)
    assert line.startswith("ERROR:")
    assert "E2EMSG_REQUIRE_DURABILITY" in line
    assert LOST in line
    alice, bob = servers.two_people(server)
    refused(alice.connect(), bob.id)
    body = {"id": new_id(), "to": bob.id, "encrypted_content": new_content()}
    assert status_of_post(alice, body) == 503
    assert read_all(bob) == []


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_strict_host_with_a_sound_database_takes_messages(
    servers: Servers, database: str
) -> None:
    server = servers.start(database, sound, STRICT)
    alice, bob = servers.two_people(server)
    stored = alice.connect().store(bob.id)
    assert [frame["id"] for frame in read_all(bob)] == [stored["id"]]
    assert lines_about_losses(server) == []


def test_a_server_that_does_not_wait_for_its_disk_at_all(
    hosting: Hosting, tmp_path_factory: pytest.TempPathFactory
) -> None:
    careless = PostgresServer()
    if not careless.is_ours:
        pytest.skip("TEST_DATABASE_URL names a server whose settings are not ours")
    with ExitStack() as stack:
        stack.callback(careless.stop)
        careless.execute(sql.SQL("ALTER SYSTEM SET fsync = off").format())
        careless.execute(sql.SQL("SELECT pg_reload_conf()").format())
        folder = tmp_path_factory.mktemp("careless")
        servers = Servers(Hosting(folder, careless), stack)
        server = servers.start("postgresql", sound, STRICT)
        assert "fsync = off" in wait_for_the_line(server)
        alice, bob = servers.two_people(server)
        refused(alice.connect(), bob.id)
