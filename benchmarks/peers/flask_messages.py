"""What both Flask servers of the benchmark share: their app, the model, and the work per message.

Written as one writes it with Flask-SQLAlchemy: objects, a commit for each message and another one
for its delivery mark.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Flask, Response, jsonify
from flask_jwt_extended import JWTManager
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import DateTime, String, Text, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

MAX_FRAME_BYTES = 131072
BASE64URL = re.compile(r"[A-Za-z0-9_-]+")

# Attributes stay readable after a commit, else the ORM selects each message once more.
db = SQLAlchemy(session_options={"expire_on_commit": False})


class Base(DeclarativeBase):
    """Of the models."""


class Message(Base):
    """One row for each message."""

    __tablename__ = "messages"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    sender_id: Mapped[str] = mapped_column(String(255))
    recipient_id: Mapped[str] = mapped_column(String(255))
    encrypted_content: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    delivered_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    def as_frame(self, seq: int) -> dict[str, object]:
        """What its recipient gets."""
        return {
            "type": "message",
            "seq": seq,
            "id": str(self.id),
            "sender": self.sender_id,
            "recipient": self.recipient_id,
            "encrypted_content": self.encrypted_content,
            "created_at": self.created_at.isoformat(),
        }


@dataclass(frozen=True)
class Send:
    """A `send` frame that has passed every check."""

    id: uuid.UUID
    to: str
    encrypted_content: str


def create_app() -> Flask:
    """An app that asks for a token in the query; a bad one is 401."""
    app = Flask(__name__)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"].replace(
            "postgresql:", "postgresql+psycopg:"
        ),
        # As many as the Fastify peer has; none that is closed again after each use.
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 10, "max_overflow": 0},
        JWT_SECRET_KEY=os.environ["JWT_SECRET"],
        JWT_TOKEN_LOCATION=["query_string"],
        JWT_QUERY_STRING_NAME="token",
    )
    db.init_app(app)
    JWTManager(app).invalid_token_loader(_unauthorized)
    return app


def _unauthorized(reason: str) -> tuple[Response, int]:
    return jsonify(msg=reason), 401


def read_send(frame: object) -> Send | None:
    """The frame's members, or None if one of them is wrong."""
    if not isinstance(frame, dict):
        return None
    to, content = frame.get("to"), frame.get("encrypted_content")
    if not isinstance(to, str) or not 1 <= len(to) <= 255:
        return None
    if not isinstance(content, str) or not BASE64URL.fullmatch(content):
        return None
    try:
        message_id = uuid.UUID(frame.get("id"))
    except (AttributeError, TypeError, ValueError):
        return None
    return Send(message_id, to, content)


def store(sender_id: str, send: Send) -> Message:
    """Insert and commit."""
    message = Message(
        id=send.id,
        sender_id=sender_id,
        recipient_id=send.to,
        encrypted_content=send.encrypted_content,
        created_at=datetime.now(UTC),
    )
    db.session.add(message)
    db.session.commit()
    return message


def undelivered(user_id: str) -> list[Message]:
    """What waits for the user, oldest first."""
    waiting = (
        select(Message)
        .where(Message.recipient_id == user_id, Message.delivered_at.is_(None))
        .order_by(Message.created_at)
    )
    messages = list(db.session.scalars(waiting))
    db.session.commit()
    return messages


def mark_delivered(messages: Iterable[Message]) -> None:
    """Set their time, and commit."""
    moment = datetime.now(UTC)
    for message in messages:
        message.delivered_at = moment
    db.session.commit()
