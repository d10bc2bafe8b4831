"""Times in the tables are UTC; SQLite has no zones, so they are put back on the way out."""

from __future__ import annotations

from datetime import UTC, datetime


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
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
