"""The tokens of one client: good ones, short ones, and such as must not let anybody in."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

# Both are more than a clock is ever stepped by, so that what is good or bad stays so.
VALID_SECONDS = 7200.0
EXPIRED_SECONDS = -7200.0
REVOKED_SHARE = 0.5  # of the bad ones, where there are any


class Mint(Protocol):
    """Makes tokens."""

    def __call__(self, user_id: str, seconds: float, kind: str = "access") -> str:
        """A token of this kind for a user that is good for so many seconds."""


@dataclass(frozen=True)
class Trust:
    """How often a connection has which token, as probabilities."""

    bad: float = 0.05  # must not let it in
    short: float = 0.0  # expires while it is open
    short_seconds: float = 6.0


class Wallet:
    """Chooses a token for each connection, and remembers what is to be expected of it."""

    def __init__(self, user_id: str, mint: Mint, trust: Trust, dice: random.Random) -> None:
        self.all: list[str] = []
        self._user_id = user_id
        self._mint = mint
        self._trust = trust
        self._dice = dice
        self._usual: str | None = None
        self._bad: dict[str, str] = {}  # and what is wrong with them
        self._revoked: list[str] = []
        self._doubtful: set[str] = set()
        self.for_rest = self._new(VALID_SECONDS)

    def choose(self) -> str:
        """A good one, but for now and then; for a while or for a moment."""
        if self._dice.random() < self._trust.bad:
            return self._some_bad()
        if self._dice.random() < self._trust.short:
            token = self._new(self._trust.short_seconds)
            self._doubtful.add(token)
            return token
        if self._usual is None:
            self._usual = self._new(VALID_SECONDS)
        return self._usual

    def drop(self) -> str | None:
        """The usual one, which is not used again, to be revoked; None if there is none."""
        token, self._usual = self._usual, None
        if token is not None:
            # Whether it is revoked is not known before the answer, and not without one.
            self._doubtful.add(token)
        return token

    def note_revoked(self, token: str) -> None:
        self._bad[token] = "a revoked token"
        self._revoked.append(token)

    def what_is_wrong(self, token: str) -> str | None:
        """Why it must not let anybody in; None if it may."""
        return self._bad.get(token)

    def is_good(self, token: str) -> bool:
        """Whether nothing speaks against it, and nothing will."""
        return token not in self._bad and token not in self._doubtful

    def _some_bad(self) -> str:
        if self._revoked and self._dice.random() < REVOKED_SHARE:
            return self._dice.choice(self._revoked)
        if self._dice.random() < 0.5:
            token, what_is_wrong = self._new(EXPIRED_SECONDS), "an expired token"
        else:
            token, what_is_wrong = self._new(VALID_SECONDS, "refresh"), "a refresh token"
        self._bad[token] = what_is_wrong
        return token

    def _new(self, seconds: float, kind: str = "access") -> str:
        token = self._mint(self._user_id, seconds, kind)
        self.all.append(token)
        return token
