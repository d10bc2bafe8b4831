"""A database driver that stops every greenlet is found when a worker starts, and only then."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import make_url

from tests.acceptance.conftest import Hosting
from tests.acceptance.swarm import visit
from tests.servers import GunicornServer, WorkerClass, wait_until

FOUND_SECONDS = 15.0
BLOCKS = "BLOCKS THIS WHOLE WORKER"
COOPERATES = "the database driver (psycopg) lets others run"
SHOW_INFO = ("import logging", "logging.basicConfig(level=logging.INFO)")


@pytest.fixture(scope="module")
def env(hosting: Hosting) -> dict[str, str]:
    return hosting.environment("postgresql")


@pytest.fixture(autouse=True)
def _quiet_log() -> None:
    """Each test has a server of its own, and looks at its log."""


def started(
    hosting: Hosting, env: dict[str, str], *arguments: str, worker_class: WorkerClass = "gevent"
) -> GunicornServer:
    return GunicornServer(
        env=env,
        log_path=hosting.log_path(),
        worker_class=worker_class,
        config=hosting.configuration(*SHOW_INFO),
        arguments=arguments,
    )


def assert_blocking_is_told(server: GunicornServer, driver: str) -> None:
    wait_until(lambda: BLOCKS in server.log(), FOUND_SECONDS, server.log)
    [line] = [line for line in server.log().splitlines() if BLOCKS in line]
    assert f"({driver})" in line
    assert "without --preload" in line


def test_psycopg_that_was_loaded_before_the_patching(hosting: Hosting, env: dict[str, str]) -> None:
    with started(hosting, env, "--preload") as server:
        assert_blocking_is_told(server, "psycopg")
        assert "flask_e2emsg: preload_app" in server.log()


def test_psycopg_that_was_loaded_after_it(hosting: Hosting, env: dict[str, str]) -> None:
    with started(hosting, env) as server:
        wait_until(lambda: COOPERATES in server.log(), FOUND_SECONDS, server.log)
        assert BLOCKS not in server.log()


def test_threads_need_no_test(hosting: Hosting, env: dict[str, str]) -> None:
    with started(hosting, env, "--preload", worker_class="gthread") as server:
        assert visit(f"{server.url}/") == 200
    assert BLOCKS not in server.log()
    assert COOPERATES not in server.log()


def test_psycopg2_without_a_wait_callback(hosting: Hosting, env: dict[str, str]) -> None:
    url = make_url(env["DATABASE_URL"]).set(drivername="postgresql+psycopg2")
    psycopg2 = {**env, "DATABASE_URL": url.render_as_string(hide_password=False)}
    with started(hosting, psycopg2) as server:
        assert_blocking_is_told(server, "psycopg2")
