"""The bus on Redis: publish and subscribe. Nothing is stored there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .bus import Resubscribed

PUBLISH_SECONDS = 0.2  # a Redis that does not answer holds up nobody for longer
CONNECT_SECONDS = 2.0


class RedisChannel:
    """One channel of a Redis server."""

    def __init__(self, url: str, name: str) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._name = name
        # It would try again by itself, for longer than a hint is good for.
        never = Retry(NoBackoff(), 0)
        self._publisher: Any = redis.Redis.from_url(
            url,
            socket_timeout=PUBLISH_SECONDS,
            socket_connect_timeout=PUBLISH_SECONDS,
            retry=never,
        )
        self._listener: Any = redis.Redis.from_url(
            url,
            socket_timeout=CONNECT_SECONDS,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=never,
        )

    def publish(self, texts: Sequence[str]) -> None:
        """See Channel.publish."""
        with self._publisher.pipeline(transaction=False) as pipeline:
            for text in texts:
                pipeline.publish(self._name, text)
            pipeline.execute()

    @contextmanager
    def subscribe(self) -> Iterator[_Subscription]:
        """See Channel.subscribe."""
        with self._listener.pubsub() as pubsub:
            pubsub.subscribe(self._name)
            subscription = _Subscription(pubsub)
            subscription.wait_for_confirmation()
            yield subscription


class _Subscription:
    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub

    def wait_for_confirmation(self) -> None:
        message = self._pubsub.get_message(timeout=CONNECT_SECONDS)
        if message is None or message["type"] != "subscribe":
            raise TimeoutError

    def receive(self, seconds: float) -> list[str]:
        """See Subscription.receive."""
        message = self._pubsub.get_message(timeout=seconds)
        if message is None:
            return []
        # The client connects anew without a word; only this second confirmation tells.
        if message["type"] != "message":
            raise Resubscribed
        return [bytes(message["data"]).decode(errors="replace")]
