"""The host of the acceptance tests with faults built in: a user's id says where which one happens.

`hello.SystemExit.6f2a` fails with SystemExit where that user's hello is made. `/heard` tells for
whom `user_connected` has come through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, Response, abort, jsonify
from gevent import GreenletExit
from sqlalchemy.exc import OperationalError

import flask_e2emsg.protocol.frames
from flask_e2emsg import user_connected
from flask_e2emsg.delivery.pump import Pump
from flask_e2emsg.process import Process
from flask_e2emsg.transport.evented import Evented
from flask_e2emsg.transport.ws import Session
from tests.acceptance import host

CANARY = "canary-in-the-text-of-a-fault"
heard: list[str] = []


def fail_with(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


FAULTS: dict[str, Callable[[], object]] = {
    "RuntimeError": fail_with(RuntimeError(CANARY)),
    "RecursionError": fail_with(RecursionError(CANARY)),
    "MemoryError": fail_with(MemoryError(CANARY)),
    "database": fail_with(OperationalError(CANARY, {}, Exception(CANARY))),
    "GreenletExit": fail_with(GreenletExit(CANARY)),
    "SystemExit": fail_with(SystemExit(CANARY)),
    "abort 401": lambda: abort(401),
    "abort 404": lambda: abort(404),
}


def fail_if_wanted(point: str, user_id: str) -> None:
    """Raise what this user's id asks for at this point."""
    wanted, _, rest = user_id.partition(".")
    if wanted == point:
        FAULTS[rest.split(".")[0]]()


def fail_before(point: str, owner: Any, name: str, user_of: Callable[..., str]) -> None:
    """Have a function fail before it begins, for those who want that."""
    original = getattr(owner, name)

    def failing(*arguments: Any, **named: Any) -> Any:
        fail_if_wanted(point, user_of(*arguments))
        return original(*arguments, **named)

    setattr(owner, name, failing)


def user_of(session: Session) -> str:
    return session.pump.owner.user_id


def named_in(text: bytes) -> str:
    """The user id that a test has put into a frame, as its `ref`."""
    return text.decode().partition('"ref": "')[2].partition('"')[0]


def authorize(sender: str, _recipient: str, _conversation_id: str | None) -> bool:
    fail_if_wanted("rules", sender)
    return True


def hear(_app: Flask, user_id: str, **_: object) -> None:
    fail_if_wanted("signal", user_id)
    heard.append(user_id)


def create_app() -> Flask:
    """The application, configured from the environment."""
    app = host.create_app()
    host.e2emsg.authorize_send = authorize
    user_connected.connect(hear, app)
    app.add_url_rule("/heard", view_func=tell)
    fail_before("connecting", Process, "connected", lambda _self, pump: pump.owner.user_id)
    fail_before("hello", Session, "_hello", lambda self, _start: self._user_id)
    fail_before("decoding", flask_e2emsg.protocol.frames, "decode", named_in)
    fail_before("entries", Pump, "take_entries", lambda self: self.owner.user_id)
    fail_before("writing", Evented, "_write_frames", lambda self, _frames: user_of(self._session))
    fail_before("teardown", Process, "removed", lambda _self, pump: pump.owner.user_id)
    return app


def tell() -> Response:
    return jsonify(heard)
