"""Short units of work on the host's database, on connections of our own.

Guarantees: nobody holds a connection while waiting for a client; on SQLite there is one writer in
this process, it takes the write lock before it reads, and nothing yields to other greenlets from
BEGIN to COMMIT, whose wait for the disk alone lets them go on; on PostgreSQL a statement is its own
transaction. Failures of the database come out as `Unavailable` or `SchemaMissing`; `Conflict` asks
the caller to do its batch again.

read() and write() give SQLAlchemy's connection. read_directly() and write_directly() give the
driver's cursor, for the mailboxes: SQLAlchemy spends more on a statement than the driver does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection, StaticPool

from ..errors import E2EMsgError, SchemaMissing, Unavailable
from .engine import LockOfAll, capacity, own_engine, patiently
from .libpq import Descriptor, Lines, Lost, Value, Waiting

SUPPORTED = ("postgresql", "sqlite")
CONCURRENT_READS = 4
FEW_ROWS = 8  # to commit them costs less than to have somebody else do it
MOST_LINES = 8  # of ours to libpq; never more than half of what the pool may have
P = ParamSpec("P")
T = TypeVar("T")

_SERIALIZATION_FAILURE, _DEADLOCK = "40001", "40P01"
_UNDEFINED_TABLE = "42P01"


class Conflict(E2EMsgError):
    """Another process was there first. Nothing was stored; do the unit of work again."""


class ConnectionLost(Unavailable):
    """The database went away in the middle: what was asked may or may not be stored."""


def asked_again(question: Callable[P, T]) -> Callable[P, T]:
    """A question that is asked once more if the connection was lost.

    A database that came back has left the pool dead connections; the first one that is found
    out empties it.
    """

    @wraps(question)
    def ask(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return question(*arguments, **named)
        except ConnectionLost:
            return question(*arguments, **named)

    return ask


def at_once(work: Callable[[], None]) -> None:
    """Do it here, where who waits for the disk keeps nobody else from his work."""
    work()


class Database:
    """The engine of one app in one process.

    `descriptor` makes what waits for a socket, `wait_for_disk` does what waits for the disk.
    """

    def __init__(
        self,
        host_engine: Engine,
        descriptor: Callable[[int], Waiting] = Descriptor,
        wait_for_disk: Callable[[Callable[[], None]], None] = at_once,
    ) -> None:
        self.dialect = host_engine.dialect.name
        self.driver = host_engine.dialect.driver
        self.is_sqlite = self.dialect == "sqlite"
        # One connection that everybody shares is all that an in-memory database has.
        self._shared = self.is_sqlite and isinstance(host_engine.pool, StaticPool)
        self._engine = own_engine(host_engine, shared=self._shared)
        self._driver_error = self._engine.dialect.loaded_dbapi.Error
        self._wrong_use = self._engine.dialect.loaded_dbapi.ProgrammingError
        self._wait_for_disk = at_once if self._shared else wait_for_disk
        # Reads queue here, without a time limit, rather than at the pool, which has one.
        self._reads = threading.BoundedSemaphore(CONCURRENT_READS)
        has_libpq = self.dialect == "postgresql" and self.driver == "psycopg"
        most_lines = int(min(MOST_LINES, capacity(self._engine.pool) / 2)) if has_libpq else 0
        self._lines = Lines(most_lines, self._taken, descriptor) if most_lines else None
        self._texts: dict[sa.Select[Any], str] = {}  # of questions, for the lines
        self._writer = LockOfAll(host_engine.pool) if self._shared else threading.RLock()
        self._open: Connection | None = None  # the writer's transaction

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for a few quick queries."""
        with self._turn_to_read(), _errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def read_directly(self) -> Iterator[DBAPICursor]:
        """A cursor of the driver's, for a few quick queries."""
        with (
            self._turn_to_read(),
            self._pooled() as connection,
            self._cursor_of(connection) as cursor,
        ):
            yield cursor

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection whose work is committed at the end.

        On PostgreSQL every statement commits by itself, so make it one statement. On SQLite the
        block is one transaction, and must not wait for anything.
        """
        if not self.is_sqlite:
            with _errors(), self._engine.connect() as connection:
                yield connection
            return
        with self._writer, _errors():
            if self._open is not None:
                with self._open.begin_nested():
                    yield self._open
                return
            with self._transaction() as connection:
                yield connection

    @contextmanager
    def write_directly(self) -> Iterator[DBAPICursor]:
        """What write() gives, as a cursor of the driver's. There is no write() inside it."""
        if not self.is_sqlite:
            with self._pooled() as connection, self._cursor_of(connection) as cursor:
                yield cursor
            return
        with self._writer:
            if self._open is None:
                with self._direct_transaction() as cursor:
                    yield cursor
            else:
                with self._cursor_of(self._open.connection) as cursor, _savepoint(cursor):
                    yield cursor

    def ask(self, statement: str, parameters: Mapping[str, Value]) -> list[tuple[Any, ...]]:
        """The rows of one statement, which is a transaction. On PostgreSQL only.

        A statement is a constant, for it is prepared. Its parameters are written `%(name)s`; the
        statement says of which type they are.
        """
        if self._lines is None:
            with self._pooled() as connection, self._cursor_of(connection) as cursor:
                cursor.execute(statement, parameters)
                return list(cursor.fetchall())
        with _errors():
            try:
                return self._lines.ask(statement, parameters)
            except Lost as error:
                self.dispose()
                raise ConnectionLost from error
            except self._driver_error as error:
                raise self._as_sqlalchemy(error, is_lost=False) from error

    def ask_in_turn(self, statement: str, parameters: Mapping[str, Value]) -> list[tuple[Any, ...]]:
        """What ask() gives, for what very many may want to know at once: a few at a time."""
        with self._turn_to_read():
            return self.ask(statement, parameters)

    def query(
        self, statement: sa.Select[Any], parameters: Mapping[str, Value]
    ) -> Sequence[tuple[Any, ...]]:
        """The rows of a question that is asked often: a constant, whose parameters have types."""
        if self._lines is None:
            with self.read() as connection:
                return connection.execute(statement, parameters).all()
        text = self._texts.get(statement)
        if text is None:
            text = self._texts[statement] = str(statement.compile(dialect=self._engine.dialect))
        return self.ask_in_turn(text, parameters)

    @contextmanager
    def alone(self) -> Iterator[Any]:
        """A connection of the driver's beside the pool, for as long as the block lasts."""
        connection = self._taken()
        driver_connection: Any = connection.driver_connection
        connection.detach()
        try:
            yield driver_connection
        finally:
            # SQLAlchemy would roll back first, which a connection that was lost cannot do.
            with suppress(self._driver_error):
                driver_connection.close()

    def _taken(self) -> PoolProxiedConnection:
        with _errors():
            try:
                return self._engine.raw_connection()
            except self._driver_error as error:
                raise ConnectionLost from error

    def together(self) -> AbstractContextManager[object]:
        """On SQLite, one transaction for every write or direct write inside; elsewhere nothing."""
        return self.write() if self.is_sqlite else nullcontext()

    def _turn_to_read(self) -> AbstractContextManager[object]:
        return self._writer if self._shared else self._reads

    @contextmanager
    def _pooled(self) -> Iterator[PoolProxiedConnection]:
        """A connection from the pool, without SQLAlchemy's around it."""
        connection = self._taken()
        try:
            yield connection
        finally:
            if connection.is_valid:
                connection.close()

    @contextmanager
    def _cursor_of(self, connection: PoolProxiedConnection) -> Iterator[DBAPICursor]:
        with _errors():
            try:
                with closing(connection.cursor()) as cursor:
                    yield cursor
            except self._driver_error as error:
                is_lost = self._engine.dialect.is_disconnect(error, connection, None)
                if is_lost:
                    self._forget(connection)
                raise self._as_sqlalchemy(error, is_lost=is_lost) from error
            except Exception:
                raise
            except BaseException:
                # Whoever was ended while waiting for an answer leaves it to be read by the next.
                if not self.is_sqlite:
                    connection.invalidate()
                raise

    def _as_sqlalchemy(self, error: BaseException, *, is_lost: bool) -> BaseException:
        return exc.DBAPIError.instance(
            "", None, error, self._driver_error, True, is_lost, self._engine.dialect
        )

    def _forget(self, connection: PoolProxiedConnection) -> None:
        """What took this connection away took the idle ones, too."""
        connection.invalidate()
        self.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, self._begun(connection.connection):
            self._open = connection
            try:
                yield connection
            finally:
                self._open = None

    @contextmanager
    def _direct_transaction(self) -> Iterator[DBAPICursor]:
        with (
            self._pooled() as connection,
            self._cursor_of(connection) as cursor,
            self._begun(connection),
        ):
            yield cursor

    @contextmanager
    def _begun(self, connection: PoolProxiedConnection) -> Iterator[None]:
        """SQLite's transaction, from its lock to its commit."""
        driver: Any = connection.driver_connection
        rows_before = driver.total_changes
        try:
            if not self._shared:
                patiently(lambda: driver.execute("BEGIN IMMEDIATE"))
            try:
                yield
                self._commit(driver, driver.total_changes - rows_before)
            except BaseException:
                driver.rollback()
                raise
        except self._driver_error as error:
            raise self._as_sqlalchemy(error, is_lost=False) from error

    def _commit(self, driver: Any, rows: int) -> None:
        if rows <= FEW_ROWS:
            driver.commit()
            return
        try:
            self._wait_for_disk(driver.commit)
        except self._wrong_use:
            driver.commit()  # The host's connections keep to the thread that opened them.

    def clean_files(self) -> None:
        """Leave nothing of what was deleted in SQLite's files, but for what is just being read."""
        if self.is_sqlite and not self._shared:
            with self.read() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def dispose(self) -> None:
        """Close the connections that nobody uses."""
        if self._lines is not None:
            self._lines.close()
        if not self._shared:
            self._engine.dispose()


@contextmanager
def _savepoint(cursor: DBAPICursor) -> Iterator[None]:
    cursor.execute("SAVEPOINT e2emsg")
    try:
        yield
    except BaseException:
        cursor.execute("ROLLBACK TO SAVEPOINT e2emsg")
        cursor.execute("RELEASE SAVEPOINT e2emsg")
        raise
    cursor.execute("RELEASE SAVEPOINT e2emsg")


@contextmanager
def _errors() -> Iterator[None]:
    """Turn what the driver raises into what callers can act on."""
    try:
        yield
    except exc.TimeoutError as error:
        raise Unavailable() from error
    except exc.DBAPIError as error:
        raise _translated(error) from error


def _translated(error: exc.DBAPIError) -> Exception:
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    text = str(error.orig)
    if state == _UNDEFINED_TABLE or "no such table: e2emsg_" in text:
        return SchemaMissing()
    if state in (_SERIALIZATION_FAILURE, _DEADLOCK) or isinstance(error, exc.IntegrityError):
        return Conflict()
    # Without a statement it was the attempt to connect that failed.
    if error.connection_invalidated or error.statement is None:
        return ConnectionLost()
    if isinstance(error, exc.OperationalError | exc.InternalError):
        return Unavailable()
    return error
