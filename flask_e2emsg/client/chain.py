"""The chain of one sender key's envelopes to one recipient (docs/crypto.md, 3). No I/O.

    newest ──n is the next, prev is its hash──▶ NEXT   becomes the newest
           ──n is higher than the next────────▶ GAP    becomes the newest
           ──n is the next, prev is another───▶ FORK   becomes the newest
           ──n was there already──────────────▶ FORK   the newest stays

Who opened a message of this id before does not ask: that is a replay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Verdict(Enum):
    """How an envelope follows those before it."""

    NEXT = "next"
    GAP = "gap"
    FORK = "fork"


@dataclass(frozen=True, slots=True)
class Link:
    """An envelope's place in its chain."""

    n: int  # from 1
    hash: bytes = field(repr=False)  # SHA-256 of the envelope


def judge(newest: Link | None, n: int, prev: bytes | None) -> Verdict:
    """How an envelope with this `n` and `prev` follows the newest one."""
    known, known_hash = (0, None) if newest is None else (newest.n, newest.hash)
    if n > known + 1:
        return Verdict.GAP
    return Verdict.NEXT if n == known + 1 and prev == known_hash else Verdict.FORK


def newest_of(newest: Link | None, link: Link) -> Link:
    """The newest link after this one has come."""
    return link if newest is None or link.n > newest.n else newest
