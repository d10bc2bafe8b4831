"""The acceptance host with rules: users who are locked out, users who let nobody write to them.

What it knows stands in its database, so that all workers know it. `python -m tests.security.host
create` makes the tables.
"""

from __future__ import annotations

import os
import sys

from flask import Flask, Response, jsonify
from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tests.acceptance import host
from tests.acceptance.host import db, e2emsg

LEEWAY_SECONDS = 30


class LockedUser(host.Base):
    """Somebody whom the host does not let in any more."""

    __tablename__ = "locked_users"

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)


@e2emsg.user_is_active
def is_active(user_id: str) -> bool:
    return db.session.get(LockedUser, user_id) is None


@e2emsg.authorize_send
def may_write(_sender: str, recipient: str, _conversation_id: str | None) -> bool:
    return not recipient.startswith("shut")


def create_app() -> Flask:
    """The application, configured from the environment."""
    app = host.create_app()
    app.config["JWT_DECODE_LEEWAY"] = LEEWAY_SECONDS
    app.add_url_rule("/lock/<user_id>", view_func=lock, methods=["POST"])
    app.add_url_rule("/disconnect/<user_id>", view_func=disconnect, methods=["POST"])
    app.add_url_rule("/here", view_func=here)
    return app


def lock(user_id: str) -> Response:
    """Lock a user out, as an administrator does."""
    db.session.add(LockedUser(user_id=user_id))
    db.session.commit()
    return jsonify(locked=True)


def disconnect(user_id: str) -> Response:
    """End a user's sockets."""
    return jsonify(closed=e2emsg.disconnect(user_id))


def here() -> Response:
    """Which worker this is, and how many sockets it has."""
    return jsonify(worker=os.getpid(), sockets=e2emsg.connections.count(here=True))


def create_tables() -> None:
    """All tables, the host's own and the extension's, in an empty database."""
    with create_app().app_context():
        db.create_all()


if __name__ == "__main__":
    if sys.argv[1:] != ["create"]:
        sys.exit("usage: python -m tests.security.host create")
    create_tables()
