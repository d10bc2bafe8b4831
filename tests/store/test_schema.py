"""The versioned steps make the tables that the models describe, in any host's history."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, Engine

from flask_e2emsg.store import schema
from flask_e2emsg.store.models import Base, copy_tables
from tests.docs.markdown import Page
from tests.migrating_host import NAMING_CONVENTION
from tests.servers import REPOSITORY, PostgresServer

HOST = "tests.migrating_host:create_app_with_messaging"
HOST_BEFORE = "tests.migrating_host:create_app"


def operations(connection: Connection, target: sa.MetaData | None = None) -> Operations:
    """Alembic's `op`, as a revision of a host with this metadata gets it."""
    options = {"target_metadata": target or sa.MetaData()}
    return Operations(MigrationContext.configure(connection, opts=options))


def differences(connection: Connection, metadata: sa.MetaData) -> list[Any]:
    """What `flask db migrate` would write."""
    options = {"compare_type": True, "compare_server_default": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def definitions(connection: Connection) -> dict[str, object]:
    """What the database says of its messaging tables, index conditions and options included."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_master WHERE name LIKE '%e2emsg%' AND sql IS NOT NULL"
        )
        # Constraints have no order.
        return {name: sorted(re.split(r",?\s+(?=CONSTRAINT)|\s*\)$", text)) for name, text in rows}
    rows = connection.exec_driver_sql(
        """
        SELECT c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod)
            || ' ' || a.attnotnull || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relname LIKE 'e2emsg%%' AND c.relkind = 'r'
        UNION ALL SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE conrelid::regclass::text LIKE 'e2emsg%%'
        UNION ALL SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'e2emsg%%'
        """
    )
    return {name: definition for name, definition in rows}


def storage(connection: Connection) -> dict[str, tuple[bool, list[str] | None]]:
    """How PostgreSQL keeps the messaging tables: whether without a log, and with which options."""
    if connection.dialect.name == "sqlite":
        return {}
    rows = connection.exec_driver_sql(
        """
        SELECT relname, relpersistence = 'u', reloptions FROM pg_class
        WHERE relkind = 'r' AND relname LIKE 'e2emsg%%'
        """
    )
    return {name: (has_no_log, options) for name, has_no_log, options in rows}


def table_names(connection: Connection) -> set[str]:
    return set(sa.inspect(connection).get_table_names())


class TestSteps:
    def test_they_make_what_the_models_describe(self, engine: Engine) -> None:
        with engine.begin() as connection:
            schema.upgrade(operations(connection), since=0, to=schema.VERSION)
            assert differences(connection, Base.metadata) == []
            made_by_steps = definitions(connection)
            assert len(made_by_steps) >= 7
            kept = storage(connection)
            schema.downgrade(operations(connection), since=schema.VERSION, to=0)
            host = sa.MetaData()
            copy_tables(host)
            for metadata in (Base.metadata, host):
                metadata.create_all(connection)
                assert made_by_steps == definitions(connection)
                assert kept == storage(connection)
                metadata.drop_all(connection)
        if engine.dialect.name == "postgresql":
            assert sum(has_no_log for has_no_log, _ in kept.values()) == 3
            assert [options for _, options in kept.values()].count(["fillfactor=50"]) == 2

    def test_down_leaves_nothing_behind_and_up_works_again(self, engine: Engine) -> None:
        host = sa.MetaData()
        sa.Table("books", host, sa.Column("id", sa.Integer, primary_key=True))
        with engine.begin() as connection:
            host.create_all(connection)
            schema.upgrade(operations(connection), since=0, to=schema.VERSION)
            first = definitions(connection)
            assert table_names(connection) == {"books", *Base.metadata.tables}
            schema.downgrade(operations(connection), since=schema.VERSION, to=0)
            assert table_names(connection) == {"books"}
            assert definitions(connection) == {}
            schema.upgrade(operations(connection), since=0, to=schema.VERSION)
            assert definitions(connection) == first

    def test_a_hosts_naming_convention_names_nothing_of_ours(self, engine: Engine) -> None:
        host = sa.MetaData(naming_convention=NAMING_CONVENTION)
        copy_tables(host)
        with engine.begin() as connection:
            schema.upgrade(operations(connection, host), since=0, to=schema.VERSION)
            named_by_host = definitions(connection)
            assert differences(connection, host) == []
            assert differences(connection, Base.metadata) == []
            assert "host_" not in str(named_by_host)
            schema.downgrade(operations(connection, host), since=schema.VERSION, to=0)
            host.create_all(connection)
            assert definitions(connection) == named_by_host

    @pytest.mark.parametrize(
        ("since", "to"), [(0, 0), (1, 1), (1, 0), (0, schema.VERSION + 1), (-1, 1)]
    )
    def test_steps_that_do_not_exist_are_refused(self, since: int, to: int) -> None:
        with pytest.raises(ValueError, match="no schema steps"):
            schema.upgrade(None, since=since, to=to)
        with pytest.raises(ValueError, match="no schema steps"):
            schema.downgrade(None, since=to, to=since)


class FlaskCommand:
    """`flask …` as a host's developer types it, on a database and a migrations folder."""

    def __init__(self, database_url: str, migrations: Path) -> None:
        self.migrations = migrations
        self._environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "MIGRATIONS": str(migrations),
            "JWT_SECRET_KEY": "a secret of the tests, long enough",
        }

    def __call__(self, *arguments: str, app: str = HOST) -> str:
        """Run it; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", app, *arguments],
            cwd=REPOSITORY,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout


@pytest.fixture
def flask(database_url: str, tmp_path: Path) -> FlaskCommand:
    return FlaskCommand(database_url, tmp_path / "its migrations")


class TestHosts:
    def test_the_example_is_complete(self, flask: FlaskCommand, engine: Engine) -> None:
        flask("db", "upgrade", app="example_app")
        assert "No new upgrade operations detected" in flask("db", "check", app="example_app")
        assert "Nothing to do" in flask("e2emsg", "revision", app="example_app")
        flask("db", "downgrade", "base", app="example_app")
        with engine.connect() as connection:
            assert table_names(connection) == {"alembic_version"}
        flask("db", "upgrade", app="example_app")

    def test_a_host_with_a_history_adds_messaging(
        self, flask: FlaskCommand, engine: Engine
    ) -> None:
        flask("db", "init", app=HOST_BEFORE)
        flask("db", "migrate", "-m", "books", app=HOST_BEFORE)
        flask("db", "upgrade", app=HOST_BEFORE)
        flask("e2emsg", "revision", "-m", "messaging")
        flask("db", "upgrade")
        flask("db", "check")
        assert len(flask("db", "heads").split()) == 2  # The id and "(head)": one line.
        flask("db", "downgrade")
        with engine.connect() as connection:
            assert table_names(connection) == {"alembic_version", "books", "shelves"}
        flask("db", "upgrade")

    def test_a_host_that_autogenerates_gets_the_same_tables(
        self, flask: FlaskCommand, engine: Engine
    ) -> None:
        flask("db", "init")
        flask("db", "migrate")
        flask("db", "upgrade")
        flask("db", "check")
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                [block] = Page.at("docs/integration.md").blocks("sql")
                connection.exec_driver_sql(block.text)
            autogenerated, kept = definitions(connection), storage(connection)
            for name in Base.metadata.tables:
                connection.exec_driver_sql(f"DROP TABLE {name}")
            schema.upgrade(operations(connection), since=0, to=schema.VERSION)
            assert autogenerated == definitions(connection)
            assert kept == storage(connection)


def test_what_the_page_on_scaling_sets_can_be_set(
    postgres: PostgresServer, connect_to: Callable[[str], Engine]
) -> None:
    [block] = Page.at("docs/scaling.md").blocks("sql")
    engine = connect_to(postgres.create_database())
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(block.text)
        options = connection.exec_driver_sql(
            "SELECT relname FROM pg_class WHERE array_to_string(reloptions, ',') ~ 'autovacuum'"
        )
        assert set(options.scalars()) == {"e2emsg_accounts", "e2emsg_messages"}
