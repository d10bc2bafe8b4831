"""End-to-end encrypted messaging for Flask apps: `E2EMessaging().init_app(app, db)`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import ConfigurationError, E2EMsgError, SchemaMissing
    from .extension import E2EMessaging
    from .signals import message_delivered, message_stored, user_connected, user_disconnected
    from .store import schema
    from .store.user import MessagingUserMixin

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "E2EMessaging",
    "E2EMsgError",
    "MessagingUserMixin",
    "SchemaMissing",
    "message_delivered",
    "message_stored",
    "schema",
    "user_connected",
    "user_disconnected",
]

# Names are loaded when they are asked for: gunicorn's master imports `flask_e2emsg.gunicorn` before
# gevent patches its workers, and what is loaded there keeps the unpatched locks and sockets.
_HOMES = {
    "ConfigurationError": "errors",
    "E2EMessaging": "extension",
    "E2EMsgError": "errors",
    "MessagingUserMixin": "store.user",
    "SchemaMissing": "errors",
    "message_delivered": "signals",
    "message_stored": "signals",
    "schema": "store.schema",
    "user_connected": "signals",
    "user_disconnected": "signals",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f".{_HOMES[name]}", __name__)
    return home if name == "schema" else getattr(home, name)
