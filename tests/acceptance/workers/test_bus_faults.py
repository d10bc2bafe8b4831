"""What happens to the bus happens to nobody's messages: Redis dies, stands still, or talks rubbish.

Two gunicorns share a PostgreSQL and a Redis. With the bus away, the sweep finds what the other
worker has stored.
"""

from __future__ import annotations

import json
import secrets
import signal
import statistics
import time

import psycopg
import pytest

from flask_e2emsg.store.leases import LEASE_SECONDS
from tests.acceptance.client import SocketClient
from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People, Person
from tests.acceptance.rest import RestClient
from tests.acceptance.workers.conftest import APP
from tests.servers import GunicornServer, RedisServer, WorkerClass, wait_until

SWEEP_SECONDS = 2.0
ACK_SLACK_SECONDS = 0.05
SAMPLES = 30
LIMIT = "client-output-buffer-limit"


@pytest.fixture(scope="module")
def environment(hosting: Hosting, redis: RedisServer) -> dict[str, str]:
    return hosting.environment(
        "postgresql", E2EMSG_BUS_URL=redis.url, E2EMSG_SWEEP_SECONDS=SWEEP_SECONDS
    )


@pytest.fixture
def there(bob: Person, elsewhere: People, here: SocketClient) -> SocketClient:
    """Bob's socket on the other worker, from when messages come to it through the bus."""
    client = elsewhere.named(bob.id).connect()
    wait_for_the_bus(here, client)
    return client


def wait_for_the_bus(here: SocketClient, there: SocketClient) -> None:
    """Typing notices have no other way."""
    seen = len(there.seen)

    def is_heard() -> bool:
        here.send_frame({"type": "typing", "to": there.user_id, "active": True})
        here.round_trip()
        there.round_trip()
        return any(frame["type"] == "typing" for frame in there.seen[seen:])

    wait_until(is_heard, 15, lambda: "the workers do not hear each other")


def acceptance_seconds(client: SocketClient, to: str) -> list[float]:
    """How long each of some messages took to be accepted."""
    found = []
    for _ in range(SAMPLES):
        began = time.monotonic()
        client.store(to)
        found.append(time.monotonic() - began)
    return sorted(found)


def delivery_seconds(here: SocketClient, there: SocketClient) -> list[float]:
    """How long each of some messages took to be delivered."""
    found = []
    for _ in range(SAMPLES):
        began = time.monotonic()
        message_id = here.send(there.user_id)
        arrived = there.expect("message", id=message_id)
        found.append(time.monotonic() - began)
        here.accepted(message_id)
        there.ack(arrived["seq"])
    return sorted(found)


def test_a_redis_that_is_killed_delays_messages_and_loses_none(
    redis: RedisServer, here: SocketClient, there: SocketClient
) -> None:
    usual = acceptance_seconds(here, there.user_id)
    redis.kill()
    try:
        down = acceptance_seconds(here, there.user_id)
        began = time.monotonic()
        message_id = here.send(there.user_id)
        there.expect("message", id=message_id, seconds=SWEEP_SECONDS + 1)
        assert time.monotonic() - began < SWEEP_SECONDS + 1
    finally:
        redis.start()
    assert statistics.median(down) < statistics.median(usual) + ACK_SLACK_SECONDS
    here.accepted(message_id)
    there.ack()
    back_at = time.monotonic()
    wait_for_the_bus(here, there)
    assert time.monotonic() - back_at < 5
    assert statistics.median(delivery_seconds(here, there)) < 0.1
    assert len([frame for frame in there.seen if frame["type"] == "message"]) == 3 * SAMPLES + 1


def test_a_redis_that_stands_still_slows_no_answer(
    redis: RedisServer, here: SocketClient, there: SocketClient
) -> None:
    usual, frozen = acceptance_seconds(here, there.user_id)[-2], []
    for _ in range(3):
        redis.signal(signal.SIGSTOP)
        try:
            frozen.append(acceptance_seconds(here, there.user_id)[-2])
            message_id = here.send(there.user_id)
            there.expect("message", id=message_id, seconds=SWEEP_SECONDS + 1)
        finally:
            redis.signal(signal.SIGCONT)
        here.accepted(message_id)
        wait_for_the_bus(here, there)
    # What else this machine does comes and goes.
    assert statistics.median(frozen) < usual + ACK_SLACK_SECONDS


def test_a_burst_that_overflows_the_subscribers_buffer_loses_nothing(
    redis: RedisServer, here: SocketClient, there: SocketClient
) -> None:
    with redis.client() as client:
        usual = client.config_get(LIMIT)[LIMIT]
        client.config_set(LIMIT, "pubsub 65536 65536 1")
        channel = next(iter(client.pubsub_channels()))
        with client.pipeline(transaction=False) as pipeline:
            for _ in range(10_000):
                pipeline.publish(channel, b"x" * 1000)
            pipeline.execute()
        client.config_set(LIMIT, usual)
    ids = [here.send(there.user_id) for _ in range(SAMPLES)]
    for message_id in ids:
        there.expect("message", id=message_id, seconds=SWEEP_SECONDS + 3)
        there.ack()
    for message_id in ids:
        here.accepted(message_id)


def test_rubbish_on_the_channel_reaches_nobody_and_harms_nobody(
    redis: RedisServer, here: SocketClient, there: SocketClient, alice: Person
) -> None:
    bob = there.user_id
    forged = [
        ["someone", 1, ["told", bob, '{"type":"event","name":"forged","data":1}']],
        ["someone", 2, ["grown", {bob: 2**62, alice.id: 2**62}]],
        ["someone", 3, ["ended"]],
    ]
    rubbish: list[bytes] = [
        *(json.dumps(one).encode() for one in forged),
        *(secrets.token_hex(16).encode() + json.dumps(one).encode() for one in forged),
        *(secrets.token_bytes(size) for size in (1, 100, 10_000)),
        b"[" * 1_000_000,
    ]
    with redis.client() as client:
        for channel in client.pubsub_channels():
            for one in rubbish:
                client.publish(channel, one)
    accepted = here.store(bob)
    there.expect("message", id=accepted["id"], seconds=1.0)
    there.ack()
    assert not [frame for frame in there.seen + here.seen if frame["type"] == "event"]


def test_two_deployments_on_one_redis_do_not_hear_each_other(
    redis: RedisServer, hosting: Hosting, here: SocketClient, there: SocketClient
) -> None:
    strangers = hosting.environment("postgresql", E2EMSG_BUS_URL=redis.url)
    path = hosting.log_path()
    with GunicornServer(APP, env=strangers, log_path=path) as server, People(server) as crowd:
        namesake = crowd.named(there.user_id).enrol().connect()
        wait_until(lambda: channels(redis) == 2, 10, lambda: "no channel of its own")
        here.send_frame({"type": "typing", "to": there.user_id, "active": True})
        there.expect("typing")
        namesake.round_trip()
        namesake.assert_silent(0.2)


def channels(redis: RedisServer) -> int:
    with redis.client() as client:
        return len(client.pubsub_channels())


def test_what_redis_carries_names_no_content_and_no_token(
    redis: RedisServer, here: SocketClient, there: SocketClient
) -> None:
    content = "Y2FuYXJ5" + secrets.token_urlsafe(32).rstrip("_-") + "AAAA"
    content = content[: len(content) // 4 * 4]
    with redis.client() as client, client.pubsub() as spy:
        spy.psubscribe("*")
        accepted = here.store(there.user_id, content)
        there.expect("message", id=accepted["id"])
        there.ack()
        heard = b""
        deadline = time.monotonic() + 5
        while there.user_id.encode() not in heard and time.monotonic() < deadline:
            message = spy.get_message(timeout=0.2)
            heard += b"" if message is None else bytes(str(message["data"]), "utf-8")
    assert there.user_id.encode() in heard, "the spy heard nothing"
    assert content.encode() not in heard
    assert b"eyJ" not in heard


# The same database as the bus: its connections are cut.


def test_a_listening_connection_that_is_cut_is_made_anew(hosting: Hosting, people: People) -> None:
    env = hosting.environment("postgresql", E2EMSG_SWEEP_SECONDS=60)
    paths = [hosting.log_path(), hosting.log_path()]
    with (
        GunicornServer(APP, env=env, log_path=paths[0]) as one,
        GunicornServer(APP, env=env, log_path=paths[1]) as two,
        People(one) as on_one,
        People(two) as on_two,
    ):
        alice, bob = on_one.new("alice").enrol(), on_two.new("bob").enrol()
        here, there = alice.connect(), bob.connect()
        wait_for_the_bus(here, there)
        url = env["DATABASE_URL"].replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(url, autocommit=True) as admin:
            cut = admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            ).fetchall()
        assert len(cut) == 2
        # Nothing but the look that follows a new subscription could find it within a minute.
        accepted = here.store(bob.id)
        there.expect("message", id=accepted["id"], seconds=5)
        wait_for_the_bus(here, there)


def test_who_was_on_a_worker_that_was_killed_is_offline_when_its_lease_ends(
    server: GunicornServer, environment: dict[str, str], hosting: Hosting, bob: Person
) -> None:
    def is_online() -> bool:
        return bool(RestClient(server.url).get(f"/who/{bob.id}").json["online"])

    path = hosting.log_path()
    with GunicornServer(APP, env=environment, log_path=path) as doomed, People(doomed) as crowd:
        crowd.named(bob.id).connect()
        assert is_online()
        doomed.kill_worker()
        wait_until(lambda: not is_online(), LEASE_SECONDS + 2, lambda: "still online")
        crowd.abandon_the_lost()


@pytest.mark.parametrize("worker_class", ["gevent", "gthread"])
def test_workers_that_were_forked_from_one_process_hear_each_other(
    hosting: Hosting, worker_class: WorkerClass
) -> None:
    """The app is loaded before the fork where that is possible (under gevent drivers forbid it)."""
    env = hosting.environment(
        "postgresql", E2EMSG_SWEEP_SECONDS=60, E2EMSG_MAX_CONNECTIONS_PER_USER=1000
    )
    forked = GunicornServer(
        APP,
        env=env,
        log_path=hosting.log_path(),
        worker_class=worker_class,
        workers=2,
        arguments=["--preload"] if worker_class == "gthread" else [],
    )
    with forked, People(forked) as crowd:
        bob = crowd.new("bob").enrol()
        alice = crowd.new("alice")
        there = bob.connect()

        def is_elsewhere() -> bool:
            alice.connect().round_trip()
            return bool(workers_of(forked, alice.id) - workers_of(forked, bob.id))

        wait_until(is_elsewhere, 30, lambda: "all sockets go to one worker")
        for client in alice.clients:
            accepted = client.store(bob.id)
            there.expect("message", id=accepted["id"], seconds=1.0)
            there.ack()
            client.close()


def workers_of(server: GunicornServer, user_id: str) -> set[int]:
    """The workers that have sockets of a user, as far as they answer."""
    seen = [RestClient(server.url).get(f"/who/{user_id}").json for _ in range(20)]
    return {one["worker"] for one in seen if one["here"]}
