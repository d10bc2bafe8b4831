"""Measure servers in turn, print what they do and cost, and whether our figures are reached.

`python -m benchmarks --help`, or `make bench` and `make bench-quick`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg

from . import picture, report, runs
from .client import CannotCompile, Users, compile_client
from .peer_servers import peer_servers
from .postgres import Postgres
from .results import Failed, Figures, Measurement, Results
from .runs import Bench
from .servers import OUR_SERVERS, Server
from .workloads import (
    CLIENT,
    FASTIFY,
    OURS,
    POSTGRESQL,
    SQLITE,
    WORKLOADS,
    CannotRun,
    Session,
    Workload,
)

QUICK_SERVERS = (OURS, SQLITE, FASTIFY)
LIMITS = {POSTGRESQL: "PostgreSQL itself", CLIENT: "the load client itself"}


def main() -> None:
    """Measure and print; the exit status is 1 when a run failed its check."""
    arguments = _arguments()
    try:
        compile_client()
    except CannotCompile as error:
        sys.exit(str(error))
    servers = _servers(_names(arguments.servers))
    workloads = list(_chosen(arguments, servers))
    with Postgres() as postgres, Users() as users:
        machine = _machine(postgres)
        print("\n".join(f"{name}: {value}" for name, value in machine.items()))
        if not machine["is_durable"]:
            sys.exit("PostgreSQL does not write commits through to the disk: nothing is measured.")
        results = _measure(arguments, postgres, users, workloads, servers)
    _report(arguments, results, machine, servers)
    sys.exit(1 if results.failures else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(workload.name for workload in WORKLOADS)
    parser.add_argument("--quick", action="store_true", help="fewer workloads, shorter runs")
    parser.add_argument("--only", help=f"of the workloads, comma-separated: {names}")
    parser.add_argument("--servers", help="comma-separated; all without it")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="of every run's measured part")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--picture", type=Path, default=Path("build/bench.svg"))
    arguments = parser.parse_args()
    if unknown := _names(arguments.only) - {workload.name for workload in WORKLOADS}:
        parser.error(f"there is no workload {', '.join(unknown)}; there are {names}")
    return arguments


def _servers(wanted: set[str]) -> dict[str, Server]:
    """Ours, and the peers unless nobody asks for one."""
    if wanted and wanted <= OUR_SERVERS.keys():
        return OUR_SERVERS
    servers = OUR_SERVERS | peer_servers(print)
    if unknown := wanted - servers.keys():
        sys.exit(f"There is no server {', '.join(unknown)}; there are {', '.join(servers)}.")
    return servers


def _names(text: str | None) -> set[str]:
    return set(filter(None, (text or "").split(",")))


def _chosen(
    arguments: argparse.Namespace, servers: dict[str, Server]
) -> Iterator[tuple[Workload, list[str]]]:
    """The workloads, each with the servers that it is for."""
    only, wanted = _names(arguments.only), _names(arguments.servers)
    if arguments.quick and not wanted:
        wanted = set(QUICK_SERVERS)
    for workload in WORKLOADS:
        if workload.name not in only if only else arguments.quick and not workload.is_quick:
            continue
        known = [s for s in workload.servers if s in servers and (not wanted or s in wanted)]
        chosen = known if workload.limit is None else list(workload.servers)
        if chosen:
            yield workload, chosen


def _measure(
    arguments: argparse.Namespace,
    postgres: Postgres,
    users: Users,
    workloads: list[tuple[Workload, list[str]]],
    servers: dict[str, Server],
) -> Results:
    runs.prove_the_check(users)
    print("The check sees lost, doubled and swapped messages.")
    results = Results()
    seconds = arguments.seconds or (2.0 if arguments.quick else 5.0)
    bench = Bench(postgres, users, seconds, warmup=min(1.0, seconds / 3))
    session = Session(bench, results)
    for number in range(1, arguments.rounds + 1):
        for workload, names in workloads:
            # Nobody shall always be the one who comes after somebody else's work.
            first = number % len(names)
            for name in names[first:] + names[:first]:
                _run(session, workload, name, servers.get(name), number)
    return results


def _run(
    session: Session, workload: Workload, name: str, server: Server | None, number: int
) -> None:
    began, failure = time.monotonic(), None
    figures: Figures = {}
    try:
        if workload.limit is not None:
            figures = workload.limit(session)
        elif workload.run is not None and server is not None:
            figures = workload.run(session, server)
    except CannotRun as reason:
        print(f"[{number}] {workload.name} {name}: left out. {reason}", flush=True)
        return
    except (Failed, OSError, psutil.Error, psycopg.Error) as error:
        failure = str(error) or type(error).__name__
    session.results.add(Measurement(workload.name, name, number, figures, failure))
    said = _summary(workload, figures) if failure is None else f"!!! NO FIGURE: {failure}"
    print(
        f"[{number}] {workload.name} {name}: {said} ({time.monotonic() - began:.0f} s)", flush=True
    )


def _summary(workload: Workload, figures: Figures) -> str:
    parts = []
    if "rate" in figures:
        parts.append(f"{figures['rate']:,.0f} {workload.unit}")
    if "kib" in figures:
        parts.append(f"{figures['kib']:.1f} KiB per connection")
    if "server_cpu" in figures:
        costs = f"{figures['server_cpu']:.4f} + {figures['postgres_cpu']:.4f}"
        parts.append(f"CPU s per 1,000 of server and PostgreSQL {costs}")
    return ", ".join(parts)


def _report(
    arguments: argparse.Namespace,
    results: Results,
    machine: dict[str, Any],
    servers: dict[str, Server],
) -> None:
    titles = LIMITS | {server.name: server.title for server in servers.values()}
    report.print_tables(results, titles)
    report.print_targets(results)
    report.print_noise(results)
    report.print_failures(results)
    note = (
        f"{machine['cores']} cores, PostgreSQL {machine['postgresql']} with fsync, "
        f"{arguments.rounds} rounds in turn; lines: from the worst to the best round"
    )
    _write(arguments.json, json.dumps(report.as_json(results, machine), indent=1) + "\n")
    _write(arguments.picture, picture.draw(results, note))
    print(f"\n{arguments.json} and {arguments.picture} have it, too.")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _machine(postgres: Postgres) -> dict[str, Any]:
    settings = postgres.durability()
    version = settings.pop("server_version")
    return {
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "node": _version_of("node"),
        "postgresql": version,
        "settings": settings,
        "is_durable": set(settings.values()) == {"on"},
    }


def _version_of(program: str) -> str | None:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


if __name__ == "__main__":
    main()
