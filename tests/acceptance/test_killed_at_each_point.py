"""kill -9 at each point on the way of a message: what was acknowledged is there, and nothing twice.

docs/protocol.md 3 `accepted` ("never sent before") and 4.6.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import psycopg
import pytest

from tests.acceptance.client import ConnectionLost, SocketClient
from tests.acceptance.conftest import DATABASES, Hosting
from tests.acceptance.mortal_host import (
    AFTER_ACK,
    AFTER_COMMIT,
    AFTER_INSERT,
    BEFORE_COMMIT,
    POINTS,
)
from tests.acceptance.outbox import read_all
from tests.acceptance.people import People, Person
from tests.acceptance.rest import RestClient
from tests.acceptance.wire import Frame, new_content, new_id
from tests.servers import GunicornServer, wait_until

APP = "tests.acceptance.mortal_host:create_app()"
KILLS = 12  # at each point, on each database
NOTICED_SECONDS = 5.0
# A successor that is forked from a loaded app is there at once; the app may be loaded early, since
# gevent has patched the master before.
FORKING = ("from gevent import monkey", "monkey.patch_all()", "preload_app = True")

# Where PostgreSQL stands still while a test holds the lock of that number.
LOCKS = {AFTER_INSERT: 1, BEFORE_COMMIT: 2}
STAND_STILL = """
CREATE FUNCTION stand_still() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint); RETURN NULL; END $$;
CREATE TRIGGER after_insert AFTER INSERT ON e2emsg_messages
    FOR EACH ROW EXECUTE FUNCTION stand_still(1);
CREATE CONSTRAINT TRIGGER before_commit AFTER INSERT ON e2emsg_messages
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stand_still(2);
DO $$ BEGIN EXECUTE format(
    'ALTER DATABASE %I SET client_connection_check_interval = 10', current_database()); END $$;
"""
STANDING_STILL = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event = 'advisory'
"""


class Fates:
    """Has the worker die where one wants."""

    def __init__(self, hosting: Hosting, database: str) -> None:
        # The places of those who were killed are taken for a while.
        environment = hosting.environment(database, E2EMSG_MAX_CONNECTIONS_PER_USER=1000)
        self._url: str | None = None
        if database == "postgresql":
            self._url = environment["DATABASE_URL"].replace("postgresql+psycopg", "postgresql")
            with psycopg.connect(self._url, autocommit=True) as admin:
                admin.execute(STAND_STILL)
        self.server = GunicornServer(
            APP,
            env=environment,
            log_path=hosting.log_path(),
            config=hosting.configuration(*FORKING),
        )

    def dying(self, point: str) -> AbstractContextManager[None]:
        """What is sent inside of the block is the end of the worker that gets it."""
        if self._url is not None and point in LOCKS:
            return self._dying_inside_of_a_statement(self._url, LOCKS[point])
        RestClient(self.server.url).post("/die", {"at": point})
        return nullcontext()

    @contextmanager
    def _dying_inside_of_a_statement(self, url: str, lock: int) -> Iterator[None]:
        with psycopg.connect(url, autocommit=True) as observer:

            def count() -> int:
                [found] = observer.execute(STANDING_STILL).fetchall()
                return int(found[0])

            observer.execute("SELECT pg_advisory_lock(%s)", [lock])
            yield
            wait_until(lambda: count() == 1, NOTICED_SECONDS, lambda: "no statement stands still")
            self.server.kill_worker()
            # Now PostgreSQL looks for its client, and rolls back.
            wait_until(lambda: count() == 0, NOTICED_SECONDS, lambda: "nobody noticed the end")


@pytest.fixture(scope="module", params=DATABASES)
def fates(request: pytest.FixtureRequest, hosting: Hosting) -> Fates:
    return Fates(hosting, request.param)


@pytest.fixture(scope="module")
def server(fates: Fates) -> Iterator[GunicornServer]:
    with fates.server as running:
        yield running


@pytest.fixture
def people(server: GunicornServer, _quiet_log: None) -> Iterator[People]:
    with People(server) as crowd:
        yield crowd
        crowd.abandon_the_lost()


@pytest.mark.parametrize("point", POINTS)
def test_a_message_is_stored_once_wherever_the_worker_dies(
    fates: Fates, alice: Person, bob: Person, point: str
) -> None:
    client, answers = alice.connect(), []
    for _ in range(KILLS):
        message_id, content = new_id(), new_content()
        with fates.dying(point):
            client.send(bob.id, content, message_id=message_id)
        first = answer_before_the_end(client, message_id)
        client = alice.reconnect()
        again = client.accepted(client.send(bob.id, content, message_id=message_id))
        assert (first is not None) is (point == AFTER_ACK)
        assert again["duplicate"] is (point in (AFTER_COMMIT, AFTER_ACK))
        assert first is None or place(first) == place(again)
        answers.append(again)
    assert [place(frame) for frame in read_all(alice)] == [place(answer) for answer in answers]
    assert [answer["seq"] for answer in answers] == list(range(1, KILLS + 1))
    assert [frame["id"] for frame in read_all(bob)] == [answer["id"] for answer in answers]


def answer_before_the_end(client: SocketClient, message_id: str) -> Frame | None:
    """The answer to a send, if there was one before the worker died."""
    try:
        return client.answer(message_id)
    except ConnectionLost:
        return None


def place(frame: Frame) -> tuple[str, int, str]:
    """Of a message, and of the answer to its sender: where and when it was stored."""
    return frame["id"], frame["seq"], frame["created_at"]
