"""Statements given to libpq itself, which psycopg 3 brings: a fifth of what its cursors cost.

A cursor adapts each value by its type, and a pool looks after each use of a connection. What is
asked thousands of times a second needs neither: its texts and bytes go as they are, and a
connection is a transaction's for one round trip.
"""

from __future__ import annotations

import re
import select
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy.pool import PoolProxiedConnection

if TYPE_CHECKING:
    import psycopg

READABLE, WRITABLE = 1, 2
_TEXT, _BINARY = 0, 1
_PARAMETER = re.compile(r"%\((\w+)\)s")

# A plan that was made while a table was empty would read through all of it later; and what takes
# less than a millisecond is not worth compiling, whatever the planner thinks that it costs.
_SETTINGS = b"SET enable_seqscan = off; SET jit = off"

IDLE_SECONDS = 60.0

Value = str | bytes | int | datetime | None


class Lost(Exception):
    """There is nobody at the other end any more: what was asked may or may not be stored."""


class Lines:
    """A few lines out of a pool. Who asks while all of them are asked waits, without a limit."""

    def __init__(
        self,
        most: int,
        take: Callable[[], PoolProxiedConnection],
        descriptor: Callable[[int], Waiting],
    ) -> None:
        self._room = threading.BoundedSemaphore(most)
        self._take = take
        self._descriptor = descriptor
        self._idle: list[Line] = []  # the one that was used last is asked first

    def ask(self, statement: str, parameters: Mapping[str, Value]) -> list[tuple[Any, ...]]:
        """The rows of one statement, as Line.ask() gives them.

        Raises:
            Lost: the connection was lost.
            psycopg.Error: PostgreSQL refused; it quotes nothing.
        """
        with self._room:
            line = self._line()
            try:
                rows = line.ask(statement, parameters)
            except line.errors.Error as error:
                if line.is_lost:
                    line.close()
                    raise Lost from error
                self._idle.append(line)
                raise
            except BaseException:
                # Whoever was ended while waiting for an answer leaves it to be read by the next.
                line.close()
                raise
            self._idle.append(line)
            return rows

    def close(self) -> None:
        """End those that nobody asks."""
        while self._idle:
            self._idle.pop().close()

    def _line(self) -> Line:
        with suppress(IndexError):
            line = self._idle.pop()
            if line.used_at > time.monotonic() - IDLE_SECONDS:
                return line
            # What lies between may have forgotten it by now, without a word to either end.
            line.close()
        return Line(self._take(), self._descriptor)


class Line:
    """One connection of psycopg's, to be asked one thing at a time.

    It knows the statements that it was asked before, and PostgreSQL has their plans, unless the
    host has said that nothing may be prepared (`prepare_threshold = None`).

    Attributes:
        errors: psycopg's.
        used_at: when it answered last, on the monotonic clock.
    """

    def __init__(self, pooled: PoolProxiedConnection, descriptor: Callable[[int], Waiting]) -> None:
        from psycopg import errors, pq
        from psycopg.adapt import Transformer

        connection = cast("psycopg.Connection[Any]", pooled.driver_connection)
        self._pooled = pooled
        self._connection = connection
        self._libpq = connection.pgconn
        self.errors = errors
        self._sqlstate = pq.DiagnosticField.SQLSTATE
        self._has_rows, self._is_done = pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK
        self._is_bad, self._binary = pq.ConnStatus.BAD, pq.Format.BINARY
        self._transformer = Transformer
        self._names: dict[str, bytes] | None = {}
        if connection.prepare_threshold is None:
            self._names = None
        self._descriptor = descriptor(self._libpq.socket)
        self._is_set_up = False
        self.used_at = time.monotonic()

    @property
    def is_lost(self) -> bool:
        """Whether there is nobody at the other end any more."""
        return self._libpq.status == self._is_bad

    def ask(self, statement: str, parameters: Mapping[str, Value]) -> list[tuple[Any, ...]]:
        """The rows of one statement, with its parameters written `%(name)s`, which it commits.

        After anything but an answer or a refusal of PostgreSQL's this line must be closed.

        Raises:
            psycopg.Error: PostgreSQL refused, or the connection was lost; it quotes nothing.
        """
        if not self._is_set_up:
            self._libpq.send_query(_SETTINGS)
            self._answer()
            self._is_set_up = True
        text, names = _numbered(statement)
        values, formats = _values([parameters[name] for name in names])
        if self._names is None:
            self._libpq.send_query_params(text, values, None, formats, _BINARY)
        else:
            name = self._names.get(statement) or self._prepare(statement, text, self._names)
            self._libpq.send_query_prepared(name, values, formats, _BINARY)
        result = self._answer()
        self.used_at = time.monotonic()
        if result.status == self._is_done:
            return []
        transformer = self._transformer(self._connection)
        transformer.set_pgresult(result, format=self._binary)
        return transformer.load_rows(0, result.ntuples, tuple)

    def close(self) -> None:
        """End the connection, whatever state it is in, and give its place back to the pool."""
        self._descriptor.close()
        self._pooled.invalidate()

    def _prepare(self, statement: str, text: bytes, names: dict[str, bytes]) -> bytes:
        name = b"e2emsg_%d" % len(names)
        self._libpq.send_prepare(name, text)
        self._answer()
        names[statement] = name
        return name

    def _answer(self) -> Any:
        libpq = self._libpq
        while libpq.flush():
            self._descriptor.wait(READABLE | WRITABLE)
            libpq.consume_input()
        answer = None
        while True:
            while libpq.is_busy():
                self._descriptor.wait(READABLE)
                libpq.consume_input()
            result = libpq.get_result()
            if result is None:
                break
            answer = result
        if answer is None or answer.status not in (self._has_rows, self._is_done):
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: Any) -> Exception:
        state = None if answer is None else answer.error_field(self._sqlstate)
        if state is None:
            return self.errors.OperationalError("the connection was lost")
        try:
            kind = self.errors.lookup(state.decode())
        except KeyError:
            kind = self.errors.DatabaseError
        # What PostgreSQL says may quote what was to be stored.
        return kind(f"PostgreSQL refused with SQLSTATE {state.decode()}")


@lru_cache(maxsize=64)
def _numbered(statement: str) -> tuple[bytes, tuple[str, ...]]:
    """The statement with `$1` for its first parameter, and the names in this order."""
    names = tuple(dict.fromkeys(_PARAMETER.findall(statement)))
    text = _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", statement)
    return text.encode(), names


def _values(parameters: list[Value]) -> tuple[list[bytes | None], list[Any]]:
    values: list[bytes | None] = []
    formats = [_TEXT] * len(parameters)
    for place, value in enumerate(parameters):
        match value:
            case str():
                if "\0" in value:  # which ends a text for libpq
                    raise ValueError("A text with NUL is none of PostgreSQL's.")
                values.append(value.encode())
            case bytes():
                formats[place] = _BINARY
                values.append(value)
            case int():
                values.append(b"%d" % value)
            case None:
                values.append(None)
            case _:
                values.append(value.isoformat().encode())
    return values, formats


class Waiting(Protocol):
    """Waits for one socket."""

    def wait(self, events: int) -> object:
        """Until it can be read (`READABLE`), or written or read (both), while others may run."""

    def close(self) -> None:
        """The socket is about to be closed."""


class Descriptor:
    """Waits for a socket by a system call, which gevent replaces where it replaces others."""

    def __init__(self, number: int) -> None:
        self._number = number

    def wait(self, events: int) -> None:
        """See Waiting.wait."""
        poll = select.poll()
        wanted = select.POLLIN if events & READABLE else 0
        poll.register(self._number, wanted | (select.POLLOUT if events & WRITABLE else 0))
        poll.poll()

    def close(self) -> None:
        """Nothing is kept."""
