"""Entries of the mailbox as they came: frames, with envelopes unopened.

    waiting ──told to the application──────────────▶ told
            ──sealed under a key not yet accepted──▶ held ──the key was accepted──▶ waiting

An id is stored once, whatever the server repeats.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .database import Database

Frame = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A frame and where it is kept."""

    place: int
    frame: Frame = field(repr=False)


class Entries:
    """The table of them. Commits are the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, epoch: str, frame: Frame, contact: str | None, state: str = "waiting") -> bool:
        """Keep a frame; False if one with its id is there already."""
        values = (epoch, frame.get("seq"), frame.get("id"), contact, json.dumps(frame), state)
        added = self._database.run(
            "INSERT OR IGNORE INTO entries (epoch, seq, id, contact, frame, state)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            values,
        )
        return added == 1

    def position_of(self, message_id: str) -> tuple[str, int] | None:
        """Epoch and position under which an id came first."""
        found = self._database.row("SELECT epoch, seq FROM entries WHERE id = ?", (message_id,))
        return None if found is None else (found[0], found[1])

    def waiting(self, limit: int) -> list[StoredEntry]:
        """The oldest ones that the application was not told of."""
        rows = self._database.rows(
            "SELECT place, frame FROM entries WHERE state = 'waiting' ORDER BY place LIMIT ?",
            (limit,),
        )
        return [StoredEntry(place, json.loads(frame)) for place, frame in rows]

    def mark(self, place: int, state: str) -> None:
        """Note that it was told, or is held."""
        self._database.run("UPDATE entries SET state = ? WHERE place = ?", (state, place))

    def release(self, contact: str) -> int:
        """Let what is held of a contact wait again; how many."""
        return self._database.run(
            "UPDATE entries SET state = 'waiting' WHERE state = 'held' AND contact = ?", (contact,)
        )

    def release_all(self) -> None:
        """Let all that is held wait again."""
        self._database.run("UPDATE entries SET state = 'waiting' WHERE state = 'held'")

    def held(self) -> list[str]:
        """The contacts of whom something is held."""
        rows = self._database.rows("SELECT DISTINCT contact FROM entries WHERE state = 'held'")
        return [contact for (contact,) in rows]

    def of(self, contact: str, limit: int) -> Iterable[Frame]:
        """The newest messages with a contact, newest first."""
        rows = self._database.rows(
            "SELECT frame FROM entries WHERE contact = ? AND id IS NOT NULL"
            " ORDER BY place DESC LIMIT ?",
            (contact, limit),
        )
        return [json.loads(frame) for (frame,) in rows]
