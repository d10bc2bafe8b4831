"""All clients, and the traffic between them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence

from tests.crucible.client import Client
from tests.crucible.journal import of_kind

POLL_SECONDS = 0.1
TOGETHER_SHARE = 0.1  # of what is written: goes to several at once
MOST_TOGETHER = 5
COPY_SHARE = 0.3  # of that: with a copy to oneself


class Swarm:
    """Everybody writes to a few others."""

    def __init__(self, clients: Sequence[Client], contacts: int, dice: random.Random) -> None:
        self.clients = clients
        self.written = 0  # messages
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
            count = self._write_some()
            self.written += count
            now += self._dice.expovariate(per_second / count)
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

    def count_refusals(self, code: str) -> int:
        """How often somebody was refused something with this code."""
        refused = [
            one for client in self.clients for one in of_kind(client.journal.events, "refused")
        ]
        return sum(1 for one in refused if one["code"] == code)

    def failures(self) -> list[BaseException]:
        """What clients have died of, which is a fault of theirs."""
        done = [task for task in (*self._lives, *self._looks) if task.done()]
        errors = [task.exception() for task in done if not task.cancelled()]
        return [error for error in errors if error is not None]

    def _write_some(self) -> int:
        """How many messages were written."""
        sender = self._dice.choice(self.clients)
        contacts = self._contacts[sender.id]
        if self._dice.random() < TOGETHER_SHARE:
            recipients = self._several(sender.id, contacts)
            sender.write_to_all(recipients)
            return len(recipients)
        burst = self._dice.choices((1, 6), (9, 1))[0]
        to = self._dice.choice(contacts)
        for _ in range(burst):
            sender.write(to)
        return burst

    def _several(self, sender_id: str, contacts: Sequence[str]) -> list[str]:
        others = [one for one in contacts if one != sender_id]
        copies = [sender_id] if self._dice.random() < COPY_SHARE else []
        most = min(MOST_TOGETHER - len(copies), len(others))
        return self._dice.sample(others, self._dice.randint(2 - len(copies), most)) + copies

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
