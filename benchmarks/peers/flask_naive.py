"""What one writes by hand with flask-sock: the ORM, commits per message, a dict of who is there."""

from __future__ import annotations

import itertools
import json
import logging

from flask_jwt_extended import get_jwt_identity, verify_jwt_in_request
from flask_sock import Sock
from simple_websocket import ConnectionClosed, Server
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from benchmarks.peers.flask_messages import (
    MAX_FRAME_BYTES,
    Message,
    create_app,
    db,
    mark_delivered,
    read_send,
    store,
    undelivered,
)

logger = logging.getLogger(__name__)

app = create_app()
app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": MAX_FRAME_BYTES}
sock = Sock(app)
connections: dict[str, Server] = {}
positions = itertools.count(1)


@app.before_request
def require_token() -> None:
    """Runs before flask-sock upgrades."""
    verify_jwt_in_request()


@sock.route("/api/ws")
def talk(ws: Server) -> None:
    """One connection, from its hello to its end."""
    user_id = get_jwt_identity()
    connections[user_id] = ws
    try:
        welcome(ws, user_id)
        while True:
            take_frame(ws, user_id, ws.receive())
    finally:
        if connections.get(user_id) is ws:
            del connections[user_id]


def welcome(ws: Server, user_id: str) -> None:
    """Say hello, and send what came while nobody was there."""
    messages = undelivered(user_id)
    ws.send(json.dumps({"type": "hello", "user_id": user_id}))
    for message in messages:
        ws.send(json.dumps(message.as_frame(next(positions))))
    if messages:
        mark_delivered(messages)


def take_frame(ws: Server, user_id: str, text: str | bytes) -> None:
    """Do what one frame asks for."""
    try:
        frame = json.loads(text)
    except ValueError:
        frame = None
    kind = frame.get("type") if isinstance(frame, dict) else None
    if kind == "ack":
        return
    send = read_send(frame)
    if kind != "send" or send is None:
        refuse(ws, None, "bad_request")
        return
    try:
        message = store(user_id, send)
        accept(ws, message)
        deliver(message)
    except IntegrityError:
        db.session.rollback()
        refuse(ws, str(send.id), "id_conflict")
    except SQLAlchemyError:
        db.session.rollback()
        logger.exception("a message was not stored")
        refuse(ws, str(send.id), "unavailable")


def accept(ws: Server, message: Message) -> None:
    """Tell the sender that it is stored."""
    created_at = message.created_at.isoformat()
    ws.send(json.dumps({"type": "accepted", "id": str(message.id), "created_at": created_at}))


def refuse(ws: Server, ref: str | None, code: str) -> None:
    """Tell the sender that it is not."""
    ws.send(json.dumps({"type": "error", "ref": ref, "code": code}))


def deliver(message: Message) -> None:
    """Forward it if the recipient is connected, and note that."""
    recipient = connections.get(message.recipient_id)
    if recipient is None:
        return
    try:
        recipient.send(json.dumps(message.as_frame(next(positions))))
    except (ConnectionClosed, OSError):
        return
    mark_delivered([message])
