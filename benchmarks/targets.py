"""The figures to reach, and whether they are reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from .results import TIMES, Results, Spread
from .workloads import (
    FASTIFY,
    FULL_LOAD,
    HALF_CAPACITY,
    HISTORIES,
    IDLE_BESIDE,
    OURS,
    POSTGRESQL,
    SQLITE,
    STRONG,
    THREADS,
    TWO_WORKERS,
)

Verdict = Literal["aim met", "met", "NOT MET", "not measured"]


@dataclass(frozen=True)
class Target:
    """A figure with the bound that it must keep, and the one that is aimed at."""

    title: str
    measure: Callable[[Results], Spread | None]
    must: float
    aim: float | None
    unit: str = TIMES
    more_is_better: bool = True

    def verdict(self, measured: Spread | None) -> Verdict:
        """Judged by the median."""
        if measured is None:
            return "not measured"
        if self.aim is not None and self._keeps(measured.median, self.aim):
            return "aim met"
        return "met" if self._keeps(measured.median, self.must) else "NOT MET"

    def bound(self, value: float | None) -> str:
        """A bound as text."""
        sign = "≥" if self.more_is_better else "≤"
        return "" if value is None else f"{sign} {value:g} {self.unit}"

    def _keeps(self, value: float, bound: float) -> bool:
        return value >= bound if self.more_is_better else value <= bound


Measure = Callable[[Results], Spread | None]


def _over(workload: str, theirs: str, figure: str = "rate", ours: str = OURS) -> Measure:
    return lambda results: results.ratio((workload, ours), (workload, theirs), figure)


def _under(workload: str, theirs: str, figure: str) -> Measure:
    return lambda results: results.ratio((workload, OURS), (workload, theirs), figure, inverse=True)


def _figure(workload: str, server: str, figure: str) -> Measure:
    return lambda results: results.spread(workload, server, figure)


def _growth(workloads: list[str]) -> Measure:
    """By how many percent the processor time of a message has grown, in the worst case."""

    def measure(results: Results) -> Spread | None:
        first, *others = ((name, OURS) for name in workloads)
        ratios = [results.ratio(other, first, "cpu") for other in others]
        known = [ratio for ratio in ratios if ratio is not None]
        if len(known) < len(others):
            return None
        worst = max(known, key=lambda ratio: ratio.median)
        return Spread(*(100 * (x - 1) for x in (worst.median, worst.low, worst.high)))

    return measure


def _share_of_limit(results: Results) -> Spread | None:
    return results.ratio((FULL_LOAD, OURS), ("insert-limit", POSTGRESQL), "rate")


def _latencies() -> Iterator[Target]:
    cases = (
        ("pairs-w1", "w=1", ("p50", "p99")),
        (FULL_LOAD, "w=8", ("p50", "p99")),
        (HALF_CAPACITY, "at half of Fastify's capacity", ("p99",)),
    )
    for workload, name, parts in cases:
        for part in parts:
            title = f"delivery {part}, {name}, against Fastify"
            measure = _over(workload, FASTIFY, f"delivered_{part}")
            yield Target(title, measure, 1, 0.25, more_is_better=False)


TARGETS = (
    Target("messages/s, w=8, against Fastify", _over(FULL_LOAD, FASTIFY), 4, 7),
    Target("messages/s, w=1, against Fastify", _over("pairs-w1", FASTIFY), 2.5, 5),
    Target("one quiet pair, messages/s, against Fastify", _over("quiet", FASTIFY), 0.8, 1.2),
    Target(
        "one quiet pair, p50 of delivery, Fastify's over ours",
        _under("quiet", FASTIFY, "delivered_p50"),
        0.8,
        1.2,
    ),
    Target("messages/s, w=8, against strong Fastify", _over(FULL_LOAD, STRONG), 1, 2),
    Target("share of PostgreSQL's own limit, w=8", _share_of_limit, 0.4, 0.7),
    Target("4 KiB, w=8, against Fastify", _over("pairs-4k", FASTIFY), 2.5, 4),
    *_latencies(),
    Target(
        "server's processor time per message, w=8, against Fastify",
        _over(FULL_LOAD, FASTIFY, "server_cpu"),
        0.25,
        0.1,
        more_is_better=False,
    ),
    Target(
        "PostgreSQL's processor time per message, w=8, against Fastify",
        _over(FULL_LOAD, FASTIFY, "postgres_cpu"),
        0.5,
        0.125,
        more_is_better=False,
    ),
    Target("one sender to 1,000, against Fastify", _over("fanout-1000", FASTIFY), 3, 7),
    Target("backlog drain, against Fastify", _over("drain", FASTIFY), 1, 2),
    Target(
        "idle connection, of 5,000, deflate offered",
        _figure("idle-5000", OURS, "kib"),
        12,
        6,
        "KiB",
        more_is_better=False,
    ),
    Target(
        "idle connection, with threads",
        _figure("idle-5000", THREADS, "kib"),
        40,
        None,
        "KiB",
        more_is_better=False,
    ),
    Target("handshakes, against Fastify", _over("handshakes", FASTIFY), 0.8, 1),
    Target(
        "two workers, w=8, against one Fastify", _over(FULL_LOAD, FASTIFY, ours=TWO_WORKERS), 3, 6
    ),
    Target(
        "SQLite, w=8, against Fastify on PostgreSQL", _over(FULL_LOAD, FASTIFY, ours=SQLITE), 2, 4
    ),
    Target(
        "growth of processor time per message, 10 to 5,000 idle connections",
        _growth([f"beside-{idle}" for idle in IDLE_BESIDE]),
        20,
        5,
        "%",
        more_is_better=False,
    ),
    Target(
        "growth of processor time per message, 10³ to 10⁶ stored messages",
        _growth([f"history-{stored}" for stored in HISTORIES]),
        20,
        5,
        "%",
        more_is_better=False,
    ),
)
