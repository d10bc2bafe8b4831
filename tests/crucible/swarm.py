"""All clients, and the traffic between them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence

from tests.crucible.client import Client

POLL_SECONDS = 0.1


class Swarm:
    """Everybody writes to a few others."""

    def __init__(self, clients: Sequence[Client], contacts: int, dice: random.Random) -> None:
        self.clients = clients
        self._dice = dice
        self._contacts = {
            client.id: self._dice.sample([one.id for one in clients], contacts)
            for client in clients
        }
        self._lives: list[asyncio.Task[None]] = []
        self._looks: list[asyncio.Task[None]] = []

    async def arrive(self, seconds: float) -> None:
        """Everybody connects, and is there when this returns."""
        self._lives = [asyncio.create_task(client.live()) for client in self.clients]
        await self._until(lambda: all(one.is_live for one in self.clients), seconds)
        self._looks = [asyncio.create_task(client.look_around()) for client in self.clients]

    async def talk(self, per_second: float, seconds: float) -> None:
        """Messages at random times, some of them several at once, whatever becomes of them."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        end = now + seconds
        while now < end:
            burst = self._dice.choices((1, 6), (9, 1))[0]
            self._write_some(burst)
            now += self._dice.expovariate(per_second / burst)
            await asyncio.sleep(max(0.0, now - loop.time()))

    async def stop_looking(self) -> None:
        await _cancel(self._looks)

    async def settle(self, seconds: float) -> bool:
        """Whether every message found its answer in time."""
        return await self._until(lambda: not any(one.outbox for one in self.clients), seconds)

    async def come_again(self) -> None:
        """Everybody opens a new connection."""
        await asyncio.gather(*(client.come_again() for client in self.clients))

    async def leave(self) -> None:
        """Everybody says goodbye for good."""
        await _cancel(self._lives)

    def failures(self) -> list[BaseException]:
        """What clients have died of, which is a fault of theirs."""
        done = [task for task in (*self._lives, *self._looks) if task.done()]
        errors = [task.exception() for task in done if not task.cancelled()]
        return [error for error in errors if error is not None]

    def _write_some(self, count: int) -> None:
        sender = self._dice.choice(self.clients)
        to = self._dice.choice(self._contacts[sender.id])
        for _ in range(count):
            sender.write(to)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
