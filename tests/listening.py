"""Hears what a channel carries."""

from __future__ import annotations

import time

from flask_e2emsg.delivery.bus import Subscription

SECONDS = 10.0


def hear(subscription: Subscription, count: int) -> list[str]:
    """So many texts, or those that come in time."""
    texts: list[str] = []
    deadline = time.monotonic() + SECONDS
    while len(texts) < count and time.monotonic() < deadline:
        texts += subscription.receive(0.2)
    return texts
