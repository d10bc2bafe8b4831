"""`flask e2emsg doctor`: each fault is named with its cure, and no secret is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result
from flask import Flask
from flask_jwt_extended import JWTManager
from flask_sqlalchemy import SQLAlchemy
from psycopg import sql
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection

from flask_e2emsg import E2EMessaging, doctor
from flask_e2emsg.durability import of_postgresql
from flask_e2emsg.store.notifications import NotificationChannel
from tests.servers import PostgresServer, RedisServer

SECRET = "a secret of these tests, long enough for HS256"

Host = Callable[..., Flask]


@pytest.fixture
def host(database_url: str) -> Iterator[Host]:
    """Makes hosts on the database, with all tables."""
    made: list[tuple[Flask, SQLAlchemy]] = []

    def make(**config: object) -> Flask:
        app, db = Flask("host"), SQLAlchemy()
        app.config.update(
            {"SQLALCHEMY_DATABASE_URI": database_url, "JWT_SECRET_KEY": SECRET, **config}
        )
        db.init_app(app)
        JWTManager(app)
        E2EMessaging().init_app(app, db)
        made.append((app, db))
        return app

    yield make
    for app, db in made:
        app.extensions["e2emsg"].database.dispose()
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def sound(host: Host) -> Flask:
    """A host with nothing wrong."""
    app = host()
    create_tables(app)
    return app


def create_tables(app: Flask) -> None:
    with app.app_context():
        app.extensions["sqlalchemy"].create_all()


def examine(app: Flask, *arguments: str) -> Result:
    result = app.test_cli_runner().invoke(args=["e2emsg", "doctor", *arguments])
    assert SECRET not in result.output
    return result


def problem(app: Flask, *arguments: str) -> str:
    """The one problem that is found."""
    result = examine(app, *arguments)
    problems = [line for line in result.output.splitlines() if line.startswith("PROBLEM: ")]
    assert (result.exit_code, len(problems)) == (1, 1), result.output
    return problems[0]


def test_a_sound_app_has_no_problem(sound: Flask) -> None:
    result = examine(sound, "--gunicorn", "python:flask_e2emsg.gunicorn")
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "No problems found.")


def test_missing_tables(host: Host) -> None:
    text = problem(host())
    assert "e2emsg_accounts" in text
    assert "flask db upgrade" in text


def test_tables_of_another_version(sound: Flask) -> None:
    with sound.app_context(), sound.extensions["sqlalchemy"].engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE e2emsg_events DROP COLUMN data"))
    text = problem(sound)
    assert "e2emsg_events is of another version" in text
    assert "flask e2emsg revision" in text


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestSQLite:
    def test_a_database_in_memory(self, host: Host) -> None:
        app = host(SQLALCHEMY_DATABASE_URI="sqlite://")
        create_tables(app)
        assert "in memory" in problem(app)

    def test_a_file_that_cannot_be_opened(self, host: Host, tmp_path: Path) -> None:
        text = problem(host(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'no' / 'folder'}"))
        assert "does not answer" in text

    def test_a_host_that_switches_synchronous_off(self, host: Host, sound: Flask) -> None:
        def be_fast(connection: DBAPIConnection, _record: object) -> None:
            connection.cursor().execute("PRAGMA synchronous = OFF")

        state = sound.extensions["e2emsg"]
        sa.event.listen(state.database._engine, "connect", be_fast)
        state.database.dispose()
        assert "synchronous" in problem(sound)

    def test_a_journal_that_cannot_be_wal(self, sound: Flask) -> None:
        engine = sound.extensions["e2emsg"].database._engine
        engine.dispose()
        sa.event.listen(engine, "connect", keep_a_rollback_journal)
        assert "journal_mode is delete" in problem(sound)


def keep_a_rollback_journal(connection: DBAPIConnection, _record: object) -> None:
    """As on a network drive that cannot share memory."""
    connection.cursor().execute("PRAGMA journal_mode = DELETE")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
class TestPostgreSQL:
    def test_a_database_that_does_not_answer(self, host: Host, database_url: str) -> None:
        url = make_url(database_url).set(database="no_such_database", password="hidden-password")
        text = problem(host(SQLALCHEMY_DATABASE_URI=url))
        assert "does not answer" in text
        assert "hidden-password" not in text

    def test_commits_that_do_not_wait_for_the_disk(
        self, sound: Flask, postgres: PostgresServer, database_url: str
    ) -> None:
        name = sql.Identifier(str(make_url(database_url).database))
        postgres.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))
        assert "synchronous_commit = off" in problem(sound)

    def test_a_driver_that_blocks(self, host: Host, sound: Flask, database_url: str) -> None:
        url = make_url(database_url).set(drivername="postgresql+psycopg2")
        assert "psycopg2" in problem(host(SQLALCHEMY_DATABASE_URI=url))


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_server_that_forgets(name: str) -> None:
    # The first two can only be switched for a whole server, and others use it.
    [text] = of_postgresql(lambda asked: "off" if asked == name else "on")
    assert text.startswith(f"PostgreSQL has {name} = off")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"JWT_SECRET_KEY": "x" * 31}, "JWT_SECRET_KEY is too short for HS256"),
        ({"JWT_SECRET_KEY": "x" * 63, "JWT_ALGORITHM": "HS512"}, "too short for HS512"),
        ({"JWT_ACCESS_TOKEN_EXPIRES": False}, "JWT_ACCESS_TOKEN_EXPIRES"),
        ({"JWT_TOKEN_LOCATION": ["headers", "query_string"]}, "query_string"),
        ({"E2EMSG_ALLOWED_ORIGINS": "*"}, "E2EMSG_ALLOWED_ORIGINS"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_bad_setting_is_named(
    host: Host, sound: Flask, config: dict[str, object], named: str
) -> None:
    assert named in problem(host(**config))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_debug_mode(sound: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert "Debug mode is on" in problem(sound)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestNotes:
    """What is worth a line, but no failure."""

    def test_no_blocklist(self, sound: Flask) -> None:
        assert "note: There is no token_in_blocklist_loader" in examine(sound).output

        jwt: JWTManager = sound.extensions["flask-jwt-extended"]
        jwt.token_in_blocklist_loader(lambda _header, _payload: False)
        assert "blocklist" not in examine(sound).output

    def test_several_processes(self, sound: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "workers:" not in examine(sound).output
        monkeypatch.setenv("WEB_CONCURRENCY", "3")
        result = examine(sound)
        assert (result.exit_code, "note: 3 workers:" in result.output) == (0, True)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_server_is_examined_with_the_app(sound: Flask, tmp_path: Path) -> None:
    path = tmp_path / "gunicorn.conf.py"
    path.write_text("from flask_e2emsg.gunicorn import *\nkeepalive = 0\n")
    assert "keepalive = 0" in problem(sound, "--gunicorn", str(path))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_pooler_that_passes_no_notifications_on(
    sound: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NotificationChannel, "publish", lambda *_: None)
    monkeypatch.setattr(doctor, "BUS_SECONDS", 0.1)
    assert "PostgreSQL is not heard" in problem(sound)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestRedis:
    def test_that_answers(self, host: Host, sound: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("flask_e2emsg.delivery.redis_channel.PUBLISH_SECONDS", 10.0)
        with RedisServer() as redis:
            assert examine(host(E2EMSG_BUS_URL=redis.url)).exit_code == 0

    def test_that_is_not_there(self, host: Host, sound: Flask) -> None:
        text = problem(host(E2EMSG_BUS_URL="redis://:letmein@127.0.0.1:1/0"))
        assert "through the Redis of E2EMSG_BUS_URL (ConnectionError)" in text
        assert "letmein" not in text
