"""A host that uses everything the extension offers to host code, and tells what it heard.

`DATABASE_URL` and `JWT_SECRET_KEY` come from the environment, and
`python -m tests.extension.host create` makes the tables. `GET /heard` lists what the callbacks and
signals were told, in order.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, current_app, jsonify, request
from flask_jwt_extended import JWTManager, create_access_token
from flask_sqlalchemy import SQLAlchemy

from flask_e2emsg import (
    E2EMessaging,
    message_delivered,
    message_stored,
    user_connected,
    user_disconnected,
)

db = SQLAlchemy()
jwt = JWTManager()
e2emsg = E2EMessaging()

heard: list[dict[str, Any]] = []
inactive: set[str] = set()


def note(what: str, **facts: object) -> None:
    # In an app context, or this raises.
    heard.append({"what": what, "app": current_app.name, **facts})


@e2emsg.authorize_send
def authorize_send(sender: str, recipient: str, conversation_id: str | None) -> bool:
    note("authorize_send", sender=sender, recipient=recipient, conversation_id=conversation_id)
    if recipient.startswith("broken"):
        raise RuntimeError("a fault of the host")
    return not recipient.startswith("closed")


@e2emsg.user_is_active
def user_is_active(user_id: str) -> bool:
    note("user_is_active", user_id=user_id, path=request.path)
    return user_id not in inactive


@e2emsg.on_undelivered
def on_undelivered(user_id: str) -> None:
    note("on_undelivered", user_id=user_id)
    if user_id.startswith("fault"):
        raise RuntimeError("a fault of the host")


def listen(name: str) -> Any:
    def receive(app: Flask, /, **facts: object) -> None:
        note(name, app_is_sender=app.name == current_app.name, **facts)

    return receive


SIGNALS = {
    "message_stored": message_stored,
    "message_delivered": message_delivered,
    "user_connected": user_connected,
    "user_disconnected": user_disconnected,
}
receivers = {name: listen(name) for name in SIGNALS}  # signals hold their receivers weakly


def receive_as_in_flasks_documentation(sender: Flask, **extra: object) -> None:
    note("conventional receiver", app_is_sender=sender.name == "the_host", **extra)


def create_app() -> Flask:
    """The application, configured from the environment."""
    app = Flask("the_host")
    app.config.update(
        SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
        JWT_SECRET_KEY=os.environ["JWT_SECRET_KEY"],
        E2EMSG_CHECK_ENVELOPES=False,
    )
    db.init_app(app)
    jwt.init_app(app)
    e2emsg.init_app(app, db)
    for name, signal in SIGNALS.items():
        signal.connect(receivers[name], app)
    message_stored.connect(receive_as_in_flasks_documentation, app)
    app.add_url_rule("/", view_func=index)
    app.add_url_rule("/token", view_func=token, methods=["POST"])
    app.add_url_rule("/heard", view_func=tell)
    app.add_url_rule("/ask", view_func=ask, methods=["POST"])
    return app


def index() -> str:
    """Something to poll while the server starts."""
    return "ready"


def token() -> Response:
    """An access token for anybody: there are no logins."""
    return jsonify(access_token=create_access_token(request.get_json()["user_id"]))


def tell() -> Response:
    """What the callbacks and signals were told."""
    return jsonify(heard)


def ask() -> Response:
    """Call something of the extension: `{"call", "arguments"}` gives `{"answer"}`."""
    connections = e2emsg.connections
    calls: dict[str, Callable[..., object]] = {
        "send_event": e2emsg.send_event,
        "disconnect": e2emsg.disconnect,
        "forget_user": e2emsg.forget_user,
        "is_online": connections.is_online,
        "count": connections.count,
        "users": connections.users,
        "deactivate": inactive.add,
    }
    body = request.get_json()
    return jsonify(answer=calls[body["call"]](*body["arguments"]))


def create_tables() -> None:
    """All tables in an empty database."""
    with create_app().app_context():
        db.create_all()


if __name__ == "__main__":
    if sys.argv[1:] != ["create"]:
        sys.exit("usage: python -m tests.extension.host create")
    create_tables()
