"""End-to-end encrypted messaging for Flask apps: `E2EMessaging().init_app(app, db)`."""

from .errors import ConfigurationError, E2EMsgError, SchemaMissing
from .extension import E2EMessaging
from .signals import message_delivered, message_stored, user_connected, user_disconnected
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
    "user_connected",
    "user_disconnected",
]
