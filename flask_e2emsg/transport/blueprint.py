"""The blueprint: flask-sock's route behind the gate, the REST routes, and one shape for errors."""

from __future__ import annotations

import logging
import socket
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from flask import Blueprint, Response, current_app, g, request
from flask_sock import Sock
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import MapAdapter
from werkzeug.routing.exceptions import RoutingException
from wsproto.utilities import ProtocolError

from ..config import Settings
from ..delivery.hub import Hub
from ..delivery.pump import Pump
from ..delivery.router import Router
from ..errors import (
    BadRequest,
    E2EMsgError,
    Internal,
    NotFound,
    Refusal,
    TooLarge,
    TooManyConnections,
    Unauthorized,
    Unavailable,
    WrongMethod,
)
from ..protocol import frames
from ..redaction import stack_of
from ..store.accounts import Accounts, MailboxState
from ..store.backups import Backups
from ..store.history import History
from ..store.mailbox import Mailboxes
from ..store.tickets import Tickets
from . import auth, modules
from .handshake import GUNICORN, Handover, early_bytes, give_up, socket_of
from .rest import Rest
from .sockets import Sockets
from .ws import Session, Start

logger = logging.getLogger("flask_e2emsg.http")

BLUEPRINT = "e2emsg"
FILES = f"{BLUEPRINT}.static"  # the browser client's, for everybody


class Process(Protocol):
    """What the routes need of this process."""

    accounts: Accounts
    backups: Backups
    mailboxes: Mailboxes
    history: History
    hub: Hub
    router: Router
    sockets: Sockets
    tickets: Tickets

    def new_pump(self, user_id: str) -> tuple[Pump, MailboxState]: ...
    def connected(self, pump: Pump) -> None: ...
    def removed(self, pump: Pump) -> None: ...
    def keep_up(self) -> None: ...
    def rekeyed(self, user_id: str) -> None: ...


class State(Protocol):
    """What the routes need of the app."""

    settings: Settings

    @property
    def process(self) -> Process: ...
    def user_is_active(self, user_id: str) -> bool: ...
    def request_context(self) -> AbstractContextManager[None]: ...
    def let_go(self) -> None: ...


def make_blueprint(state: State) -> Blueprint:
    """All routes of the extension for one app."""
    blueprint = Blueprint(
        BLUEPRINT,
        __name__,
        url_prefix=state.settings.url_prefix or None,
        static_folder=modules.FOLDER,
        static_url_path="/static",
    )
    preload = modules.Modules(FILES).preload
    blueprint.add_app_template_global(preload, "e2emsg_modules")
    socket = _Socket(state)
    Sock().route("/ws", bp=blueprint)(socket.ws)
    blueprint.add_url_rule("/ws", "ws_without_upgrade", socket.refuse, methods=["GET"])
    Rest(
        lambda: state.process.router,
        lambda: state.process.mailboxes,
        lambda: state.process.history,
        lambda: state.process.tickets,
        lambda: state.process.backups,
        state.let_go,
        lambda: state.process.keep_up(),
        lambda user_id: state.process.rekeyed(user_id),
    ).add_to(blueprint)
    blueprint.before_app_request(_refuse_other_methods)
    blueprint.before_request(lambda: _gate(state, socket))
    blueprint.after_request(_keep_private)
    blueprint.teardown_request(socket.clean_up)
    blueprint.register_error_handler(Exception, _answer_error)
    return blueprint


def _refuse_other_methods() -> Response | None:
    """Answer for a path of ours what would otherwise be the host's page for a wrong method."""
    error = request.routing_exception
    if not isinstance(error, MethodNotAllowed) or not error.valid_methods:
        return None
    adapter = current_app.create_url_adapter(request)
    if adapter is None or not _is_ours(adapter, next(iter(error.valid_methods))):
        return None
    response = _keep_private(_answer_error(WrongMethod()))
    response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _is_ours(adapter: MapAdapter, method: str) -> bool:
    try:
        endpoint, _ = adapter.match(method=method)
    except (HTTPException, RoutingException):
        return False
    return str(endpoint).startswith(f"{BLUEPRINT}.")


def _gate(state: State, socket: _Socket) -> Response | None:
    if request.endpoint == FILES:
        return None
    if request.method == "OPTIONS":
        return None  # A preflight carries no credentials, and gets nothing but the allowed methods.
    own_limit = request.max_content_length
    limit = state.settings.max_frame_bytes
    request.max_content_length = limit if own_limit is None else min(limit, own_limit)
    endpoint = (request.endpoint or "").rpartition(".")[2]
    if endpoint in ("ws", "ws_without_upgrade"):
        return socket.gate(is_websocket=endpoint == "ws")
    g.e2emsg_identity = _active(state, auth.identify_request(state.settings))
    return None


def _active(state: State, identity: auth.Identity) -> auth.Identity:
    if not state.user_is_active(identity.user_id):
        raise Unauthorized
    return identity


class _Nothing(Response):
    """What gunicorn is to send after the frames of a connection, as flask-sock tells it."""

    def __call__(self, *_: object) -> Any:
        raise StopIteration


class _Socket:
    """The route `/ws`: what happens before and after the 101."""

    def __init__(self, state: State) -> None:
        self._state = state

    def gate(self, *, is_websocket: bool) -> Response | None:
        """Check everything; what passes is upgraded under gunicorn, or ready for flask-sock.

        The libraries took a fifth of what a handshake costs: they build an HTTP request again,
        parse it again, and start a thread, which has nothing to do.
        """
        state = self._state
        process = state.process
        identity = _active(state, auth.identify_socket(state.settings, process.tickets))
        auth.check_origin(state.settings, required=identity.has_only_cookie)
        auth.check_handshake(is_websocket)
        cursor = auth.requested_cursor()
        environ = request.environ
        found = socket_of(environ)
        if found is None:
            logger.error("this server gives no access to its sockets; use gunicorn")
            raise Internal
        auth.use_ticket(identity, process.tickets)
        pump, mailbox = process.new_pump(identity.user_id)
        g.e2emsg_pump = pump
        pump.credential = identity
        start = Start.at(cursor, mailbox)
        key, sock = found
        handover = g.e2emsg_handover = Handover(sock, auth.offered_subprotocol())
        is_gunicorn = key == GUNICORN
        g.e2emsg_connection = sock, identity, start, is_gunicorn
        if is_gunicorn:
            handover.answer(environ["HTTP_SEC_WEBSOCKET_KEY"])
            self.ws(None)
            return _Nothing()
        environ[key] = handover
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        environ.pop("HTTP_SEC_WEBSOCKET_PROTOCOL", None)
        return None

    def ws(self, _upgraded: Any) -> None:
        """Serve the upgraded socket. Its 101 is on the wire: nothing may be raised from here."""
        sock, identity, start, may_keep = g.e2emsg_connection
        try:
            self._serve(sock, identity, start, may_keep)
        except BaseException as error:
            logger.error("a connection failed: %s", type(error).__name__)
            give_up(sock)

    def _serve(
        self, sock: socket.socket, identity: auth.Identity, start: Start, may_keep: bool
    ) -> None:
        state, pump, process = self._state, g.e2emsg_pump, self._state.process
        state.let_go()
        process.connected(pump)
        session = Session(state.settings, process.router, pump, identity, self._verify)
        early = early_bytes(request.environ, sock)
        on_end = partial(process.removed, pump)
        if process.sockets.serve(session, sock, early, start, on_end, may_keep=may_keep):
            g.pop("e2emsg_pump")
            g.pop("e2emsg_handover")

    def _verify(self, token: str) -> auth.Identity:
        with self._state.request_context():
            return _active(self._state, auth.identify_token(token, self._state.settings))

    def refuse(self) -> Response:
        """A plain GET: the gate has answered it."""
        raise NotFound

    def clean_up(self, _error: BaseException | None) -> None:
        """Whatever happened, the connection is no longer live, and no HTTP follows a 101."""
        handover = g.pop("e2emsg_handover", None)
        if handover is not None:
            handover.end()
        pump = g.pop("e2emsg_pump", None)
        if pump is not None:
            self._state.process.removed(pump)


def _keep_private(response: Response) -> Response:
    if request.endpoint == FILES:
        return response
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _answer_error(error: Exception) -> Response:
    refusal = _refusal_of(error)
    body: dict[str, Any] = {"code": refusal.code, "message": refusal.message, **refusal.members}
    response = Response(status=refusal.http_status, mimetype="application/json")
    if refusal.retry_after is not None:
        if not isinstance(refusal, TooManyConnections):
            body["retry_after"] = refusal.retry_after
        response.headers["Retry-After"] = str(max(1, round(refusal.retry_after)))
    if refusal.http_status == 426:
        response.headers["Upgrade"] = "websocket"
    response.data = frames.encode_value({"error": body})
    return response


def _refusal_of(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ProtocolError):
        return BadRequest("This is no valid WebSocket handshake.")
    if isinstance(error, HTTPException):
        if error.code == 413:
            return TooLarge()
        if error.code is not None and 400 <= error.code < 500:
            return NotFound() if error.code == 404 else BadRequest(error.name)
    # Database errors quote values, tracebacks quote frames: name the kind, keep the rest out.
    if isinstance(error, SQLAlchemyError):
        logger.error("the database failed: %s", type(error).__name__)
        return Unavailable()
    if isinstance(error, E2EMsgError):
        logger.error("%s", error)
    else:
        logger.error("a request failed: %s", stack_of(error))
    return Internal()
