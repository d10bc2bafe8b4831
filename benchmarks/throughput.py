"""Acknowledged, durable messages per second: `python -m benchmarks.throughput --help`.

Starts gunicorn with one gevent worker on a fresh database, drives sender and recipient pairs
against it, and prints rates, latencies and the server's CPU time. Every message is committed with
fsync, delivered, acknowledged by the recipient, and receipted to the sender.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import psutil

from .load import Pair, Peer, Result, run

START_SECONDS = 30.0


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.database_url or f"sqlite:///{Path(folder) / 'measured.db'}"
        secret = secrets.token_urlsafe(32)
        port = _free_port()
        server = _start(url, secret, port)
        try:
            _wait_for(port, server)
            result, cpu = _measure(arguments, port, secret, server.pid)
        finally:
            server.terminate()
            server.wait()
    _print(arguments, url, result, cpu)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--database-url", help="an empty PostgreSQL database; default: SQLite")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--window", type=int, default=8, help="unanswered messages per sender")
    parser.add_argument("--bytes", type=int, default=256, help="of ciphertext per message")
    parser.add_argument("--seconds", type=float, default=10.0)
    return parser.parse_args()


def _start(url: str, secret: str, port: int) -> subprocess.Popen[bytes]:
    command = "gunicorn -k gevent -w 1 --log-level warning --no-control-socket"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", *command.split()),
            *("-b", f"127.0.0.1:{port}", "benchmarks.host:create_app()"),
        ],
        env={**os.environ, "DATABASE_URL": url, "JWT_SECRET_KEY": secret},
    )


def _measure(
    arguments: argparse.Namespace, port: int, secret: str, pid: int
) -> tuple[Result, float]:
    content = secrets.token_urlsafe(arguments.bytes)
    result, pairs = Result(), []
    for number in range(arguments.pairs):
        recipient = Peer(port, _token(secret, f"recipient-{number}"))
        sender = Peer(port, _token(secret, f"sender-{number}"))
        pairs.append(Pair(sender, recipient, f"recipient-{number}", content, result))
    before = _cpu_seconds(pid)
    run(pairs, result, arguments.window, arguments.seconds)
    return result, _cpu_seconds(pid) - before


def _print(arguments: argparse.Namespace, url: str, result: Result, cpu: float) -> None:
    print(f"{url.partition(':')[0]}, {arguments.pairs} pairs, window {arguments.window}")
    print(f"acknowledged and delivered: {result.accepted}, {result.delivered}")
    print(f"messages per second:        {result.accepted / result.seconds:.0f}")
    for name, values in (("accepted", result.accept_ms), ("delivered", result.deliver_ms)):
        cuts = statistics.quantiles(values, n=100)
        print(f"{name} p50, p99 in ms:   {cuts[49]:.1f}, {cuts[98]:.1f}")
    print(f"server CPU s per 1,000:     {cpu / result.accepted * 1000:.3f}")


def _token(secret: str, user_id: str) -> str:
    moment = datetime.now(UTC)
    claims = {"sub": user_id, "type": "access", "jti": secrets.token_hex(8), "fresh": False}
    return jwt.encode({**claims, "iat": moment, "exp": moment + timedelta(hours=1)}, secret)


def _cpu_seconds(master: int) -> float:
    processes = psutil.Process(master).children(recursive=True)
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise SystemExit("gunicorn did not start")


if __name__ == "__main__":
    main()
