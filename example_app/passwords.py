"""Password hashes with Argon2, computed where they hold up nobody else.

One hash takes tens of milliseconds of processor time. In a gevent worker it therefore runs in
gevent's pool of real threads, so that every other greenlet of the process goes on.
"""

import secrets
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from gevent import get_hub
from gevent.monkey import is_module_patched

Result = TypeVar("Result")

_hasher = PasswordHasher()
_nobody = _hasher.hash(secrets.token_hex())


def hashed(password: str) -> str:
    """The hash to store for a new password."""
    return _beside_the_event_loop(_hasher.hash, password)


def is_right(password: str, password_hash: str | None) -> bool:
    """Whether the password belongs to the hash; None, for an unknown user, takes as long."""
    matches = _beside_the_event_loop(_matches, password_hash or _nobody, password)
    return matches and password_hash is not None


def _matches(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except VerificationError:
        return False


def _beside_the_event_loop(work: Callable[..., Result], *args: str) -> Result:
    if not is_module_patched("threading"):
        return work(*args)
    result: Result = get_hub().threadpool.apply(work, args)
    return result
