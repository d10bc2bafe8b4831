"""What is measured, and on which servers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from . import runs, tables
from .results import Figures, Results
from .runs import Bench
from .servers import Server

OURS, SQLITE, TWO_WORKERS, THREADS = "e2emsg", "e2emsg-sqlite", "e2emsg-2", "e2emsg-threads"
FASTIFY, STRONG, NAIVE, SOCKETIO = "fastify", "fastify-strong", "flask-naive", "flask-socketio"
POSTGRESQL, CLIENT = "postgresql", "load-client"  # measured alone, as limits of the others

ALL = (OURS, FASTIFY, STRONG, NAIVE, SOCKETIO)
MAIN = (OURS, FASTIFY, STRONG)
FEW = (OURS, FASTIFY)
HALF_CAPACITY, FULL_LOAD = "half-capacity", "pairs-w8"
IDLE_BESIDE = (10, 1_000, 5_000)
HISTORIES = (1_000, 1_000_000)


class CannotRun(Exception):
    """What the workload needs is not there."""


class Session:
    """What workloads share: the bench, the results so far, and histories made once."""

    def __init__(self, bench: Bench, results: Results) -> None:
        self.bench = bench
        self.results = results
        self.template = functools.cache(self._template)

    def fastify_capacity(self) -> float:
        """Messages a second that Fastify takes at most, as far as it was measured."""
        rate = self.results.spread(FULL_LOAD, FASTIFY, "rate")
        if rate is None:
            raise CannotRun(f"Fastify's capacity is not known: measure {FULL_LOAD} with it as well")
        return rate.median

    def _template(self, stored: int) -> str:
        return tables.make_history(self.bench.postgres, self.bench.users, stored)


Run = Callable[[Session, Server], Figures]
Limit = Callable[[Session], Figures]


@dataclass(frozen=True)
class Workload:
    """One thing to measure. `limit` measures no server, but what stands behind or before it."""

    name: str
    title: str
    unit: str  # of what the figure `rate` counts
    servers: tuple[str, ...]
    run: Run | None = None
    limit: Limit | None = None
    is_quick: bool = False  # belongs to the short run as well


def _pairs(pairs: int, window: int, size: int, *, idle: int = 0) -> Run:
    options = ("--pairs", pairs, "--window", window, "--bytes", size)

    def run(session: Session, server: Server) -> Figures:
        return runs.exchange(session.bench, server, *options, people=2 * pairs, idle=idle)

    return run


def _with_history(stored: int) -> Run:
    def run(session: Session, server: Server) -> Figures:
        template = session.template(stored)
        options = ("--pairs", runs.PAIRS, "--window", 8)
        return runs.exchange(session.bench, server, *options, template=template)

    return run


def _fanout(recipients: int) -> Run:
    options = ("--recipients", recipients, "--window", 64)

    def run(session: Session, server: Server) -> Figures:
        figures = runs.exchange(
            session.bench, server, *options, mode="fanout", people=1 + recipients
        )
        return figures | {"rate": figures["delivered_rate"]}

    return run


def _half_capacity(session: Session, server: Server) -> Figures:
    rate = session.fastify_capacity() / 2
    options = ("--pairs", runs.PAIRS, "--rate", f"{rate:.0f}")
    return runs.exchange(session.bench, server, *options, mode="rate") | {"asked_rate": rate}


def _drain(session: Session, server: Server) -> Figures:
    return runs.drain(session.bench, server, 10_000)


def _handshakes(session: Session, server: Server) -> Figures:
    return runs.handshakes(session.bench, server, 16)


def _idle(count: int) -> Run:
    def run(session: Session, server: Server) -> Figures:
        return runs.idle_memory(session.bench, server, count)

    return run


def _insert_limit(session: Session) -> Figures:
    bench = session.bench
    return tables.insert_limit(bench.postgres, session.template(0), bench.seconds)


def _client_ceiling(window: int) -> Limit:
    def limit(session: Session) -> Figures:
        return runs.ceiling(session.bench.users, window)

    return limit


MESSAGES, DELIVERIES = "messages/s", "deliveries/s"
WORKLOADS = (
    Workload(
        "client",
        "The load client alone, window 8",
        MESSAGES,
        (CLIENT,),
        limit=_client_ceiling(8),
        is_quick=True,
    ),
    Workload(
        "insert-limit",
        "PostgreSQL alone, batches of 512 rows",
        "rows/s",
        (POSTGRESQL,),
        limit=_insert_limit,
        is_quick=True,
    ),
    Workload(
        "pairs-w1",
        "32 pairs, window 1",
        MESSAGES,
        (*ALL, SQLITE, THREADS),
        run=_pairs(32, 1, 256),
        is_quick=True,
    ),
    Workload(
        FULL_LOAD,
        "32 pairs, window 8",
        MESSAGES,
        (*ALL, SQLITE, TWO_WORKERS, THREADS),
        run=_pairs(32, 8, 256),
        is_quick=True,
    ),
    Workload("pairs-4k", "32 pairs, window 8, 4 KiB", MESSAGES, MAIN, run=_pairs(32, 8, 4096)),
    Workload(
        "quiet", "One quiet pair", MESSAGES, (*MAIN, SQLITE), run=_pairs(1, 1, 256), is_quick=True
    ),
    Workload(
        HALF_CAPACITY,
        "32 pairs, half of what Fastify can, open loop",
        MESSAGES,
        MAIN,
        run=_half_capacity,
        is_quick=True,
    ),
    Workload("fanout-100", "One sender to 100 recipients", DELIVERIES, MAIN, run=_fanout(100)),
    Workload(
        "fanout-1000",
        "One sender to 1,000 recipients",
        DELIVERIES,
        (*MAIN, THREADS),
        run=_fanout(1000),
        is_quick=True,
    ),
    Workload(
        "drain",
        "A backlog of 10,000",
        DELIVERIES,
        (*MAIN, THREADS),
        run=_drain,
        is_quick=True,
    ),
    Workload(
        "handshakes",
        "Handshakes, 16 at once",
        "handshakes/s",
        FEW,
        run=_handshakes,
        is_quick=True,
    ),
    Workload("idle-1000", "1,000 idle connections", "", FEW, run=_idle(1000), is_quick=True),
    Workload("idle-5000", "5,000 idle connections", "", (*FEW, THREADS), run=_idle(5000)),
    *(
        Workload(
            f"beside-{idle}",
            f"32 pairs, window 8, {idle:,} idle beside them",
            MESSAGES,
            (OURS,),
            run=_pairs(32, 8, 256, idle=idle),
        )
        for idle in IDLE_BESIDE
    ),
    *(
        Workload(
            f"history-{stored}",
            f"32 pairs, window 8, {stored:,} messages stored",
            MESSAGES,
            (OURS,),
            run=_with_history(stored),
        )
        for stored in HISTORIES
    ),
)
