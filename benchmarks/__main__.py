"""Measure: `python -m benchmarks --help`."""

from __future__ import annotations

import sys

from .client import LoadClient, Users, compile_client
from .postgres import Postgres
from .servers import OURS, running


def main() -> None:
    """Measure and print."""
    compile_client()
    users = Users()
    names = sys.argv[1].split(",") if len(sys.argv) > 1 else ["e2emsg", "e2emsg-sqlite"]
    with Postgres() as postgres:
        print(postgres.durability())
        for name in names:
            for window in (1, 8):
                one(name, window, postgres, users)


def one(name: str, window: int, postgres: Postgres, users: Users) -> None:
    server = OURS[name]
    from . import processes

    with running(server, postgres, users) as up:
        options = ("--pairs", 32, "--window", window, "--seconds", 5, *server.client_options)
        with LoadClient("pairs", up.port, users.file(64), *options) as client:
            client.begin()
            client.wait_for("measuring")
            cpu, pg = up.cpu_seconds(), processes.cpu_seconds(postgres.pid)
            client.wait_for("measured")
            cpu, pg = up.cpu_seconds() - cpu, processes.cpu_seconds(postgres.pid) - pg
            result = client.result()
            print(name, f"window {window}", result)
            thousand = result["accepted_measured"] / 1000
            print(
                "stored",
                up.stored(),
                "accepted",
                result["accepted"],
                "delivered",
                result["delivered"],
            )
            print(
                f"{thousand / result['seconds'] * 1000:.0f} msg/s, CPU s per 1,000: server"
                f" {cpu / thousand:.4f}, PostgreSQL {pg / thousand:.4f}"
            )


if __name__ == "__main__":
    main()
