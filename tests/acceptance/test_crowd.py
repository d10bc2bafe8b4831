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
from tests.servers import GunicornServer

USERS, SOCKETS_EACH = 30, 10
LIVE_SECONDS = 15.0
POOL = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 5}
OUR_POOL = HOSTS_POOL = 2


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
    with ThreadPoolExecutor(len(visitors)) as pool:
        used = pool.map(use, visitors)
        states = [states_of_connections(env) for _ in range(50)]
        assert set(used) == {200}
    states.append(states_of_connections(env))
    assert max(map(len, states)) <= OUR_POOL + HOSTS_POOL
    assert states[-1] == ["idle"] * len(states[-1])
    crowd.wait_until_all_are_live()
    assert len(crowd.arrivals) == USERS * SOCKETS_EACH, "somebody was cut off"
    for sign in ("QueuePool", "TimeoutError", "Unavailable"):
        assert sign not in server.log()


def states_of_connections(env: dict[str, str]) -> list[str]:
    """What PostgreSQL says of every other connection to the database."""
    url = make_url(env["DATABASE_URL"]).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        rows = connection.execute(
            "SELECT state FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY pid"
        )
        return [str(state) for (state,) in rows]
