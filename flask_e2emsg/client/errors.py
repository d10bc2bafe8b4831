"""Everything that the client raises on purpose, one class each.

    ClientError
    ├── CannotOpen              an envelope or a backup is refused whole
    │   ├── Malformed           the bytes are not of the form that docs/crypto.md gives
    │   ├── UnknownSuite        a version or a suite that this client does not know
    │   ├── WrongMessageId      the envelope was made for another message
    │   ├── NotForMe            no wrap for a key of mine
    │   ├── UnknownSenderKey    the sender's key is not pinned
    │   └── Forged              it does not authenticate: altered, re-addressed, or sealed by others
    ├── CannotSeal
    │   ├── Incomplete          a message of this type needs a body, a target, or both
    │   ├── NoText              it is no Unicode text
    │   ├── TooLong             it does not fit the largest bucket
    │   └── UnusableKey         a public key that no honest client makes
    ├── CannotSend
    │   ├── NotReady            nobody knows yet who I am: there was no connection so far
    │   ├── KeyNeeded           this account has a key, and it is not in this store
    │   ├── OwnKeyReplaced      the directory has another key for me than this store
    │   ├── NoSuchKey           the contact has not published a key
    │   └── KeyNotAccepted      the contact has another key than the pinned one
    ├── CannotRestore
    │   ├── Mistyped            this is no recovery code; a letter is wrong or missing
    │   ├── NoBackup            the server has none
    │   └── WrongCode           the code does not open this backup
    ├── StoreError
    │   ├── WrongPassphrase     the store does not open with it
    │   ├── StoreInUse          another process has it open
    │   └── WrongUser           the store is another user's
    └── ServerError
        ├── NoToken             the application's callable gave no access token
        ├── Unreachable         no answer
        ├── Garbled             an answer that makes no sense
        └── Refused             an answer that says no; the server's code is an attribute

Texts and attributes never hold a private key, a passphrase, a recovery code, a token or cleartext.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import E2EMsgError


class ClientError(E2EMsgError):
    """The base of everything that the client raises on purpose."""


class CannotOpen(ClientError):
    """What came is refused whole. `reason` is a word for programs."""

    reason: ClassVar[str] = "refused"


class Malformed(CannotOpen):
    """The bytes are not of the form that docs/crypto.md gives."""

    reason = "malformed"


class UnknownSuite(CannotOpen):
    """A newer client wrote this."""

    reason = "unknown_suite"

    def __init__(self, version: int, suite: int) -> None:
        self.version, self.suite = version, suite
        super().__init__(f"Version {version}, suite {suite} is not known here. Update the client.")


class WrongMessageId(CannotOpen):
    """The envelope was made for another message."""

    reason = "wrong_message_id"

    def __init__(self) -> None:
        super().__init__("The envelope was made for another message.")


class NotForMe(CannotOpen):
    """It was sealed for other keys than mine: older ones, or somebody else's."""

    reason = "not_for_me"

    def __init__(self) -> None:
        super().__init__("There is no wrap for a key that this client has.")


class UnknownSenderKey(CannotOpen):
    """The sender's key is not pinned. Kept, and opened when the key has been accepted."""

    reason = "unknown_sender_key"

    def __init__(self, kid: bytes) -> None:
        self.kid = kid
        super().__init__(f"The key {kid.hex()} is not a pinned key of the sender.")


class Forged(CannotOpen):
    """It does not authenticate: altered, re-addressed, or sealed by somebody else."""

    reason = "forged"

    def __init__(self) -> None:
        super().__init__("It was altered, re-addressed, or sealed by somebody else.")


class CannotSeal(ClientError):
    """Nothing was sealed, so nothing is sent."""


class Incomplete(CannotSeal):
    """What a `reply`, `edit`, `delete` or `reaction` is about, or its text, is missing."""

    def __init__(self, type: str) -> None:
        self.type = type
        super().__init__(f"A message of type {type!r} needs a body, the id of a target, or both.")


class NoText(CannotSeal):
    """It has surrogates that stand alone, so it has no UTF-8."""

    def __init__(self) -> None:
        super().__init__("This is no Unicode text.")


class TooLong(CannotSeal):
    """The message does not fit the largest bucket. Send it in parts."""

    def __init__(self, length: int, limit: int) -> None:
        self.length, self.limit = length, limit
        super().__init__(f"{length} bytes are sealed at most {limit} at a time. Send it in parts.")


class UnusableKey(CannotSeal):
    """A public key of the wrong length or of low order: its owner is broken or hostile."""

    def __init__(self) -> None:
        super().__init__("This is not a usable X25519 public key.")


class CannotSend(ClientError):
    """The message was not taken into the outbox."""


class NotReady(CannotSend):
    """This store has never been connected, so it knows neither the user nor the user's key."""

    def __init__(self) -> None:
        super().__init__("A new store has to be connected once before it can seal.")


class KeyNeeded(CannotSend):
    """The account has a key that is not in this store: `restore` it, or `make_new_key`."""

    def __init__(self) -> None:
        super().__init__("The account's key is on another device: restore it with the code.")


class OwnKeyReplaced(CannotSend):
    """The directory has another key for me: `restore` that one, or `publish_my_key` again."""

    def __init__(self) -> None:
        super().__init__("Another device of yours, or somebody else, has published another key.")


class NoSuchKey(CannotSend):
    """The contact has not published a key, or does not exist."""

    def __init__(self, contact: str) -> None:
        self.contact = contact
        super().__init__(f"{contact!r} has no key yet, so nothing can be sealed for them.")


class KeyNotAccepted(CannotSend):
    """The contact's key is another one than before: compare numbers, then `accept_key`."""

    def __init__(self, contact: str) -> None:
        self.contact = contact
        super().__init__(f"{contact!r} has another key: compare safety numbers, then accept it.")


class CannotRestore(ClientError):
    """The backup gave no key."""


class Mistyped(CannotRestore):
    """This is no recovery code."""

    def __init__(self) -> None:
        super().__init__("This is no recovery code: a letter is wrong, missing or too much.")


class NoBackup(CannotRestore):
    """The server has no backup of this account."""

    def __init__(self) -> None:
        super().__init__("The server has no backup of this account.")


class WrongCode(CannotRestore):
    """The code is of another backup, or somebody altered this one."""

    def __init__(self) -> None:
        super().__init__("This code does not open this backup.")


class StoreError(ClientError):
    """The client's file cannot be used."""


class WrongPassphrase(StoreError):
    """The store does not open with this passphrase."""

    def __init__(self) -> None:
        super().__init__("The store does not open with this passphrase.")


class StoreInUse(StoreError):
    """Another process, or another `Store`, has the file open."""

    def __init__(self) -> None:
        super().__init__("Another client has this store open.")


class WrongUser(StoreError):
    """The store belongs to another user than the token."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        super().__init__(f"This store belongs to {owner!r}.")


class ServerError(ClientError):
    """A call to the server did not succeed."""


class Unreachable(ServerError):
    """No answer came."""

    def __init__(self) -> None:
        super().__init__("The server cannot be reached.")


class NoToken(ServerError):
    """The application's callable gave no access token; its own exception is the cause."""

    def __init__(self) -> None:
        super().__init__("There is no access token.")


class Garbled(ServerError):
    """An answer or a frame that docs/protocol.md does not have."""

    def __init__(self) -> None:
        super().__init__("The server says something that makes no sense.")


class Refused(ServerError):
    """The server says no.

    Attributes:
        status: the HTTP status.
        code: the word of docs/protocol.md, section 6; empty when the answer has none.
        retry_after: seconds, or None.
        facts: the other members of the error.
    """

    def __init__(
        self,
        status: int,
        code: str,
        retry_after: float | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.status, self.code, self.retry_after = status, code, retry_after
        self.facts = dict(facts or {})
        super().__init__(f"The server refused: {status} {code}")
