"""The mailboxes talk to the driver itself: what SQLAlchemy would have taken care of."""

from __future__ import annotations

import secrets
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from threading import Thread

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine, make_url

from flask_e2emsg.protocol.entries import MessageEntry
from flask_e2emsg.protocol.frames import Outgoing
from flask_e2emsg.store.accounts import Party, new_account
from flask_e2emsg.store.database import CONCURRENT_READS, Conflict, ConnectionLost
from flask_e2emsg.store.libpq import Value
from flask_e2emsg.store.mailbox import Append
from flask_e2emsg.store.models import accounts
from tests.servers import run_once
from tests.store.process import Process, outgoing, sending

ACCOUNTS = 2000
CONVERSATIONS = (
    *(None, "plain", 'quo"ted', "back\\slash", "{curly,comma}", "NULL", "null", " spaces ", ""),
    *("%s %(ids)s %%", "'; DROP TABLE x; --", "ünï\u2028 😀", "\t\n\r", '\\"', "}", None),
)
TERMINATE_OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


WHO = "SELECT pg_backend_pid()"
SLEEP = "SELECT pg_sleep(0.2)::text"
SECRET = "not-a-number-but-a-secret"


class Ended(BaseException):
    """What gevent raises in a greenlet that is killed is no Exception, either."""


@pytest.fixture(params=["sqlite", "postgresql", "psycopg2"])
def store_url(request: pytest.FixtureRequest) -> str:
    if request.param != "psycopg2":
        return str(request.getfixturevalue(f"{request.param}_url"))
    url = make_url(request.getfixturevalue("postgresql_url"))
    return url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


on_postgresql = pytest.mark.parametrize("store_url", ["postgresql", "psycopg2"], indirect=True)


def appends(sender: Party, recipient: Party, messages: Sequence[Outgoing]) -> list[Append]:
    return [
        Append(sender, [recipient], [message], keeps_sent=True, origin=number or None)
        for number, message in enumerate(messages)
    ]


def test_every_text_and_every_byte_comes_back(store: Process, alice: Party, bob: Party) -> None:
    every_byte = bytes(range(256))
    messages = [
        Outgoing(
            outgoing(bob).id, bob.user_id, every_byte[n:] * (n + 1), "", text, 60 if n % 3 else None
        )
        for n, text in enumerate(CONVERSATIONS)
    ]
    store.append(*appends(alice, bob, messages))
    received = [entry.message for entry in store.entries(bob) if isinstance(entry, MessageEntry)]
    assert [(m.id, m.content, m.conversation_id) for m in received] == [
        (m.id, m.content, m.conversation_id) for m in messages
    ]
    assert [m.expires_at is not None for m in received] == [bool(m.expires_in) for m in messages]
    origins = [entry.origin for entry in store.entries(alice)]
    assert origins == [number or None for number in range(len(messages))]


@on_postgresql
@pytest.mark.usefixtures("store")
def test_large_contents_cost_little_more_than_to_send_their_bytes(store_url: str) -> None:
    keeps_memory = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**30))
    run_once("tests.store.large", store_url, env=keeps_memory)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
class TestPlans:
    """What a batch costs depends on the batch only, not on who and what is there already."""

    @pytest.fixture
    def crowd(self, store: Process) -> list[Party]:
        with store.database.write() as connection:
            users = [new_account(f"user {n}") for n in range(ACCOUNTS)]
            connection.execute(sa.insert(accounts), users)
            connection.exec_driver_sql("VACUUM ANALYZE e2emsg_accounts")
        return [store.user(f"user {n}") for n in range(40)]

    def test_one_plan_serves_batches_of_all_sizes(self, store: Process, crowd: list[Party]) -> None:
        exchange(store, crowd)
        counts = (
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements"
            " WHERE strpos(statement, 'AS ' || 'MATERIALIZED') > 0"
        )
        plans = store.database.ask(counts, {})
        assert len(plans) == 2  # of sends and of acks
        for generic, custom in plans:
            assert custom <= 5  # PostgreSQL tries so many before it decides
            assert generic >= 10

    def test_nobody_reads_through_all_accounts(self, store: Process, crowd: list[Party]) -> None:
        read_before = rows_of_scans(store)
        exchange(store, crowd)
        assert rows_of_scans(store) == read_before

    def test_a_plan_of_an_empty_table_does_not_read_through_a_full_one(
        self, store: Process, crowd: list[Party]
    ) -> None:
        read_before = rows_of_scans(store, "e2emsg_messages")
        for _ in range(20):
            exchange(store, crowd)
        assert rows_of_scans(store, "e2emsg_messages") == read_before


def exchange(store: Process, crowd: list[Party]) -> None:
    """Sends in batches of 1 to 20 messages, small ones first, each followed by its acks."""
    for size in (*[1] * 10, *range(2, 21)):
        pairs = list(zip(crowd[:size], crowd[-size:], strict=True))
        store.append(*(sending(sender, recipient) for sender, recipient in pairs))
        for _, recipient in pairs[:2]:
            store.ack(recipient, seq=2**31 + size)


def rows_of_scans(store: Process, table: str = "e2emsg_accounts") -> int:
    """As far as the connections that have been asked tell, which they do now."""
    store.database.ask("SELECT pg_stat_force_next_flush()", {})
    count = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = %(table)s"
    with store.database.read() as connection:
        connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
        return int(connection.exec_driver_sql(count, {"table": table}).scalar_one())


@on_postgresql
class TestConnections:
    def test_when_one_is_lost_the_idle_ones_are_not_used_again(
        self,
        store: Process,
        store_url: str,
        bob: Party,
        connect_to: Callable[[str], Engine],
    ) -> None:
        with store.database.read() as one, store.database.read_directly() as another:
            another.execute("SELECT 1")
            assert one.exec_driver_sql("SELECT 1").scalar_one() == 1
        with connect_to(store_url).connect() as connection:
            connection.exec_driver_sql(TERMINATE_OTHERS)
        with pytest.raises(ConnectionLost), store.database.write_directly() as cursor:
            cursor.execute("SELECT 1")
        assert store.entries(bob) == []

    def test_one_whose_answer_was_not_awaited_is_not_used_again(self, store: Process) -> None:
        left = backend(store, Ended())
        assert backend(store, None) != left
        assert backend(store, None) == backend(store, ValueError())

    def test_one_that_cannot_be_made_is_told_as_lost(
        self, store_url: str, connect_to: Callable[[str], Engine]
    ) -> None:
        nowhere = make_url(store_url).set(query={"host": "/nowhere"})
        unreachable = Process(connect_to(nowhere.render_as_string(hide_password=False)))
        with pytest.raises(ConnectionLost), unreachable.database.write_directly():
            pass


@on_postgresql
class TestAsking:
    def test_when_one_connection_is_lost_the_idle_ones_are_not_asked_again(
        self, store: Process, store_url: str, connect_to: Callable[[str], Engine]
    ) -> None:
        asked = [Thread(target=store.database.ask, args=(SLEEP, {})) for _ in range(3)]
        for thread in asked:
            thread.start()
        for thread in asked:
            thread.join()
        with connect_to(store_url).connect() as connection:
            connection.exec_driver_sql(TERMINATE_OTHERS)
        with pytest.raises(ConnectionLost):
            store.database.ask(WHO, {})
        assert store.database.ask(WHO, {}) == store.database.ask(WHO, {})

    def test_what_postgresql_refuses_is_told_without_what_was_asked(self, store: Process) -> None:
        before = store.database.ask(WHO, {})
        with pytest.raises(sa.exc.DataError) as refused:
            store.database.ask("SELECT %(number)s::int", {"number": SECRET})
        if store.database.driver == "psycopg":
            assert SECRET not in "".join(traceback.format_exception(refused.value))
        assert store.database.ask(WHO, {}) == before

    def test_values_of_every_kind_arrive(self, store: Process) -> None:
        moment = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
        types = {"text": "text", "bytes": "bytea", "number": "bigint", "time": "timestamptz"}
        asked: dict[str, Value] = {
            "text": 'a"b\\c\u20ac',
            "bytes": bytes(range(256)),
            "number": -(2**40),
            "time": moment,
        }
        columns = ", ".join(f"%({name})s::{kind}" for name, kind in types.items())
        [[text, content, number, time_]] = store.database.ask(f"SELECT {columns}", asked)
        assert (text, bytes(content), number, time_) == tuple(asked.values())
        nothing: dict[str, Value] = dict.fromkeys(types)
        assert list(store.database.ask(f"SELECT {columns}", nothing)[0]) == [None] * 4

    def test_a_text_is_refused_rather_than_cut(self, store: Process) -> None:
        with pytest.raises(ValueError, match="NUL"):
            store.database.ask("SELECT %(text)s::text", {"text": "alice\0bob"})
        assert store.database.ask("SELECT %(text)s::text", {"text": "alice"}) == [("alice",)]


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
class TestLines:
    def test_one_whose_answer_was_not_awaited_is_not_asked_again(
        self, store: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = store.database.ask(WHO, {})
        with monkeypatch.context() as interrupted:
            interrupted.setattr("flask_e2emsg.store.libpq.Descriptor.wait", end)
            with pytest.raises(Ended):
                store.database.ask("SELECT 'left behind'", {})
        assert store.database.ask(WHO, {}) != before

    def test_nothing_is_prepared_where_the_host_does_not_want_it(self, store_url: str) -> None:
        engine = sa.create_engine(store_url, connect_args={"prepare_threshold": None})
        database = Process(engine).database
        for _ in range(10):
            database.ask(WHO, {})
        assert database.ask("SELECT count(*) FROM pg_prepared_statements", {}) == [(0,)]
        database.dispose()

    def test_there_are_some_where_the_pool_has_no_bound(self, store_url: str) -> None:
        database = Process(sa.create_engine(store_url, poolclass=sa.NullPool)).database
        assert database.ask(WHO, {}) == database.ask(WHO, {})
        database.dispose()

    def test_one_that_was_idle_for_long_is_not_asked_again(
        self, store: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = store.database.ask(WHO, {})
        assert store.database.ask(WHO, {}) == before
        monkeypatch.setattr("flask_e2emsg.store.libpq.IDLE_SECONDS", 0.0)
        assert store.database.ask(WHO, {}) != before

    def test_many_who_read_at_once_take_few_connections(
        self, store: Process, alice: Party, store_url: str, connect_to: Callable[[str], Engine]
    ) -> None:
        readers = [
            Thread(target=store.mailboxes.entries_after, args=(alice, 0, 10)) for _ in range(20)
        ]
        with connect_to(store_url).begin() as connection:
            connection.exec_driver_sql("LOCK TABLE e2emsg_messages")
            for reader in readers:
                reader.start()
            wait_until(lambda: waiting(connection) >= CONCURRENT_READS)
            assert not [reader for reader in readers if not reader.is_alive()]
            most = waiting(connection)
        for reader in readers:
            reader.join()
        assert most == CONCURRENT_READS

    def test_under_gevent_they_wait_on_its_loop(self, store_url: str) -> None:
        run_once("gevent.monkey", "--module", "tests.store.greenlets", store_url, env={})


def test_a_host_may_close_its_database_in_memory_while_threads_of_ours_use_it() -> None:
    run_once("tests.store.closing", env={})


def waiting(connection: sa.Connection) -> int:
    """How many connections to this database wait for a lock."""
    count = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
    return int(connection.exec_driver_sql(count).scalar_one())


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end(*_: object) -> None:
    raise Ended


def backend(store: Process, failure: BaseException | None) -> int:
    """Which of PostgreSQL's processes answered, before the work with it failed."""
    pid = 0
    with suppress(Ended, ValueError), store.database.write_directly() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [(pid,)] = cursor.fetchall()
        if failure is not None:
            raise failure
    return pid


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
class TestTransactions:
    def test_what_was_ended_in_the_middle_is_not_there(
        self, store: Process, alice: Party, bob: Party
    ) -> None:
        with suppress(Ended), store.database.write_directly() as cursor:
            cursor.execute("UPDATE e2emsg_accounts SET last_seq = 9")
            raise Ended
        store.send(alice, bob)
        assert store.positions(bob) == [1]

    def test_a_part_of_a_shared_one_fails_alone(self, store: Process, alice: Party) -> None:
        with store.database.together():
            with store.database.write_directly() as cursor:
                cursor.execute("UPDATE e2emsg_accounts SET last_seq = 3")
            with suppress(Ended), store.database.write_directly() as cursor:
                cursor.execute("UPDATE e2emsg_accounts SET delivered_seq = 2")
                raise Ended
        state = store.state(alice)
        assert (state.last_seq, state.delivered_seq) == (3, 0)


def test_an_error_does_not_quote_what_was_to_be_stored(
    store: Process, alice: Party, bob: Party
) -> None:
    store.send(alice, bob)
    content = secrets.token_hex(24)
    with pytest.raises(Conflict) as raised, store.database.write_directly() as cursor:
        cursor.execute(
            "INSERT INTO e2emsg_messages (id, sender_id, recipient_id, recipient_seq, created_at,"
            " encrypted_content) SELECT id, sender_id, recipient_id, recipient_seq + 1, created_at,"
            f" '{content}' FROM e2emsg_messages"
        )
    told = "".join(traceback.format_exception(raised.value))
    assert "IntegrityError" in told
    assert content not in told
