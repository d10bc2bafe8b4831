"""Appending to the same mailboxes from several processes at once.

Threads with a pool and a memory of their own each stand for the processes; where the lock of the
operating system matters, it is a real process.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Barrier

import pytest
import sqlalchemy as sa

from flask_e2emsg.errors import Refusal, UnknownRecipient
from flask_e2emsg.protocol.entries import ReceiptEntry
from flask_e2emsg.store.accounts import Party
from flask_e2emsg.store.mailbox import Ack, Appended, Read
from flask_e2emsg.store.models import accounts, messages
from tests.servers import wait_until
from tests.store.process import Process, sending, sending_many

WRITERS = 4
ROUNDS = 40
PATIENCE_SECONDS = 60


class TestOverlappingMailboxes:
    """Everybody writes to everybody, acknowledges and reads, in batches of random order."""

    @pytest.fixture
    def crowd(self, store: Process) -> list[Party]:
        return [store.user(f"user {n}") for n in range(5)]

    @pytest.fixture
    def followed(
        self, another_process: Callable[[], Process], crowd: list[Party]
    ) -> dict[str, list[int]]:
        """The positions that a cursor on each mailbox passed while the writers were writing."""
        processes = [another_process() for _ in range(WRITERS)]
        with ThreadPoolExecutor(WRITERS + 1) as pool:
            writing = [pool.submit(write, p, crowd, seed) for seed, p in enumerate(processes)]
            following = pool.submit(follow, another_process(), crowd, writing)
            wait(writing, PATIENCE_SECONDS)
            for writer in writing:
                writer.result(0)
            return following.result(PATIENCE_SECONDS)

    def test_a_cursor_meets_no_hole_and_misses_nothing(
        self, store: Process, crowd: list[Party], followed: dict[str, list[int]]
    ) -> None:
        for party in crowd:
            everything = list(range(1, store.state(party).last_seq + 1))
            assert store.positions(party) == everything
            assert followed[party.user_id] == everything

    def test_every_mark_is_reported_to_its_sender_once(
        self, store: Process, crowd: list[Party], followed: dict[str, list[int]]
    ) -> None:
        reported = [
            (entry.kind, message_id, party.account_id)
            for party in crowd
            for entry in store.entries(party)
            if isinstance(entry, ReceiptEntry)
            for message_id in entry.ids
        ]
        from_others = messages.c.sender_id != messages.c.recipient_id
        marks = [
            sa.select(sa.literal(kind), messages.c.id, messages.c.sender_id).where(
                from_others, time.is_not(None)
            )
            for kind, time in (("delivered", messages.c.delivered_at), ("read", messages.c.read_at))
        ]
        with store.database.read() as connection:
            marked = [tuple(row) for row in connection.execute(sa.union_all(*marks))]
        assert sorted(reported) == sorted(marked) != []

    def test_no_lock_waits_for_itself(self, store: Process, followed: dict[str, list[int]]) -> None:
        if store.database.is_sqlite:
            assert followed  # One writer at a time: there is nothing to count.
            return
        count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        with store.database.read() as connection:
            connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
            assert connection.exec_driver_sql(count).scalar_one() == 0


def write(process: Process, crowd: list[Party], seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        appends = []
        for _ in range(chance.randint(1, 6)):
            sender, *recipients = chance.choices(crowd, k=chance.randint(2, 5))
            many = chance.random() < 0.5
            appends.append(
                sending_many(sender, recipients) if many else sending(sender, recipients[0])
            )
        outcomes = process.append(*appends)
        assert all(isinstance(outcome, Appended) and outcome.is_new for outcome in outcomes)
        some = chance.sample(crowd, 2)
        process.mailboxes.ack([Ack(p, process.state(p).last_seq) for p in some])
        ids = [message.id for append in appends for message in append.messages]
        process.mailboxes.read([Read(party, ids) for party in some])


def follow(
    process: Process, crowd: list[Party], writing: list[Future[None]]
) -> dict[str, list[int]]:
    seen: dict[str, list[int]] = {party.user_id: [] for party in crowd}
    reached = dict.fromkeys(crowd, 0)
    while True:
        # Asked before the look, so that the last look comes after the last write.
        done = all(writer.done() for writer in writing)
        for party in crowd:
            page = process.mailboxes.entries_after(party, reached[party], 50)
            while page.entries:
                seen[party.user_id] += [entry.seq for entry in page.entries]
                reached[party] = page.through
                page = process.mailboxes.entries_after(party, reached[party], 50)
        if done:
            return seen


def test_one_id_from_several_processes_at_once_is_stored_once(
    store: Process, another_process: Callable[[], Process], alice: Party, bob: Party
) -> None:
    processes = [another_process() for _ in range(WRITERS)]
    barrier = Barrier(WRITERS)

    def send(process: Process) -> list[Appended | int | Refusal]:
        outcomes = []
        for append in appends:
            barrier.wait(PATIENCE_SECONDS)
            outcomes += process.append(append)
        return outcomes

    appends = [sending(alice, bob) for _ in range(20)]
    with ThreadPoolExecutor(WRITERS) as pool:
        answers = list(pool.map(send, processes))
    for outcomes in zip(*answers, strict=True):
        appended = [outcome for outcome in outcomes if isinstance(outcome, Appended)]
        assert sorted(one.is_new for one in appended) == [False] * (WRITERS - 1) + [True]
        assert len({(one.created_at, one.sent_seq) for one in appended}) == 1
    assert store.positions(alice) == store.positions(bob) == list(range(1, 21))


def test_several_processes_may_make_the_same_account(
    store: Process, another_process: Callable[[], Process]
) -> None:
    processes = [another_process() for _ in range(WRITERS)]
    barrier = Barrier(WRITERS)

    def make(process: Process) -> list[Party]:
        parties = []
        for n in range(20):
            barrier.wait(PATIENCE_SECONDS)
            parties.append(process.user(f"user {n}"))
        return parties

    with ThreadPoolExecutor(WRITERS) as pool:
        first, *others = pool.map(make, processes)
    assert others == [first] * (WRITERS - 1)


class TestAnotherProcessOnSQLite:
    """SQLite has one writer in the world, and it may be somebody else."""

    @pytest.fixture
    def store_url(self, request: pytest.FixtureRequest) -> str:
        return str(request.getfixturevalue("sqlite_url"))

    def test_a_writer_is_waited_for(
        self, store: Process, alice: Party, bob: Party, store_url: str
    ) -> None:
        with ThreadPoolExecutor(1) as pool:
            with write_lock(store_url):
                sending_now = pool.submit(store.send, alice, bob)
                with pytest.raises(TimeoutError):
                    sending_now.result(0.3)
                assert store.positions(bob) == []
            sending_now.result(PATIENCE_SECONDS)
        assert store.positions(bob) == [1]

    def test_the_host_may_write_at_the_same_time(
        self, store: Process, alice: Party, bob: Party, store_url: str
    ) -> None:
        host = subprocess.Popen([sys.executable, "-c", HOST_WRITES, path_of(store_url)])
        for _ in range(100):
            store.send(alice, bob)
            store.ack(bob)
        assert host.wait(PATIENCE_SECONDS) == 0
        assert store.state(bob).delivered_seq == 100
        with store.database.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM notes").scalar_one() == 100


# As an ordinary sqlite3 program: transactions of its own making, the driver's usual patience.
HOST_WRITES = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30)
connection.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
for n in range(100):
    connection.execute("INSERT INTO notes VALUES (?)", (str(n),))
    connection.commit()
"""
HOLDS_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("COMMIT")
"""


@contextmanager
def write_lock(url: str) -> Iterator[None]:
    """Another process is in the middle of a transaction."""
    command = [sys.executable, "-c", HOLDS_LOCK, path_of(url)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        yield
        other.stdin.close()
        assert other.wait(PATIENCE_SECONDS) == 0


def path_of(url: str) -> str:
    path = sa.make_url(url).database
    assert path is not None
    return path


class TestAnAccountThatGoesAtTheSameTime:
    @pytest.fixture
    def store_url(self, postgresql_url: str) -> str:
        return postgresql_url  # On SQLite there is one writer at a time.

    @pytest.mark.parametrize("who", ["alice", "bob"])
    def test_nothing_is_accepted_for_it_or_from_it(
        self, store: Process, another_process: Callable[[], Process], who: str
    ) -> None:
        alice, bob = store.user("alice"), store.user("bob")
        other = another_process().database._engine
        with (
            ThreadPoolExecutor(1) as pool,
            other.execution_options(isolation_level="READ COMMITTED").begin() as deleting,
        ):
            gone = sa.delete(accounts).where(accounts.c.user_id == who)
            assert deleting.execute(gone).rowcount == 1
            sent = pool.submit(store.append, sending(alice, bob))
            wait_until(lambda: waits_for_a_lock(store), PATIENCE_SECONDS, lambda: "nobody waits")
            deleting.commit()
            [outcome] = sent.result(PATIENCE_SECONDS)
        assert isinstance(outcome, UnknownRecipient)
        assert store.count(messages) == 0


def waits_for_a_lock(store: Process) -> bool:
    with store.database.read() as connection:
        return bool(connection.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")))
