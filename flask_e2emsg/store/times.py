"""Times in the tables are UTC; SQLite has no zones, so they are put back on the way out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from ..protocol.values import now

_Time = sa.DateTime(timezone=True)


def aware(moment: datetime | str) -> datetime:
    """A stored time as an aware datetime in UTC."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def aware_or_none(moment: datetime | str | None) -> datetime | None:
    """The same where there may be none."""
    return None if moment is None else aware(moment)


def sqlite_text(moment: datetime | None) -> str | None:
    """The text that SQLAlchemy's DateTime stores on SQLite; it sorts by time."""
    if moment is None:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def database_clock(is_sqlite: bool, seconds_ahead: float = 0.0) -> sa.ColumnElement[datetime]:
    """The time by the one clock that all workers share, for use in a statement.

    PostgreSQL's own, since its clients may be machines whose clocks differ; SQLite's clients are
    processes of one machine.
    """
    ahead = timedelta(seconds=seconds_ahead)
    if is_sqlite:
        return sa.bindparam(None, callable_=lambda: now() + ahead, type_=_Time)
    return sa.func.clock_timestamp(type_=_Time) + sa.literal(ahead, sa.Interval)
