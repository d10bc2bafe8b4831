"""What is tested: gunicorn masters on one database, and a proxy on every way into and out of them.

On SQLite one master, without a bus. On PostgreSQL as many as wanted, a PostgreSQL of the cluster's
own, and a Redis. Ports stay the same when a server starts again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import jwt
import psutil
from psycopg import sql
from sqlalchemy.engine import make_url

from tests.acceptance.conftest import JWT_SECRET_KEY, LOUD, Hosting
from tests.crucible.journal import MAGIC
from tests.crucible.levers import VARIABLE, Levers
from tests.crucible.rest import get
from tests.proxies import ChaosProxy, TcpAddress, by_port, dial_database
from tests.servers import GunicornServer, PostgresServer, RedisServer, new_listener

APP = "tests.crucible.tampered_host:create_app()"
# Not the format that ships, which leaves queries out: tokens in them are for the redaction.
LOGS_WITH_QUERIES = """access_log_format = '%(h)s "%(r)s" %(s)s %(b)s'"""
GRACE_SECONDS = 8
GONE_SECONDS = 15.0
ISSUED_SECONDS_AGO = 10_800  # A token is not valid before, and clocks may go back an hour.


class Master:
    """One gunicorn, and the proxy by which clients come to it."""

    def __init__(self, server: GunicornServer, proxy: ChaosProxy, levers: Levers) -> None:
        self.server = server
        self.proxy = proxy
        self.levers = levers
        self.is_busy = asyncio.Lock()  # held by the fault that has it restart

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.proxy.port}"

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def stop(self) -> None:
        """SIGTERM, and wait until it is gone."""
        await asyncio.to_thread(self.server.stop)

    async def kill_worker(self) -> None:
        await asyncio.to_thread(self.server.kill_worker)

    def kill(self) -> None:
        """SIGKILL the master alone; its workers notice by themselves."""
        os.kill(self.server.pid, signal.SIGKILL)

    async def reload(self) -> None:
        """SIGHUP, and wait until the workers are others."""
        old = set(self.server.worker_pids())
        os.kill(self.server.pid, signal.SIGHUP)
        deadline = time.monotonic() + 2 * GRACE_SECONDS + GONE_SECONDS
        while not (now := set(self.server.worker_pids())) or now & old:
            assert time.monotonic() < deadline, f"still {now} after {old}"
            await asyncio.sleep(0.05)

    async def pause_worker(self, seconds: float) -> None:
        """SIGSTOP a worker, and SIGCONT it later."""
        worker = psutil.Process(self.server.worker_pids()[0])
        worker.suspend()
        await asyncio.sleep(seconds)
        worker.resume()

    async def look_inside(self) -> dict[str, Any]:
        """What is alive in the worker."""
        address = urlsplit(self.server.url).netloc
        status, body = await asyncio.to_thread(get, address, "/inside", "")
        assert status == 200, f"/inside answered {status}"
        counted: dict[str, Any] = body
        return counted


class Cluster:
    """Use it in an `async with` statement: everything runs inside, and nothing is left behind."""

    def __init__(self, folder: Path, database: str, masters: int, settings: dict[str, Any]) -> None:
        self.masters: list[Master] = []
        self.postgres: PostgresServer | None = None
        self.redis: RedisServer | None = None
        self.database_proxy: ChaosProxy | None = None
        self.bus_proxy: ChaosProxy | None = None
        self.database_url = ""  # past the proxy
        self.log_paths = [folder / f"master-{number}.log" for number in range(1, masters + 1)]
        self._folder = folder
        self._is_postgresql = database == "postgresql"
        self._settings = settings
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def make_token(self, user_id: str, seconds: float, kind: str = "access") -> str:
        """A token as Flask-JWT-Extended makes them."""
        now = int(time.time())
        claims = {"sub": user_id, "type": kind, "fresh": False, "jti": str(uuid.uuid4())}
        issued = now - ISSUED_SECONDS_AGO
        times = {"iat": issued, "nbf": issued, "exp": now + int(seconds)}
        return jwt.encode({**claims, **times}, JWT_SECRET_KEY, algorithm="HS256")

    async def end_backends(self) -> None:
        """Have PostgreSQL end every connection of ours."""
        assert self.postgres is not None
        name = make_url(self.database_url).database
        statement = sql.SQL(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}"
        ).format(sql.Literal(name))
        await asyncio.to_thread(self.postgres.execute, statement)

    async def set_read_only(self, value: str) -> None:
        """`on` or `off`, for every transaction that begins from now on."""
        assert self.postgres is not None
        name = sql.SQL("ALTER SYSTEM SET default_transaction_read_only = {}")
        await asyncio.to_thread(self.postgres.execute, name.format(sql.SQL(value)))
        await asyncio.to_thread(self.postgres.execute, sql.SQL("SELECT pg_reload_conf()").format())

    def count_pages(self) -> int:
        """How large SQLite's file is."""
        path = make_url(self.database_url).database or ""
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("PRAGMA page_count").fetchone()[0])

    async def _start(self) -> None:
        hosting, settings = await self._start_services()
        kind = "postgresql" if self._is_postgresql else "sqlite"
        env = await asyncio.to_thread(lambda: hosting.environment(kind, **settings))
        self.database_url = env["DATABASE_URL"]
        if self._is_postgresql:
            dial = dial_database(self.database_url)
            self.database_proxy = await self._stack.enter_async_context(ChaosProxy(dial, MAGIC))
            env["DATABASE_URL"] = by_port(self.database_url, self.database_proxy.port)
        self._stack.push_async_callback(self._stop_masters)
        for path in self.log_paths:
            await self._add_master(hosting, env, path)

    async def _start_services(self) -> tuple[Hosting, dict[str, Any]]:
        postgres = PostgresServer()
        self._stack.callback(postgres.stop)
        settings = dict(self._settings)
        if self._is_postgresql:
            self.postgres = postgres
            self.redis = RedisServer()
            await asyncio.to_thread(self.redis.start)
            self._stack.callback(self.redis.kill)
            dial = TcpAddress("127.0.0.1", urlsplit(self.redis.url).port or 0).dial
            self.bus_proxy = await self._stack.enter_async_context(ChaosProxy(dial))
            settings["E2EMSG_BUS_URL"] = f"redis://127.0.0.1:{self.bus_proxy.port}/0"
        return Hosting(self._folder, postgres), settings

    async def _add_master(self, hosting: Hosting, env: dict[str, str], log_path: Path) -> None:
        listener = new_listener()
        self._stack.callback(listener.close)
        levers = Levers.new(log_path.with_suffix(".levers"))
        server = GunicornServer(
            APP,
            env={**env, **LOUD, VARIABLE: str(levers.path)},
            log_path=log_path,
            config=hosting.configuration(LOGS_WITH_QUERIES),
            listener=listener,
            arguments=[f"--graceful-timeout={GRACE_SECONDS}"],
        )
        dial = TcpAddress("127.0.0.1", listener.getsockname()[1]).dial
        proxy = await self._stack.enter_async_context(ChaosProxy(dial))
        self.masters.append(Master(server, proxy, levers))
        await self.masters[-1].start()

    async def _stop_masters(self) -> None:
        await asyncio.gather(*(master.stop() for master in self.masters))
