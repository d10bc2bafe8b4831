"""One run of each kind: drive a server, take its figures, and check what it did with the messages.

A run whose check fails has no figures. Rates are those of the measured part, after a warm-up;
processor time is what the server and PostgreSQL took in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import processes
from .client import LoadClient, Users
from .postgres import Postgres
from .results import Failed, Figures
from .servers import Running, Server, running

PAIRS = 32
BESIDE = 10_000  # the number of the first user who is connected beside the load
MEMORY_BASE = 100  # connections that are open before memory is measured for the first time
SETTLE_SECONDS = 2.0
CEILING_SECONDS = 2.0


FAULTS: dict[str, Callable[[dict[str, Any]], int]] = {
    "lost": lambda result: int(result["accepted"] - result["delivered"]),
    "twice": lambda result: int(result["duplicates"]),
    "swapped": lambda result: int(result["order_breaks"]),
}


@dataclass(frozen=True)
class Bench:
    """What every run needs."""

    postgres: Postgres
    users: Users
    seconds: float
    warmup: float


@dataclass(frozen=True)
class Cost:
    """Seconds of a part of a run: by the clock, and of the processors."""

    clock: float
    server: float
    postgres: float
    machine: float  # everything that ran on it

    @classmethod
    def so_far(cls, up: Running, postgres: Postgres) -> Cost:
        """Since they began; the difference of two of these is what something cost."""
        return cls(
            time.monotonic(),
            up.cpu_seconds(),
            processes.cpu_seconds(postgres.pid),
            processes.busy_seconds(),
        )

    def since(self, before: Cost) -> Cost:
        """The difference."""
        return Cost(
            self.clock - before.clock,
            self.server - before.server,
            self.postgres - before.postgres,
            self.machine - before.machine,
        )

    def taken_by_others(self, client: float) -> Figures:
        """The percentage of the processors that went to what has no part in the run."""
        others = self.machine - self.server - self.postgres - client
        return {"others": max(0.0, 100 * others / self.clock / (os.cpu_count() or 1))}

    def per_thousand(self, count: float) -> Figures:
        """As figures of a run with so many messages."""
        thousands = count / 1000
        return {
            "server_cpu": self.server / thousands,
            "postgres_cpu": self.postgres / thousands,
            "cpu": (self.server + self.postgres) / thousands,
        }


def exchange(
    bench: Bench,
    server: Server,
    *options: object,
    mode: str = "pairs",
    people: int = 2 * PAIRS,
    idle: int = 0,
    template: str = "template0",
) -> Figures:
    """Messages between users, with `idle` others connected meanwhile."""
    with (
        running(server, bench.postgres, bench.users, template) as up,
        _idle(up, bench.users, idle),
    ):
        up.publish_keys(bench.users.keys(people))
        stored_before = up.stored()
        with _client(bench, up, mode, bench.users.file(people), *options) as client:
            client.begin()
            cost = _measured(client, up, bench.postgres)
            result = client.result()
        check(result, up.stored() - stored_before, keeps_order=server.keeps_order)
    return _message_figures(result, cost)


def drain(bench: Bench, server: Server, count: int) -> Figures:
    """So many messages wait for a recipient, who comes back: how fast it has them."""
    with running(server, bench.postgres, bench.users) as up:
        up.publish_keys(bench.users.keys(2))
        with _client(bench, up, "drain", bench.users.file(2), "--count", count) as client:
            client.begin()
            cost = _measured(client, up, bench.postgres)
            result = client.result()
        check(result, up.stored(), keeps_order=server.keeps_order)
    return {
        "rate": result["delivered"] / result["seconds"],
        **cost.per_thousand(result["delivered"]),
    }


def idle_memory(bench: Bench, server: Server, count: int) -> Figures:
    """What so many connections that do nothing cost, each."""
    with (
        running(server, bench.postgres, bench.users) as up,
        _idle(up, bench.users, MEMORY_BASE),
    ):
        before = _settled_memory(up)
        file = bench.users.file(count, first=BESIDE + MEMORY_BASE)
        with LoadClient("idle", up.port, file, *server.client_options) as client:
            client.wait_for("ready")
            after = _settled_memory(up)
            seen = client.end()
    if seen["lost_connections"]:
        raise Failed(f"{seen['lost_connections']} idle connections were lost")
    return {
        "kib": (after.pss - before.pss) / 1024 / count,
        "kib_rss": (after.rss - before.rss) / 1024 / count,
        "with_deflate": seen["with_deflate"],
    }


def handshakes(bench: Bench, server: Server, at_once: int) -> Figures:
    """Connect, say hello and goodbye, so many at once."""
    with running(server, bench.postgres, bench.users) as up:
        file = bench.users.file(8 * at_once)
        with _client(bench, up, "handshakes", file, "--at-once", at_once) as client:
            client.begin()
            cost = _measured(client, up, bench.postgres)
            result = client.result()
    if result["refused"]:
        raise Failed(f"{result['refused']} handshakes failed: {result['first_error']}")
    count = result["handshakes_measured"]
    return {"rate": count / result["seconds"], **cost.per_thousand(count)}


def ceiling(users: Users, window: int) -> Figures:
    """What the load client itself can drive, against a server that only answers and forwards."""
    result = _echo(users, "--window", window, "--seconds", CEILING_SECONDS)
    count = result["accepted_measured"]
    return {
        "rate": count / result["seconds"],
        "client_cpu": result["client_cpu_seconds"] / count * 1000,
    }


def prove_the_check(users: Users) -> None:
    """See that messages which are lost, come twice or out of order make a run fail.

    Raises: Failed: a run passes although its server was told to do something wrong.
    """
    times = ("--seconds", 0.3, "--warmup", 0.1, "--patience", 0.3)
    for fault, count in FAULTS.items():
        result = _echo(users, *times, "--fault", fault)
        try:
            check(result, result["accepted"], keeps_order=True)
        except Failed:
            if count(result) > 0:
                continue
        raise Failed(f"the check does not see that messages are {fault}")


def _echo(users: Users, *options: object) -> dict[str, Any]:
    file = users.file(2 * PAIRS)
    with LoadClient("echo", 0, file, "--pairs", PAIRS, "--envelopes", *options) as client:
        client.begin()
        client.wait_for("measuring")
        client.wait_for("measured")
        return client.result()


def _client(bench: Bench, up: Running, mode: str, users: Any, *options: object) -> LoadClient:
    times = ("--seconds", bench.seconds, "--warmup", bench.warmup)
    return LoadClient(mode, up.port, users, *times, *up.server.client_options, *options)


@contextmanager
def _idle(up: Running, users: Users, count: int) -> Iterator[None]:
    if count == 0:
        yield
        return
    file = users.file(count, first=BESIDE)
    with LoadClient("idle", up.port, file, *up.server.client_options) as client:
        client.wait_for("ready")
        yield
        seen = client.end()
        if seen["lost_connections"]:
            raise Failed(f"{seen['lost_connections']} connections beside the load were lost")


def _measured(client: LoadClient, up: Running, postgres: Postgres) -> Cost:
    client.wait_for("measuring")
    before = Cost.so_far(up, postgres)
    client.wait_for("measured")
    return Cost.so_far(up, postgres).since(before)


def _settled_memory(up: Running) -> processes.Memory:
    # What a handshake leaves behind is given back by timers and collections, not at once.
    time.sleep(SETTLE_SECONDS)
    return processes.memory(up.pid)


def check(result: dict[str, Any], stored: int, *, keeps_order: bool) -> None:
    """What was sent was acknowledged, stored and delivered, once and in order.

    Raises: Failed: it was not.
    """
    accepted, delivered = result["accepted"], result["delivered"]
    if result["errors"] or result["lost_connections"]:
        raise Failed(f"{result['errors']} errors, the first: {result['first_error']}")
    if not result["sent"] == accepted == stored == delivered:
        raise Failed(
            f"{result['sent']} sent, {accepted} acknowledged, {stored} stored, "
            f"{delivered} delivered"
        )
    if result["duplicates"] or result["foreign"]:
        raise Failed(f"{result['duplicates']} twice, {result['foreign']} that nobody sent")
    if result["order_breaks"] and keeps_order:
        raise Failed(f"{result['order_breaks']} messages out of order")


def _message_figures(result: dict[str, Any], cost: Cost) -> Figures:
    accepted = result["accepted_measured"]
    if accepted == 0:
        raise Failed("nothing was acknowledged in the measured part")
    figures = {
        "rate": accepted / result["seconds"],
        "delivered_rate": result["delivered_measured"] / result["seconds"],
        "order_breaks_per_1000": result["order_breaks"] / result["sent"] * 1000,
        "client_cpu": result["client_cpu_seconds"] / accepted * 1000,
        **cost.per_thousand(accepted),
        **cost.taken_by_others(result["client_cpu_seconds"]),
    }
    for side in ("accepted", "delivered"):
        for name, value in (result[f"{side}_ms"] or {}).items():
            figures[f"{side}_{name}"] = value
    return figures
