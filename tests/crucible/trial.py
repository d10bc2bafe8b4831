"""One trial from its first server to its verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from tests.acceptance.canaries import Canaries
from tests.crucible.books import Violation
from tests.crucible.checker import check
from tests.crucible.client import Client
from tests.crucible.cluster import Cluster
from tests.crucible.evidence import (
    Census,
    Database,
    Evidence,
    count_deadlocks,
    count_idle_in_transaction,
    read_database,
    read_heads,
)
from tests.crucible.journal import of_kind
from tests.crucible.nemesis import Nemesis, schedule
from tests.crucible.profiles import Profile
from tests.crucible.swarm import Swarm

ARRIVAL_SECONDS = 60.0
ANSWER_SECONDS = 30.0  # for what is in outboxes when the faults are over
DRAIN_SECONDS = 20.0
LEAVE_SECONDS = 15.0
POLL_SECONDS = 0.2
SPARE_THREADS = 16  # beside one for each client
SECRETS_SHOWN = 20
LEFT_BEHIND = ("database-*.sqlite*", "master-*.log", "*.jsonl")


@dataclass(frozen=True)
class Trial:
    """What was tried, what was seen, and what was wrong."""

    profile: Profile
    database: str
    seed: int
    written: int  # messages
    evidence: Evidence
    violations: Sequence[Violation]


async def run(profile: Profile, database: str, seed: int, folder: Path) -> Trial:
    """Play a profile against servers of its own; files are left in the folder, until the next."""
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    profile = profile.on(database)
    # Clients whose looks wait for a server that is down must not keep the nemesis from starting it.
    threads = ThreadPoolExecutor(profile.users + SPARE_THREADS)
    asyncio.get_running_loop().set_default_executor(threads)
    async with Cluster(folder, database, profile.masters, profile.settings) as cluster:
        swarm = _swarm(cluster, profile, seed)
        before = await _census(cluster)
        traffic = _Traffic(cluster, swarm, profile, seed)
        await traffic.run()
        after = await _census_when_empty(cluster)
        stored, idle, deadlocks = await asyncio.to_thread(_read, cluster.database_url)
    evidence = Evidence(
        journals={client.id: client.journal.events for client in swarm.clients},
        faults=sorted(traffic.nemesis.done, key=lambda fault: fault.began),
        database=stored,
        leaks=_leaks(cluster.log_paths, swarm),
        before=before,
        after=after,
        idle_in_transaction=idle,
        deadlocks=deadlocks,
        began=traffic.began,
        ended=traffic.ended,
    )
    evidence.write(folder)
    for client in swarm.clients:
        client.journal.write(folder)
    return Trial(profile, database, seed, swarm.written, evidence, check(evidence))


class _Traffic:
    """Clients arrive, talk under faults, drain, and leave."""

    def __init__(self, cluster: Cluster, swarm: Swarm, profile: Profile, seed: int) -> None:
        self.began = self.ended = 0.0
        self.nemesis = Nemesis(cluster, swarm, profile.lengths)
        self._engine = sa.create_engine(cluster.database_url)
        self._swarm = swarm
        self._profile = profile
        self._planned = schedule(
            profile.faults,
            profile.seconds - profile.quiet,
            profile.every,
            profile.masters,
            seed,
        )

    async def run(self) -> None:
        swarm, profile = self._swarm, self._profile
        try:
            await swarm.arrive(ARRIVAL_SECONDS)
            self.began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                group.create_task(swarm.talk(profile.per_second, profile.seconds))
                group.create_task(self.nemesis.run(self._planned))
            self.ended = time.monotonic()
            await swarm.stop_looking()
            await swarm.settle(ANSWER_SECONDS)
            await self._drain()
            await swarm.come_again()
            await self._drain()
        finally:
            await swarm.leave()
            await asyncio.to_thread(self._engine.dispose)
        for failure in swarm.failures():
            raise failure

    async def _drain(self) -> None:
        """Wait until everybody has, and has acknowledged, what there is; note who has not."""
        for client in self._swarm.clients:
            client.repeat_marks()
        heads = await self._heads()
        deadline = time.monotonic() + DRAIN_SECONDS
        quiet_polls = 0
        while quiet_polls < 3 and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            before, heads = heads, await self._heads()
            is_quiet = before == heads and not self._behind(heads)
            quiet_polls = quiet_polls + 1 if is_quiet else 0
        for client in self._behind(heads):
            client.note_stuck(heads.get(client.id, (0, 0))[0])

    def _behind(self, heads: dict[str, tuple[int, int]]) -> list[Client]:
        return [
            client
            for client in self._swarm.clients
            if not client.is_live or heads.get(client.id) != (client.position, client.position)
        ]

    async def _heads(self) -> dict[str, tuple[int, int]]:
        return await asyncio.to_thread(read_heads, self._engine)


def _clear(folder: Path) -> None:
    """Take away what an earlier trial has left: its messages would count as nobody's."""
    for pattern in LEFT_BEHIND:
        for path in folder.glob(pattern):
            path.unlink()


def _swarm(cluster: Cluster, profile: Profile, seed: int) -> Swarm:
    addresses = [master.address for master in cluster.masters]
    clients = [
        Client(f"u{number:03}", addresses, cluster.make_token, profile.habits, f"{seed} {number}")
        for number in range(profile.users)
    ]
    return Swarm(clients, profile.contacts, random.Random(f"{seed} swarm"))


async def _census(cluster: Cluster) -> list[Census]:
    return [Census.of(await master.look_inside()) for master in cluster.masters]


async def _census_when_empty(cluster: Cluster) -> list[Census]:
    """When all connections are gone, or at the deadline with those that stay."""
    deadline = time.monotonic() + LEAVE_SECONDS
    while True:
        census = await _census(cluster)
        is_empty = all(not one.connections and not any(one.objects.values()) for one in census)
        if is_empty or time.monotonic() > deadline:
            return census
        await asyncio.sleep(POLL_SECONDS)


def _read(url: str) -> tuple[Database, int, int]:
    engine = sa.create_engine(url)
    try:
        idle = count_idle_in_transaction(engine)
        return read_database(engine), idle, count_deadlocks(engine)
    finally:
        engine.dispose()


def _leaks(log_paths: Sequence[Path], swarm: Swarm) -> list[str]:
    """Tokens and contents that stand in the logs of the servers."""
    canaries = Canaries()
    for client in swarm.clients:
        for token in client.wallet.all:
            canaries.add(token)
        for sent in of_kind(client.journal.events, "sent", "meddled"):
            canaries.add(sent["content"])
    found: list[str] = []
    for path in log_paths:
        leaks = canaries.found_in(path.read_text(errors="replace"))
        found += [f"{path.name}: {leak[:300]}" for leak in leaks[:SECRETS_SHOWN]]
    return found
