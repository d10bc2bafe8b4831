"""The bus's channel on a real Redis."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from redis.exceptions import RedisError

from flask_e2emsg.delivery import redis_channel
from flask_e2emsg.delivery.bus import Resubscribed
from flask_e2emsg.delivery.redis_channel import PUBLISH_SECONDS, RedisChannel, _Subscription
from tests.listening import hear
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@contextmanager
def channel_of(url: str, publish_seconds: float = PUBLISH_SECONDS) -> Iterator[RedisChannel]:
    """A channel whose connections are closed at the end; in a server they end with the process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_channel, "PUBLISH_SECONDS", publish_seconds)
        one = RedisChannel(url, "e2emsg_test")
    with closing(one._publisher), closing(one._listener):
        yield one


@pytest.fixture
def channel(server: RedisServer) -> Iterator[RedisChannel]:
    """One that waits for Redis for as long as a busy machine may need."""
    with channel_of(server.url, publish_seconds=10.0) as one:
        yield one


@pytest.mark.parametrize(
    "texts", [["hello"], ["two", "two"], ["é🔑" * 100_000], [str(n) for n in range(1000)]]
)
def test_what_is_published_is_heard_in_order(channel: RedisChannel, texts: list[str]) -> None:
    with channel.subscribe() as subscription:
        channel.publish(texts)
        assert hear(subscription, len(texts)) == texts
        assert subscription.receive(0.05) == []


def test_no_other_channel_is_heard(channel: RedisChannel, server: RedisServer) -> None:
    with channel.subscribe() as subscription, server.client() as client:
        client.publish("e2emsg_other", "not for you")
        client.publish("e2emsg_test", "for you")
        assert hear(subscription, 1) == ["for you"]


def test_bytes_that_are_no_text_are_heard_as_some_text(
    channel: RedisChannel, server: RedisServer
) -> None:
    with channel.subscribe() as subscription, server.client() as client:
        client.publish("e2emsg_test", b"\xff\xfe\x00")
        assert len(hear(subscription, 1)) == 1


def test_an_interruption_is_noticed(channel: RedisChannel, server: RedisServer) -> None:
    with channel.subscribe() as subscription:
        with server.client() as client:
            client.client_kill_filter(_type="pubsub")
        with pytest.raises((RedisError, Resubscribed)):
            hear(subscription, 1)


def test_a_client_that_connected_anew_without_a_word_is_noticed() -> None:
    """Some versions of the client do; all that tells is that it confirms a second time."""

    class Again:
        def get_message(self, timeout: float) -> dict[str, object]:
            return {"type": "subscribe", "data": 1}

    with pytest.raises(Resubscribed):
        _Subscription(Again()).receive(0.0)


def test_a_redis_that_stands_still_holds_up_nobody(
    channel: RedisChannel, server: RedisServer
) -> None:
    channel.publish(["hello"])
    seconds = []
    server.signal(signal.SIGSTOP)
    try:
        with channel_of(server.url) as usual:
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(RedisError):
                    usual.publish(["hello"])
                seconds.append(time.monotonic() - began)
    finally:
        server.signal(signal.SIGCONT)
    assert statistics.median(seconds) < 2 * PUBLISH_SECONDS + 0.2
    channel.publish(["hello"])


def test_a_redis_that_is_not_there_refuses_at_once() -> None:
    with channel_of("redis://127.0.0.1:1/0") as channel:
        with pytest.raises(RedisError):
            channel.publish(["hello"])
        with pytest.raises(RedisError), channel.subscribe():
            pass
