"""`flask e2emsg …`: what the commands do, and what they say when they cannot."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result
from flask import Flask
from flask_jwt_extended import JWTManager
from flask_migrate import Migrate, init
from flask_sqlalchemy import SQLAlchemy

from flask_e2emsg import E2EMessaging
from flask_e2emsg.protocol.values import now
from flask_e2emsg.store import models, schema
from flask_e2emsg.store.accounts import Party
from tests.store.process import Process

OWN_REVISION = """
revision = {revision!r}
down_revision = {down_revision!r}
def upgrade(): pass
def downgrade(): pass
"""


@pytest.fixture
def db() -> SQLAlchemy:
    return SQLAlchemy()


@pytest.fixture
def app(tmp_path: Path, db: SQLAlchemy) -> Iterator[Flask]:
    """A host without Flask-Migrate."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'host.sqlite'}"
    app.config["JWT_SECRET_KEY"] = "a secret of the tests, long enough"
    app.config["E2EMSG_RETENTION_DAYS"] = 30
    db.init_app(app)
    JWTManager(app)
    E2EMessaging().init_app(app, db)
    yield app
    app.extensions["e2emsg"].database.dispose()
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "history of the host"


@pytest.fixture
def migrating(app: Flask, db: SQLAlchemy, folder: Path) -> Flask:
    """The host with Flask-Migrate, but without a migrations folder."""
    Migrate(app, db, directory=str(folder))
    return app


@pytest.fixture
def versions(migrating: Flask, folder: Path) -> Path:
    """The folder of the host's revisions, still empty."""
    with migrating.app_context():
        init()
    return folder / "versions"


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=["e2emsg", *arguments])


def write_own(versions: Path, revision: str, after: str | None, more: str = "") -> None:
    text = OWN_REVISION.format(revision=revision, down_revision=after) + more
    (versions / f"{revision}.py").write_text(text)


def written(versions: Path) -> Path:
    [path] = versions.glob("*_messaging_tables.py")
    return path


class TestRevision:
    def test_it_calls_the_steps_and_follows_the_hosts_head(
        self, app: Flask, versions: Path
    ) -> None:
        write_own(versions, "first", None)
        write_own(versions, "second", "first")
        result = run(app, "revision")
        assert result.exit_code == 0
        assert "flask db upgrade" in result.output
        text = written(versions).read_text()
        assert "from flask_e2emsg.store import schema\n" in text
        assert "down_revision = 'second'\n" in text
        assert f"    schema.upgrade(op, since=0, to={schema.VERSION})\n" in text
        assert f"    schema.downgrade(op, since={schema.VERSION}, to=0)\n" in text

    def test_the_message_names_the_revision(self, app: Flask, versions: Path) -> None:
        assert run(app, "revision", "-m", "Chat for all").exit_code == 0
        [path] = versions.glob("*_chat_for_all.py")
        assert path.read_text().startswith('"""Chat for all\n')

    def test_the_second_time_there_is_nothing_to_do(self, app: Flask, versions: Path) -> None:
        run(app, "revision")
        write_own(versions, "later", written(versions).name.partition("_")[0])
        before = set(versions.iterdir())
        result = run(app, "revision")
        assert (result.exit_code, "Nothing to do" in result.output) == (0, True)
        assert set(versions.iterdir()) == before

    def test_it_goes_on_from_the_version_that_the_history_reaches(
        self, app: Flask, versions: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call = (
            "\nfrom flask_e2emsg.store import schema as s\ndef f(op): s.{}(op, since={}, to={})\n"
        )
        write_own(versions, "a", None, call.format("upgrade", 0, 1))
        write_own(versions, "b", "a", call.format("upgrade", 1, 3))
        write_own(versions, "c", "b", call.format("downgrade", 9, 8))
        monkeypatch.setattr(schema, "VERSION", 5)
        assert run(app, "revision").exit_code == 0
        text = written(versions).read_text()
        assert "schema.upgrade(op, since=3, to=5)" in text
        assert "schema.downgrade(op, since=5, to=3)" in text

    def test_a_host_of_several_databases_gets_the_tables_in_the_default_one(
        self, app: Flask, migrating: Flask, folder: Path
    ) -> None:
        app.config["SQLALCHEMY_BINDS"] = {"other": "sqlite://"}
        with migrating.app_context():
            init(multidb=True)
        assert run(app, "revision").exit_code == 0
        text = written(folder / "versions").read_text()
        assert f"def upgrade_():\n    schema.upgrade(op, since=0, to={schema.VERSION})\n" in text
        assert "def upgrade_other():\n    pass\n" in text


class TestNoRevision:
    """The command ends with 1, says what to do, and writes nothing."""

    def test_without_flask_migrate(self, app: Flask) -> None:
        result = run(app, "revision")
        assert result.exit_code == 1
        assert "Migrate(app, db)" in result.output
        assert "flask db init" in result.output

    def test_without_a_migrations_folder(self, migrating: Flask, folder: Path) -> None:
        result = run(migrating, "revision")
        assert result.exit_code == 1
        assert "flask db init" in result.output
        assert str(folder) in result.output
        assert not folder.exists()

    def test_with_several_heads(self, app: Flask, versions: Path) -> None:
        write_own(versions, "left", None)
        write_own(versions, "right", None)
        result = run(app, "revision")
        assert result.exit_code == 1
        assert "left, right" in result.output
        assert "flask db merge heads" in result.output
        assert not list(versions.glob("*messaging*"))

    def test_with_a_history_that_alembic_cannot_read(self, app: Flask, versions: Path) -> None:
        (versions / "notes.py").write_text("")
        result = run(app, "revision")
        assert result.exit_code == 1
        assert "Error: Could not determine revision id from filename notes.py" in result.output

    def test_where_autogenerate_has_made_the_tables(self, app: Flask, versions: Path) -> None:
        write_own(versions, "first", None, '\nTABLES = ["e2emsg_accounts"]\n')
        result = run(app, "revision")
        assert result.exit_code == 1
        assert "first" in result.output
        assert "flask db migrate" in result.output


class TestPurge:
    @pytest.fixture
    def store(self, app: Flask, db: SQLAlchemy) -> Iterator[Process]:
        with app.app_context():
            db.create_all()
            process = Process(db.engine)
        yield process
        process.database.dispose()

    def test_it_says_how_many_messages_went(self, app: Flask, store: Process) -> None:
        alice, bob = store.user("alice"), store.user("bob")
        expired, old, _ = (store.send(alice, bob) for _ in range(3))
        self.let_time_pass(store, bob, expired=expired, old=old)
        result = run(app, "purge")
        assert (result.exit_code, result.output) == (0, "Removed 2 messages.\n")
        assert store.count(models.messages) == 1

    def test_without_retention_only_what_expired_goes(self, app: Flask, store: Process) -> None:
        alice, bob = store.user("alice"), store.user("bob")
        expired, old = store.send(alice, bob), store.send(alice, bob)
        self.let_time_pass(store, bob, expired=expired, old=old)
        state = app.extensions["e2emsg"]
        state.settings = type(state.settings)()
        result = run(app, "purge")
        assert (result.exit_code, result.output) == (0, "Removed 1 message.\n")

    def test_without_tables_it_names_the_cure(self, app: Flask) -> None:
        result = run(app, "purge")
        assert result.exit_code == 1
        assert "flask db upgrade" in result.output

    def let_time_pass(self, store: Process, bob: Party, **which: object) -> None:
        """One message has expired, another was delivered beyond the retention."""
        store.ack(bob)
        for column, name in (("expires_at", "expired"), ("delivered_at", "old")):
            row = models.messages.c.id == which[name]
            long_ago = {column: now() - timedelta(days=31)}
            store.execute(sa.update(models.messages).where(row).values(long_ago))
