"""The same work with Flask-SocketIO: events instead of frames, rooms instead of a dict.

The token is verified before Engine.IO upgrades, by a WSGI wrapper around it.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import request
from flask_jwt_extended import get_jwt_identity, verify_jwt_in_request
from flask_jwt_extended.exceptions import JWTExtendedException
from flask_socketio import SocketIO, emit, join_room
from jwt import PyJWTError
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from benchmarks.peers.flask_messages import (
    MAX_FRAME_BYTES,
    create_app,
    db,
    mark_delivered,
    read_send,
    store,
    undelivered,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

USER_ID = "benchmark.user_id"

logger = logging.getLogger(__name__)

app = create_app()
# always_connect, since the connect event emits.
socketio = SocketIO(
    app, async_mode="gevent", always_connect=True, max_http_buffer_size=MAX_FRAME_BYTES
)
present: Counter[str] = Counter()
positions = itertools.count(1)


class TokenFirst:
    """Lets nobody through to Engine.IO without a token."""

    def __init__(self, inner: WSGIApplication) -> None:
        self._inner = inner

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            with app.request_context(environ):
                verify_jwt_in_request()
                environ[USER_ID] = get_jwt_identity()
        except (JWTExtendedException, PyJWTError):
            start_response("401 Unauthorized", [("Content-Length", "0")])
            return [b""]
        return self._inner(environ, start_response)


application = TokenFirst(app)


@socketio.on("connect")
def connected() -> None:
    """Say hello, and send what came while nobody was there."""
    user_id = request.environ[USER_ID]
    join_room(user_id)
    present[user_id] += 1
    messages = undelivered(user_id)
    emit("hello", {"type": "hello", "user_id": user_id})
    for message in messages:
        emit("message", message.as_frame(next(positions)))
    if messages:
        mark_delivered(messages)


@socketio.on("disconnect")
def disconnected() -> None:
    """One connection of the user less."""
    present[request.environ[USER_ID]] -= 1


@socketio.on("ack")
def acknowledged(_frame: object) -> None:
    """Not asked for, and not used."""


@socketio.on("send")
def take_send(frame: object) -> None:
    """Store, answer, forward to the recipient's room."""
    send = read_send(frame)
    if send is None:
        refuse(None, "bad_request")
        return
    try:
        message = store(request.environ[USER_ID], send)
        created_at = message.created_at.isoformat()
        emit("accepted", {"type": "accepted", "id": str(message.id), "created_at": created_at})
        if present[send.to] > 0:
            emit("message", message.as_frame(next(positions)), to=send.to)
            mark_delivered([message])
    except IntegrityError:
        db.session.rollback()
        refuse(str(send.id), "id_conflict")
    except SQLAlchemyError:
        db.session.rollback()
        logger.exception("a message was not stored")
        refuse(str(send.id), "unavailable")


def refuse(ref: str | None, code: str) -> None:
    """Tell the sender that it is not stored."""
    emit("error", {"type": "error", "ref": ref, "code": code})
