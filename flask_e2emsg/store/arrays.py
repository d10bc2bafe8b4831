"""Arrays as texts that PostgreSQL reads: drivers spend more on a list than the database does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID


def array(values: Iterable[int | str]) -> str:
    """An array of numbers, where NULL may be one of them."""
    return f"{{{','.join(map(str, values))}}}"


def array_of_ids(ids: Iterable[UUID]) -> str:
    """An array of UUIDs."""
    return f"{{{','.join([f'{one.int:032x}' for one in ids])}}}"  # quicker than str()


def array_of_texts(elements: Sequence[str | datetime | None]) -> str:
    """An array of any texts or times. Of nothing but None it is empty: unnest() fills it up."""
    if elements.count(None) == len(elements):
        return "{}"
    return f"{{{','.join(['NULL' if e is None else _quoted(str(e)) for e in elements])}}}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
