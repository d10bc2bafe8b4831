"""What large contents cost a process that stores them in PostgreSQL.

`python -m tests.store.large URL` measures it in a process of its own, whose C library can be told
to keep the memory that it has: to get it anew, page by page, may cost more than all the rest.
"""

from __future__ import annotations

import secrets
import sys
import time

import sqlalchemy as sa

from tests.store.process import Process, sending

BATCH = 128
SMALL, LARGE = 64, 4096
ROUNDS = 30
BOUND = 10


def seconds_for_batch(store: Process, size: int) -> float:
    """Of this process's time, for a batch of contents of so many bytes."""
    alice, bob = store.user("alice"), store.user("bob")
    batch = [sending(alice, bob, secrets.token_hex(size // 2)) for _ in range(BATCH)]
    began = time.process_time()
    store.append(*batch)
    return time.process_time() - began


def seconds_for_bytes(store: Process, size: int) -> float:
    """Of this process's time, for one value of so many bytes."""
    value = {"value": secrets.token_bytes(size)}
    with store.database.read() as connection:
        began = time.process_time()
        connection.exec_driver_sql("SELECT length(%(value)s::bytea)", value)
        return time.process_time() - began


def main() -> None:
    """Take each in turn, so that a busy machine slows them alike, and the best of each."""
    store = Process(sa.create_engine(sys.argv[1]))
    rounds = [
        (
            seconds_for_batch(store, SMALL),
            seconds_for_batch(store, LARGE),
            seconds_for_bytes(store, BATCH * LARGE),
        )
        for _ in range(ROUNDS)
    ]
    small, large, their_bytes = map(min, zip(*rounds, strict=True))
    assert large - small < BOUND * their_bytes, (small, large, their_bytes)


if __name__ == "__main__":
    main()
