"""The host of the acceptance tests whose process kills itself where it was told to.

`POST /die {"at": …}` names the point, and the next message that gets there is the end of the
process, by SIGKILL. Its successor knows nothing of it. What happens inside of a statement of
PostgreSQL's is not seen from here; there a test kills from outside.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from flask import Flask, Response, jsonify, request
from sqlalchemy.engine.interfaces import DBAPICursor

from flask_e2emsg.delivery.committer import Committer, Outcome
from flask_e2emsg.store import engine
from flask_e2emsg.store.database import Database
from flask_e2emsg.store.mailbox import Append, Appended
from flask_e2emsg.transport.evented import Evented
from tests.acceptance import host

BEFORE_BEGIN = "before BEGIN"
AFTER_INSERT = "after INSERT"
BEFORE_COMMIT = "before COMMIT"
AFTER_COMMIT = "after COMMIT, before the ack"
AFTER_ACK = "after the ack"
POINTS = (BEFORE_BEGIN, AFTER_INSERT, BEFORE_COMMIT, AFTER_COMMIT, AFTER_ACK)

_TRIGGER = """
CREATE TEMP TRIGGER die AFTER INSERT ON main.e2emsg_messages BEGIN SELECT inserted(NEW.id); END
"""

_armed: set[str] = set()
_inserted: list[str] = []


def create_app() -> Flask:
    """The application, configured from the environment."""
    _kill_inside_sqlite()
    _kill_around_commits()
    _kill_after_writing()
    app = host.create_app()
    app.add_url_rule("/die", view_func=arm, methods=["POST"])
    return app


def arm() -> Response:
    _armed.add(request.get_json()["at"])
    return jsonify(sorted(_armed))


def die_at(point: str) -> None:
    if point in _armed:
        os.kill(os.getpid(), signal.SIGKILL)


def _kill_around_commits() -> None:
    commit, answer = Committer._commit_all, Committer._answer

    def mortal_commit(self: Committer, batch: Any) -> Any:
        if any(isinstance(operation, Append) for operation, _ in batch):
            die_at(BEFORE_BEGIN)
        return commit(self, batch)

    def mortal_answer(self: Committer, batch: Any, outcomes: Sequence[Outcome]) -> None:
        if any(isinstance(outcome, Appended) for outcome in outcomes):
            die_at(AFTER_COMMIT)
        answer(self, batch, outcomes)

    patch.object(Committer, "_commit_all", mortal_commit).start()
    patch.object(Committer, "_answer", mortal_answer).start()


def _kill_inside_sqlite() -> None:
    prepare, write_directly = engine._prepare_sqlite, Database.write_directly

    def prepare_to_die(connection: Any, record: Any) -> None:
        prepare(connection, record)
        connection.create_function("inserted", 1, note_and_die)
        connection.execute(_TRIGGER)

    def note_and_die(message_id: str) -> None:
        _inserted.append(message_id)
        die_at(AFTER_INSERT)

    @contextmanager
    def mortal(self: Database) -> Iterator[DBAPICursor]:
        before = len(_inserted)
        with write_directly(self) as cursor:
            yield cursor
            if len(_inserted) > before:
                die_at(BEFORE_COMMIT)

    patch.object(engine, "_prepare_sqlite", prepare_to_die).start()
    patch.object(Database, "write_directly", mortal).start()


def _kill_after_writing() -> None:
    write = Evented._write_frames

    def mortal(self: Evented, frames: list[bytes]) -> None:
        write(self, frames)
        if any(b'"accepted"' in frame for frame in frames):
            die_at(AFTER_ACK)

    patch.object(Evented, "_write_frames", mortal).start()
