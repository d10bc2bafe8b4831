"""The faults, and a schedule of them that follows from a seed.

Each fault begins at its time, whether or not the one before is over, so some overlap; two that
restart the same thing wait for each other. What was done, and when, is written down for the
checker. When `run` returns, everything is on its feet again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.crucible.cluster import Cluster, Master
from tests.crucible.evidence import Fault
from tests.crucible.swarm import Swarm
from tests.proxies import Link

RESET_SHARE, FROZEN_SHARE, SLOW_SHARE, REVOKED_SHARE = 0.3, 0.2, 0.1, 0.2
SLOW_BYTES_PER_SECOND = 4096
SWALLOWED_ANSWERS = 5
UNFELT_SECONDS = 15  # that a disk stays full at most for somebody to feel it
CLOCK_STEPS = (-3600.0, 3600.0)  # in seconds
ALONE_ON_MASTER = ("kill_worker", "kill_master", "sighup", "sigterm", "pause_worker")
ON_ONE_MASTER = (*ALONE_ON_MASTER, "clock_step")


@dataclass(frozen=True)
class Planned:
    """One fault of the schedule."""

    at: float  # seconds after the beginning
    name: str
    master: int  # from 0; for those that hit one
    seed: int


@dataclass(frozen=True)
class Lengths:
    """How long the lasting faults last, in seconds."""

    redis_killed: float = 10.0
    redis_stopped: float = 15.0
    frozen: float = 30.0
    slow: float = 20.0
    database_frozen: float = 5.0
    read_only: float = 8.0
    worker_stopped: float = 10.0
    answers_swallowed: float = 3.0
    clock_stepped: float = 10.0
    disk_full: float = 8.0


def schedule(
    names: Sequence[str], seconds: float, every: float, masters: int, seed: int
) -> list[Planned]:
    """Every fault in turn, in a new order each round, one in about `every` seconds."""
    dice = random.Random(seed)
    planned: list[Planned] = []
    rounds = itertools.chain.from_iterable(
        dice.sample(names, len(names)) for _ in itertools.count()
    )
    at = every / 2
    while names and at < seconds:
        # Restarting masters in turn: both at once would only show that nobody is there.
        master = len(planned) % masters
        planned.append(Planned(at, next(rounds), master, dice.getrandbits(32)))
        at += every * dice.uniform(0.9, 1.1)
    return planned


class Nemesis:
    """Does to a cluster and its clients what is planned."""

    def __init__(self, cluster: Cluster, swarm: Swarm, lengths: Lengths) -> None:
        self.done: list[Fault] = []
        self._cluster = cluster
        self._swarm = swarm
        self._lengths = lengths
        self._database = asyncio.Lock()
        self._bus = asyncio.Lock()
        self._clocks = asyncio.Lock()

    async def run(self, planned: Sequence[Planned]) -> None:
        """Return when the last fault is over."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for one in planned:
                await asyncio.sleep(max(0.0, began + one.at - time.monotonic()))
                group.create_task(self._inject(one))

    async def _inject(self, planned: Planned) -> None:
        strike = FAULTS[planned.name]
        strokes = _Strike(self, planned)
        async with strokes.turn():
            began = time.monotonic()
            await strike(strokes)
            self.done.append(
                Fault(
                    planned.name,
                    began,
                    time.monotonic(),
                    planned.master if planned.name in ON_ONE_MASTER else None,
                    strokes.detail,
                )
            )


@dataclass
class _Strike:
    """One fault at work."""

    nemesis: Nemesis
    planned: Planned
    detail: str = ""
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.planned.seed)

    @property
    def cluster(self) -> Cluster:
        return self.nemesis._cluster

    @property
    def swarm(self) -> Swarm:
        return self.nemesis._swarm

    @property
    def lengths(self) -> Lengths:
        return self.nemesis._lengths

    @property
    def master(self) -> Master:
        return self.cluster.masters[self.planned.master]

    def turn(self) -> asyncio.Lock:
        """What only one fault at a time may have."""
        if self.planned.name in ALONE_ON_MASTER:
            return self.master.is_busy
        if self.planned.name in (*ON_DATABASE, *ON_SQLITE):
            return self.nemesis._database
        if self.planned.name == "clock_step":
            return self.nemesis._clocks
        return self.nemesis._bus if self.planned.name in ON_BUS else asyncio.Lock()


async def kill_worker(strike: _Strike) -> None:
    await strike.master.kill_worker()


async def kill_master(strike: _Strike) -> None:
    strike.master.kill()
    await strike.master.stop()
    await strike.master.start()


async def sigterm(strike: _Strike) -> None:
    await strike.master.stop()
    await strike.master.start()


async def sighup(strike: _Strike) -> None:
    await strike.master.reload()


async def pause_worker(strike: _Strike) -> None:
    await strike.master.pause_worker(strike.lengths.worker_stopped)


async def clock_step(strike: _Strike) -> None:
    """Processes that start meanwhile start with the wrong time."""
    levers = strike.master.levers
    levers.step_seconds = strike.dice.choice(CLOCK_STEPS)
    strike.detail = f"{levers.step_seconds:+g} s"
    await asyncio.sleep(strike.lengths.clock_stepped)
    levers.step_seconds = 0.0


async def kill_redis(strike: _Strike) -> None:
    redis = strike.cluster.redis
    assert redis is not None
    await asyncio.to_thread(redis.kill)
    await asyncio.sleep(strike.lengths.redis_killed)
    await asyncio.to_thread(redis.start)


async def stop_redis(strike: _Strike) -> None:
    redis = strike.cluster.redis
    assert redis is not None
    redis.signal(signal.SIGSTOP)
    await asyncio.sleep(strike.lengths.redis_stopped)
    redis.signal(signal.SIGCONT)


async def cut_bus(strike: _Strike) -> None:
    assert strike.cluster.bus_proxy is not None
    strike.cluster.bus_proxy.cut_all()


async def restart_postgres(strike: _Strike) -> None:
    assert strike.cluster.postgres is not None
    await asyncio.to_thread(strike.cluster.postgres.crash_and_restart)


async def end_backends(strike: _Strike) -> None:
    await strike.cluster.end_backends()


async def cut_database(strike: _Strike) -> None:
    assert strike.cluster.database_proxy is not None
    strike.cluster.database_proxy.cut_all()


async def freeze_database(strike: _Strike) -> None:
    proxy = strike.cluster.database_proxy
    assert proxy is not None
    proxy.freeze_all()
    await asyncio.sleep(strike.lengths.database_frozen)
    proxy.thaw_all()


async def swallow_answers(strike: _Strike) -> None:
    """Cut the way to the database just after what it was asked is committed."""
    proxy = strike.cluster.database_proxy
    assert proxy is not None
    before = proxy.swallowed
    proxy.swallow_answers(SWALLOWED_ANSWERS)
    await asyncio.sleep(strike.lengths.answers_swallowed)
    proxy.swallow_answers(0)
    strike.detail = f"{proxy.swallowed - before} answers"


async def read_only(strike: _Strike) -> None:
    await strike.cluster.set_read_only("on")
    try:
        await asyncio.sleep(strike.lengths.read_only)
    finally:
        await strike.cluster.set_read_only("off")


async def disk_full(strike: _Strike) -> None:
    """SQLite's file must not grow by a page."""
    levers = strike.master.levers
    before = strike.swarm.count_refusals("unavailable")
    levers.most_pages = await asyncio.to_thread(strike.cluster.count_pages)
    await asyncio.sleep(strike.lengths.disk_full)
    # Somebody has to be there to feel it, who may be waiting for a worker that was killed before.
    for _ in range(UNFELT_SECONDS):
        if felt := strike.swarm.count_refusals("unavailable") - before:
            break
        await asyncio.sleep(1.0)
    levers.most_pages = 0
    strike.detail = f"{felt} refusals"


def _some_links(strike: _Strike, share: float) -> list[Link]:
    """A share of the clients' connections, which are counted for the report."""
    links = [
        link for master in strike.cluster.masters for link in master.proxy.some(share, strike.dice)
    ]
    strike.detail = f"{len(links)} connections"
    return links


async def reset_clients(strike: _Strike) -> None:
    links = _some_links(strike, RESET_SHARE)
    for link in links:
        link.cut()


async def freeze_clients(strike: _Strike) -> None:
    links = _some_links(strike, FROZEN_SHARE)
    for link in links:
        link.freeze()
    await asyncio.sleep(strike.lengths.frozen)
    for link in links:
        link.thaw()


async def slow_clients(strike: _Strike) -> None:
    links = _some_links(strike, SLOW_SHARE)
    for link in links:
        link.bytes_per_second = SLOW_BYTES_PER_SECOND
    await asyncio.sleep(strike.lengths.slow)
    for link in links:
        link.bytes_per_second = None


async def revoke_tokens(strike: _Strike) -> None:
    clients = strike.swarm.clients
    some = strike.dice.sample(clients, max(1, round(REVOKED_SHARE * len(clients))))
    await asyncio.gather(*(client.revoke() for client in some))
    strike.detail = f"{len(some)} users"


ON_CLIENTS: Mapping[str, Callable[[_Strike], Awaitable[None]]] = {
    "reset_clients": reset_clients,
    "freeze_clients": freeze_clients,
    "slow_clients": slow_clients,
    "revoke_tokens": revoke_tokens,
}
ON_MASTERS: Mapping[str, Callable[[_Strike], Awaitable[None]]] = {
    "kill_worker": kill_worker,
    "kill_master": kill_master,
    "sighup": sighup,
    "sigterm": sigterm,
    "pause_worker": pause_worker,
    "clock_step": clock_step,
}
ON_DATABASE: Mapping[str, Callable[[_Strike], Awaitable[None]]] = {
    "restart_postgres": restart_postgres,
    "end_backends": end_backends,
    "cut_database": cut_database,
    "freeze_database": freeze_database,
    "swallow_answers": swallow_answers,
    "read_only": read_only,
}
ON_BUS: Mapping[str, Callable[[_Strike], Awaitable[None]]] = {
    "kill_redis": kill_redis,
    "stop_redis": stop_redis,
    "cut_bus": cut_bus,
}
ON_POSTGRESQL = {**ON_DATABASE, **ON_BUS}  # or beside it
ON_SQLITE: Mapping[str, Callable[[_Strike], Awaitable[None]]] = {"disk_full": disk_full}
FAULTS = {**ON_CLIENTS, **ON_MASTERS, **ON_POSTGRESQL, **ON_SQLITE}
