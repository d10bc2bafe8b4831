"""The servers that the benchmark compares with. What each one is stands in README.md.

`prepare()` installs what is missing, `start()` runs one of them. All of them listen on loopback,
have one process for the work, and are the same to a client but for Socket.IO's wrapping.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parent.parent
ENVIRONMENT = REPOSITORY / ".venv" / "bench" / "peers"
PYTHON = ENVIRONMENT / "bin" / "python"
FOREIGN = ("FLASK_", "GUNICORN_", "JWT_", "NODE_", "PG", "SQLALCHEMY_", "WEB_CONCURRENCY")
MAX_CONNECTIONS = 20_000  # gunicorn's default of 1,000 would leave the idle connections outside


@dataclass(frozen=True)
class Peer:
    """One server, and what it takes to run and to talk to it."""

    name: str
    title: str
    needs_node: bool
    is_socketio: bool


PEERS = {
    peer.name: peer
    for peer in (
        Peer("fastify", "Fastify", needs_node=True, is_socketio=False),
        Peer("fastify-strong", "Fastify, group commit", needs_node=True, is_socketio=False),
        Peer("flask-naive", "Flask by hand", needs_node=False, is_socketio=False),
        Peer("flask-socketio", "Flask-SocketIO", needs_node=False, is_socketio=True),
    )
}
SCRIPTS = {"fastify": "naive.js", "fastify-strong": "strong.js"}
APPS = {"flask-naive": "flask_naive:app", "flask-socketio": "flask_socketio_relay:application"}


def prepare() -> None:
    """Install what the peers need and is not there yet, in the versions that the files here name.

    Without npm the Node peers are left out; with it, they need Node 20 or newer.
    """
    _prepare_python()
    if shutil.which("npm"):
        _prepare_node()


def start(peer: Peer, database_url: str, secret: str, port: int) -> subprocess.Popen[bytes]:
    """Start a peer on an empty table. It is the leader of a process group of its own.

    Args:
        peer: one of PEERS.
        database_url: `postgresql://user:password@host:port/name`; its table `messages` is dropped.
        secret: the key of the tokens (HS256).
        port: on 127.0.0.1; the peer listens on it soon after the return.
    """
    with psycopg.connect(database_url) as connection:
        connection.execute((FOLDER / "schema.sql").read_bytes())
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment = {
        **kept,
        "DATABASE_URL": database_url,
        "JWT_SECRET": secret,
        "NODE_ENV": "production",
        "PORT": str(port),
    }
    return subprocess.Popen(
        _command(peer, port), cwd=REPOSITORY, env=environment, start_new_session=True
    )


def _command(peer: Peer, port: int) -> list[str]:
    if peer.needs_node:
        return ["node", str(FOLDER / "fastify" / SCRIPTS[peer.name])]
    return [
        *(str(PYTHON), "-m", "gunicorn", "-k", "gevent", "-w", "1"),
        *("--worker-connections", str(MAX_CONNECTIONS), "--log-level", "warning"),
        *("-b", f"127.0.0.1:{port}", f"benchmarks.peers.{APPS[peer.name]}"),
    ]


def _prepare_python() -> None:
    requirements, stamp = FOLDER / "requirements.txt", ENVIRONMENT / ".installed"
    if _is_newer(stamp, requirements):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--only-binary=:all:", "-r", str(requirements)], check=True)
    stamp.touch()


def _prepare_node() -> None:
    modules = FOLDER / "node_modules"
    if _is_newer(modules / ".package-lock.json", FOLDER / "package-lock.json"):
        return
    subprocess.run(["npm", "ci", "--silent"], cwd=FOLDER, check=True)


def _is_newer(stamp: Path, source: Path) -> bool:
    return stamp.exists() and stamp.stat().st_mtime >= source.stat().st_mtime
