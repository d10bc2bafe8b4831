"""The acceptance host, whose code talks to sockets, and asks who is there.

`python -m tests.acceptance.telling_host event USER` is a task that runs beside the servers.
"""

from __future__ import annotations

import os
import sys

from flask import Flask, Response, jsonify, request

from tests.acceptance import host
from tests.acceptance.host import e2emsg

undelivered: list[str] = []


def create_app() -> Flask:
    """The application, configured from the environment."""
    app = host.create_app()
    app.add_url_rule("/event/<user_id>", view_func=event, methods=["POST"])
    app.add_url_rule("/disconnect/<user_id>", view_func=disconnect, methods=["POST"])
    app.add_url_rule("/who/<user_id>", view_func=who)
    app.add_url_rule("/undelivered", view_func=show_undelivered)
    return app


@e2emsg.on_undelivered
def note_undelivered(user_id: str) -> None:
    undelivered.append(user_id)


def event(user_id: str) -> Response:
    """Send an event; how many connections there are."""
    body = request.get_json()
    return jsonify(told=e2emsg.send_event(user_id, body["name"], body["data"]))


def disconnect(user_id: str) -> Response:
    """End a user's sockets; how many there are."""
    return jsonify(closed=e2emsg.disconnect(user_id))


def who(user_id: str) -> Response:
    """What this worker knows of a user's connections."""
    connections = e2emsg.connections
    return jsonify(
        worker=os.getpid(),
        online=connections.is_online(user_id),
        count=connections.count(user_id),
        here=connections.count(user_id, here=True),
        listed=user_id in connections.users(),
        listed_here=user_id in connections.users(here=True),
        everybody=connections.count(),
    )


def show_undelivered() -> Response:
    """For whom this worker was told that nobody is there."""
    return jsonify(undelivered)


if __name__ == "__main__":
    if sys.argv[1:2] != ["event"]:
        sys.exit("usage: python -m tests.acceptance.telling_host event USER")
    with create_app().app_context():
        e2emsg.send_event(sys.argv[2], "from_a_task", {"n": 1})
