"""300 sockets that come at once and stay, on the smallest pool of database connections.

An open socket holds none, so a pool of two is enough for all of them and for requests beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People, Person
from tests.acceptance.swarm import Residents
from tests.servers import GunicornServer, wait_until

USERS, SOCKETS_EACH = 30, 10
LIVE_SECONDS = 15.0
POOL = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 5}
OUR_POOL = HOSTS_POOL = 2
LISTENING = 1  # to other workers, beside the pools
IDLE_SECONDS = 5.0


@pytest.fixture(scope="module")
def env(hosting: Hosting) -> dict[str, str]:
    return hosting.environment("postgresql", SQLALCHEMY_ENGINE_OPTIONS=POOL)


@pytest.fixture(scope="module")
def server(hosting: Hosting, env: dict[str, str]) -> Iterator[GunicornServer]:
    config = hosting.configuration()
    with GunicornServer(env=env, log_path=hosting.log_path(), config=config) as running:
        yield running


@pytest.fixture(scope="module")
def crowd(server: GunicornServer) -> Iterator[Residents]:
    """Everybody, who came at once."""
    with People(server) as people:
        users = [people.new("resident") for _ in range(USERS)]
        with Residents(users, SOCKETS_EACH) as residents:
            residents.wait_until_all_are_live()
            yield residents


def test_all_are_live_in_time_and_nobody_fails(crowd: Residents) -> None:
    assert len(crowd.arrivals) == USERS * SOCKETS_EACH
    assert crowd.arrivals[-1] < LIVE_SECONDS
    assert crowd.refusals <= {503}


def test_requests_beside_them_are_answered_and_no_transaction_is_left_open(
    crowd: Residents, server: GunicornServer, env: dict[str, str], people: People
) -> None:
    def use(person: Person) -> int:
        statuses = [person.rest.get(f"/api/{path}").status for path in ("conversations", "sync")]
        return max(*statuses, person.rest.get("/api/sync", wait=1).status)

    visitors = [people.new("visitor").enrol() for _ in range(10)]
    with ThreadPoolExecutor(len(visitors)) as pool, observer(env) as look:
        used = pool.map(use, visitors)
        assert max(len(states(look)) for _ in range(50)) <= OUR_POOL + HOSTS_POOL + LISTENING
        assert set(used) == {200}
        wait_until(lambda: set(states(look)) == {"idle"}, IDLE_SECONDS, lambda: str(states(look)))
    crowd.wait_until_all_are_live()
    assert len(crowd.arrivals) == USERS * SOCKETS_EACH, "somebody was cut off"
    for sign in ("QueuePool", "TimeoutError", "Unavailable"):
        assert sign not in server.log()


def observer(env: dict[str, str]) -> psycopg.Connection:
    """A connection of ours to the same database."""
    url = make_url(env["DATABASE_URL"]).set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


def states(look: psycopg.Connection) -> list[str]:
    """What PostgreSQL says of every other client's connection to the database."""
    rows = look.execute(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return [str(state) for (state,) in rows]
