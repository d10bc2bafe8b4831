"""The servers that are measured: ours in its settings, and the peers it is compared with."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import sqlalchemy as sa
from psycopg import sql

from flask_e2emsg.store.accounts import write_public_key

from . import processes
from .client import Users
from .postgres import Postgres
from .results import Failed

REPOSITORY = Path(__file__).parent.parent
FOREIGN_SETTINGS = ("E2EMSG_", "FLASK_", "GUNICORN_", "JWT_", "SQLALCHEMY_", "WEB_CONCURRENCY")

THREADS = "32"

Start = Callable[[str, str, int], "subprocess.Popen[bytes]"]  # database URL, secret, port


@dataclass(frozen=True)
class Server:
    """A kind of server. `start` gets `postgresql://…` or `sqlite:///…`, a secret and a port."""

    name: str
    title: str
    start: Start
    client_options: tuple[str, ...]
    table: str  # where messages are stored
    keeps_order: bool  # of one sender's messages to one recipient; it is an error if it does not
    is_sqlite: bool = False

    @property
    def checks_envelopes(self) -> bool:
        """Whether it compares what the load client sends with the users' keys."""
        return "--envelopes" in self.client_options


@dataclass(frozen=True)
class Running:
    """A server with a fresh database, ready to be measured."""

    server: Server
    port: int
    pid: int
    database: str  # a path, or the URL of a PostgreSQL database

    def cpu_seconds(self) -> float:
        """The processor time of all its processes, without PostgreSQL's."""
        return processes.cpu_seconds(self.pid)

    def publish_keys(self, keys: Mapping[str, bytes]) -> None:
        """Let its directory have them, if it has one."""
        if self.server.checks_envelopes:
            scheme = "sqlite:///" if self.server.is_sqlite else ""
            publish_keys(scheme + self.database, keys)

    def stored(self) -> int:
        """How many messages are in its table."""
        if self.server.is_sqlite:
            with sqlite3.connect(self.database) as connection:
                return int(connection.execute(_count(self.server.table)).fetchone()[0])
        with psycopg.connect(self.database) as database:
            count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(self.server.table))
            row = database.execute(count).fetchone()
            assert row is not None
            return int(row[0])


@contextmanager
def running(
    server: Server, postgres: Postgres, users: Users, template: str = "template0"
) -> Iterator[Running]:
    """Start a server on a fresh database; stop it and drop the database afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="e2emsg-bench-") as folder,
        _database(server, postgres, template, Path(folder)) as (url, database),
    ):
        port, log = processes.free_port(), Path(folder) / "log"
        with processes.output_to(log):
            process = server.start(url, users.secret, port)
        try:
            processes.wait_until_it_answers(process, port)
            yield Running(server, port, process.pid, database)
        except Failed as failure:
            raise Failed(f"{failure}. {_end_of(log)}") from failure
        finally:
            processes.stop(process)


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), None)
    return "The server's log is empty" if last is None else f"The server's log ends: {last[:300]}"


@contextmanager
def _database(
    server: Server, postgres: Postgres, template: str, folder: Path
) -> Iterator[tuple[str, str]]:
    if server.is_sqlite:
        path = folder / "measured.db"
        yield f"sqlite:///{path}", str(path)
        return
    name = postgres.create_database(template)
    try:
        yield postgres.url(name), postgres.url(name)
    finally:
        postgres.drop_database(name)


def _start_ours(*options: str) -> Start:
    def start(database_url: str, secret: str, port: int) -> subprocess.Popen[bytes]:
        if "-w" in options:  # Workers that make the same tables at once get in each other's way.
            make_tables(database_url, secret)
        settings = ["-c", "python:flask_e2emsg.gunicorn", "--log-level", "warning"]
        settings += ["-b", f"127.0.0.1:{port}", *options]
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *settings, "benchmarks.host:create_app()"],
            env=_our_environment(database_url, secret),
            cwd=REPOSITORY,
            start_new_session=True,
        )

    return start


def make_tables(database_url: str, secret: str) -> None:
    """Our tables, in a database that is empty."""
    subprocess.run(
        [sys.executable, "-c", "from benchmarks.host import create_app; create_app()"],
        env=_our_environment(database_url, secret),
        cwd=REPOSITORY,
        check=True,
    )


def publish_keys(database_url: str, keys: Mapping[str, bytes]) -> None:
    """Put the users' keys into our tables; who has no account gets one."""
    engine = sa.create_engine(_with_driver(database_url))
    with engine.begin() as connection:
        for user_id, key in keys.items():
            write_public_key(connection, user_id, key)
    engine.dispose()


def _our_environment(database_url: str, secret: str) -> dict[str, str]:
    url = _with_driver(database_url)
    return {**_clean_environment(), "DATABASE_URL": url, "JWT_SECRET_KEY": secret}


def _with_driver(database_url: str) -> str:
    return database_url.replace("postgresql://", "postgresql+psycopg://")


def _clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN_SETTINGS)}


def _count(table: str) -> str:
    return f"SELECT count(*) FROM {table}"


def _ours(name: str, title: str, *options: str, is_sqlite: bool = False) -> Server:
    return Server(
        name=name,
        title=title,
        start=_start_ours(*options),
        client_options=("--acks", "--envelopes"),
        table="e2emsg_messages",
        keeps_order=True,
        is_sqlite=is_sqlite,
    )


OUR_SERVERS = {
    server.name: server
    for server in (
        _ours("e2emsg", "flask_e2emsg on PostgreSQL"),
        _ours("e2emsg-sqlite", "flask_e2emsg on SQLite", is_sqlite=True),
        _ours("e2emsg-2", "flask_e2emsg on PostgreSQL, two workers", "-w", "2"),
        _ours("e2emsg-threads", "flask_e2emsg with threads", "-k", "gthread", "--threads", THREADS),
    )
}
