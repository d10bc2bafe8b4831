"""Every refusal that this package makes, one class each.

    E2EMsgError
    ├── ConfigurationError      the host app lacks something; the text says the cure
    ├── SchemaMissing           the tables are not there; the text names the command
    └── Refusal                 a client was told no; code, status and close code stand on the class
        ├── BadRequest, Unauthorized, Forbidden, NotFound, UnknownRecipient, IdConflict, TooLarge,
        │   OriginDenied, UpgradeRequired, TooManyConnections, WrongMethod, RateLimited,
        │   QuotaExceeded, UnusableKey, StaleKey, NoBackup, VersionConflict
        └── Unavailable, Internal, Draining, Overloaded

The words in `code` are those of docs/protocol.md, section 6; they are the same in frames and in
REST bodies. Texts never carry a token, a key or a ciphertext.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class E2EMsgError(Exception):
    """The base of everything that this package raises on purpose."""


class ConfigurationError(E2EMsgError):
    """The host app lacks a prerequisite, or a configuration key has a wrong value."""


class SchemaMissing(E2EMsgError):
    """The messaging tables are not in the database."""

    def __init__(self) -> None:
        super().__init__(
            "The e2emsg_* tables are missing from the database. Run `flask e2emsg revision` once "
            "to write the migration, then `flask db upgrade`."
        )


class Refusal(E2EMsgError):
    """A request or a frame that is answered with an error.

    Attributes:
        code: the word on the wire.
        http_status: the status of the REST answer.
        retry_after: seconds after which trying again makes sense; None when it does not.
        ref: the `id` or `ref` of the offending frame, when there is one.
        message_id: of several messages in a frame, the one to blame.
        members: what else the client needs, as members of the error on the wire.
    """

    code: ClassVar[str]
    http_status: ClassVar[int]
    default_message: ClassVar[str] = ""
    retry_after: float | None = None
    members: Mapping[str, object] = {}

    def __init__(
        self, message: str = "", *, ref: str | int | None = None, message_id: str | None = None
    ) -> None:
        self.message = message or self.default_message
        if message_id is not None:
            self.message += f" (message {message_id!r})"
        self.ref = ref
        self.message_id = message_id
        super().__init__(self.message)


class BadRequest(Refusal):
    """The frame, body, path or query is not what the protocol asks for."""

    code, http_status = "bad_request", 400


class UnusableKey(Refusal):
    """A public key that no honest client makes, such as a low-order point."""

    code, http_status = "bad_request", 422
    default_message = "This is not a usable X25519 public key."


class Unauthorized(Refusal):
    """No valid access token. One text for every cause, so that it tells nothing."""

    code, http_status = "unauthorized", 401
    default_message = "A valid access token is required."


class Forbidden(Refusal):
    """The host's rules do not allow this."""

    code, http_status = "forbidden", 403
    default_message = "This is not allowed."


class OriginDenied(Refusal):
    """The page that opens the socket is of an origin that is not allowed."""

    code, http_status = "origin_denied", 403
    default_message = "This origin may not connect."


class NotFound(Refusal):
    """There is no such thing, or it is not yours."""

    code, http_status = "not_found", 404
    default_message = "There is no such thing."


class UnknownRecipient(Refusal):
    """Nobody with this user id can receive messages."""

    code, http_status = "unknown_recipient", 404
    default_message = "There is no such recipient."


class IdConflict(Refusal):
    """This message id was already used for something else. Make a new id."""

    code, http_status = "id_conflict", 409
    default_message = "This id was already used for another message. Make a new id."


class StaleKey(Refusal):
    """An envelope of a key, or for a key, that is not the current one.

    `members["key"]` is the directory's entry that counts, with nulls where there is none.
    """

    code, http_status = "stale_key", 409
    default_message = "The envelope does not fit the current keys. Seal the message again."

    def __init__(self, key: Mapping[str, object], *, message_id: str | None = None) -> None:
        super().__init__(message_id=message_id)
        self.members = {"key": key}


class NoBackup(NotFound):
    """The user has no backup of the key. `members["version"]` is what the first one replaces."""

    default_message = "There is no backup."

    def __init__(self, version: int) -> None:
        super().__init__()
        self.members = {"version": version}


class VersionConflict(Refusal):
    """The backup was changed by somebody else; `members["version"]` is the current one."""

    code, http_status = "bad_request", 409
    default_message = "The backup has another version by now. Look at it, then try again."

    def __init__(self, version: int) -> None:
        super().__init__()
        self.members = {"version": version}


class WrongMethod(Refusal):
    """The path is one of ours, and does not take this method."""

    code, http_status = "bad_request", 405
    default_message = "This address does not take this method."


class TooLarge(Refusal):
    """The body is longer than a frame may be."""

    code, http_status = "too_large", 413
    default_message = "The body is too large."


class UpgradeRequired(Refusal):
    """An ordinary GET where a WebSocket handshake belongs."""

    code, http_status = "upgrade_required", 426
    default_message = "Open this address as a WebSocket."


class TooManyConnections(Refusal):
    """The user's live connections are at the cap."""

    code, http_status, retry_after = "too_many_connections", 429, 5.0
    default_message = "This user has too many live connections."


class RateLimited(Refusal):
    """The user sends faster than the host allows."""

    code, http_status, retry_after = "rate_limited", 429, 1.0
    default_message = "Too many messages. Wait, then send again."


class QuotaExceeded(Refusal):
    """So much waits for this recipient that nothing more is taken in."""

    code, http_status, retry_after = "quota_exceeded", 429, 60.0
    default_message = "Too many messages wait for this recipient. Try again later."


class Unavailable(Refusal):
    """The database refused or is away. Nothing was lost; retry with the same id."""

    code, http_status, retry_after = "unavailable", 503, 1.0
    default_message = "Storage is not available. Try again with the same id."


class Draining(Refusal):
    """This worker is about to stop."""

    code, http_status, retry_after = "draining", 503, 1.0
    default_message = "This server is restarting. Connect again."


class Overloaded(Refusal):
    """This worker has as much as it can take."""

    code, http_status, retry_after = "overloaded", 503, 2.0
    default_message = "This server has as many connections as it takes. Connect again later."


class Internal(Refusal):
    """A fault of ours; the log has it."""

    code, http_status = "internal", 500
    default_message = "The server failed. The fault is logged."
