"""The planted faults: what is replaced where, and the run that has to notice.

A replacement whose text is not found fails, so that a mutant cannot silently become the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Replacement:
    """One place in the package; `old` stands there exactly once."""

    file: str
    old: str
    new: str

    def apply(self, package: Path) -> None:
        path = package / self.file
        text = path.read_text()
        assert text.count(self.old) == 1, (
            f"{self.file} has {self.old!r} {text.count(self.old)} times"
        )
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Mutant:
    """One planted fault, and under what it shows."""

    name: str
    replacements: Sequence[Replacement]
    faults: Sequence[str]
    database: str = "postgresql"
    caught_by: frozenset[str] = field(default_factory=frozenset)  # any of these invariants
    seconds: float = 20.0
    users: int = 40
    rate: float = 20.0


def mutant(
    name: str,
    *replacements: tuple[str, str, str],
    faults: Sequence[str],
    caught_by: Sequence[str],
    database: str = "postgresql",
    users: int = 40,
    rate: float = 20.0,
) -> Mutant:
    """A mutant from plain tuples."""
    made = [Replacement(*replacement) for replacement in replacements]
    return Mutant(name, made, faults, database, frozenset(caught_by), users=users, rate=rate)


_PLAN = 'cursor.execute("SET plan_cache_mode = force_generic_plan")\n'

MUTANTS = (
    mutant(
        "ack before commit",
        (
            "store/engine.py",
            _PLAN,
            _PLAN + '        cursor.execute("SET synchronous_commit = off")\n',
        ),
        faults=["restart_postgres"],
        caught_by=["I1"],
    ),
    mutant(
        "global-sequence cursor",
        (
            "store/engine.py",
            _PLAN,
            _PLAN + '        cursor.execute("CREATE SEQUENCE IF NOT EXISTS e2emsg_everything")\n',
        ),
        (
            "store/postgresql.py",
            "last_seq = last_seq + 1, delivered_seq = delivered_seq\n"
            "        + CASE WHEN delivered_seq = last_seq THEN 1 - %(lower_leading)s ELSE 0 END",
            "last_seq = greatest(last_seq + 1, nextval('e2emsg_everything')),\n"
            "        delivered_seq = delivered_seq",
        ),
        faults=["reset_clients"],
        caught_by=["I3"],
    ),
    mutant(
        "no sweep",
        ("process.py", "self.hub.sweep(self.accounts.heads)", "pass"),
        faults=["kill_redis"],
        caught_by=["I1"],
    ),
    mutant(
        "push without the cursor",
        (
            "delivery/pump.py",
            "if seq < expected or seq in self._later:",
            "if seq in self._later:",
        ),
        ("delivery/pump.py", "if seq == expected:", "if seq:"),
        (
            "delivery/pump.py",
            "if self._fresh and self._fresh[0].seq == position + 1:",
            "if self._fresh:",
        ),
        faults=["reset_clients", "kill_worker"],
        caught_by=["I3"],
    ),
    mutant(
        "two writers on a socket",
        (
            "transport/evented.py",
            'self._send(memoryview(b"".join(frames)))',
            'self._send(memoryview(b"".join(frame[len(frame) // 2 :] for frame in frames)'
            ' + b"".join(frame[: len(frame) // 2] for frame in frames) if len(frames) > 2'
            ' else b"".join(frames)))',
        ),
        faults=["reset_clients"],
        caught_by=["I10"],
    ),
    mutant(
        "delete on send",
        (
            "store/postgresql.py",
            "return page_from_rows(rows, owner, seq, limit)",
            "page = page_from_rows(rows, owner, seq, limit)\n"
            '        self.database.ask("DELETE FROM e2emsg_messages WHERE recipient_id = %(me)s'
            ' AND recipient_seq <= %(through)s RETURNING id",'
            ' {**parameters, "through": page.through})\n'
            "        return page",
        ),
        faults=["reset_clients", "kill_worker"],
        caught_by=["I1"],
    ),
    mutant(
        "history without the caller's scope",
        (
            "store/history.py",
            "        messages.c.recipient_id == account_id, _alive()\n",
            "        _alive()\n",
        ),
        faults=["reset_clients"],
        caught_by=["I6"],
        database="sqlite",
    ),
    mutant(
        "no duplicate check",
        ("store/mailbox.py", "return IdConflict(message_id=culprit)", "continue"),
        faults=["reset_clients"],
        caught_by=["I8"],
        database="sqlite",
    ),
    mutant(
        "unsorted locks",
        (
            "store/postgresql.py",
            "    ORDER BY a.id FOR NO KEY UPDATE OF a",
            "    ORDER BY a.id DESC FOR NO KEY UPDATE OF a",
        ),
        (
            "store/postgresql.py",
            '"lower": min(sender_id, recipient_id),',
            '"lower": max(sender_id, recipient_id),',
        ),
        (
            "store/postgresql.py",
            '"higher": max(sender_id, recipient_id),',
            '"higher": min(sender_id, recipient_id),',
        ),
        (
            "store/postgresql.py",
            "is_upward = sender_id < recipient_id",
            "is_upward = sender_id > recipient_id",
        ),
        faults=["freeze_database", "reset_clients"],
        caught_by=["I12"],
        users=6,
        rate=200.0,
    ),
    mutant(
        "decode_token at the gate",
        ("transport/tokens.py", "        verify_token_type(claims, refresh=False)\n", ""),
        ("transport/auth.py", 'if lacks or claims.get("type") != "access" or', "if lacks or"),
        faults=["reset_clients"],
        caught_by=["I6"],
        database="sqlite",
    ),
    mutant(
        "session held across waits",
        (
            "process.py",
            "            self.keep_up()\n            arrival",
            "            if len(_held) < 3:\n"
            "                _held.append(self.database._engine.raw_connection())\n"
            '                _held[-1].cursor().execute("BEGIN")\n'
            "            self.keep_up()\n            arrival",
        ),
        ("process.py", "PURGE_SECONDS = 300.0\n", "PURGE_SECONDS = 300.0\n_held: list[Any] = []\n"),
        faults=["reset_clients"],
        caught_by=["I12"],
    ),
    mutant(
        "no drain hook",
        ("gunicorn.py", "    state.drain()\n", "    pass\n"),
        faults=["sighup"],
        caught_by=["I10"],
        database="sqlite",
    ),
    mutant(
        "ack accepts future positions",
        ("protocol/window.py", "if seq > max(self.position, self._accepted):", "if seq < 0:"),
        faults=["reset_clients"],
        caught_by=["I9"],
        database="sqlite",
    ),
    mutant(
        "heartbeat by the wall clock",
        (
            "transport/ws.py",
            "        elif now >= self._silent_at():",
            "        elif time.time() - _AHEAD >= self._silent_at():",
        ),
        (
            "transport/ws.py",
            "class _Deadline:",
            "_AHEAD = time.time() - time.monotonic()\n\n\nclass _Deadline:",
        ),
        faults=["clock_step"],
        caught_by=["I10"],
    ),
    mutant(
        "ack though the disk is full",
        (
            "store/sqlite.py",
            "            cursor.executemany(_INSERT, list(_values(batch, ids, bases)))\n",
            '            with __import__("contextlib").suppress(Exception):\n'
            "                cursor.executemany(_INSERT, list(_values(batch, ids, bases)))\n",
        ),
        faults=["disk_full"],
        caught_by=["I1"],
        database="sqlite",
    ),
    mutant(
        "a full disk is a fault of the server",
        (
            "store/database.py",
            "isinstance(error, exc.OperationalError | exc.InternalError)",
            "isinstance(error, exc.InternalError)",
        ),
        faults=["disk_full"],
        caught_by=["I10"],
        database="sqlite",
    ),
    mutant(
        "`sent` entries of `send_many`",
        (
            "delivery/router.py",
            "append = self.prepare(pump.owner, messages, keeps_sent=False)",
            "append = self.prepare(pump.owner, messages, keeps_sent=True)",
        ),
        faults=["reset_clients"],
        caught_by=["I5"],
    ),
    mutant(
        "a part of `send_many`",
        (
            "store/mailbox.py",
            "        if known is not None and (known.sender_id",
            "        if not several and known is not None and (known.sender_id",
        ),
        faults=["reset_clients"],
        caught_by=["I8"],
        database="sqlite",
        rate=60.0,
    ),
    mutant(
        "redaction off",
        (
            "redaction.py",
            "    lowered = text.lower()\n",
            "    return text\n    lowered = text.lower()\n",
        ),
        faults=["reset_clients"],
        caught_by=["I11"],
        database="sqlite",
    ),
)
# Only a database that is restored from a backup has another epoch, which no fault here does.
NOT_PLANTED = ("cursor without epoch",)
