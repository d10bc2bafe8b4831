"""Python's collector of garbage, in a worker that thousands of connections live in.

The collector looks through its oldest generation, which is all that lives, whenever a quarter has
come to it, and nobody else has a turn meanwhile. Here, what has survived that once is set aside.

Guarantees: all of it is looked through again by the first such collection after it has grown by
half, and by the first after `PATIENCE_SECONDS`, so garbage in it goes. Thresholds stay as they are.
What reference counts free, connections among them, is freed at once, set aside or not.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping

OLDEST = 2
MOST_GROWTH = 1.5  # of what is set aside, until all of it is looked through again
PATIENCE_SECONDS = 600.0


def set_aside_what_lives() -> None:
    """Have this process set aside what lives now, and from now on what survives.

    Does nothing where most is set aside already: whoever did that has a way of his own.
    """
    if gc.get_freeze_count() < len(gc.get_objects()):
        gc.callbacks.append(_Survivors())
        gc.collect()


class _Survivors:
    """Called by the collector before and after each collection."""

    def __init__(self) -> None:
        self._is_thorough = False
        self._room = 0.0  # for what is set aside, in objects
        self._patient_until = 0.0  # on the monotonic clock

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        if info["generation"] != OLDEST:
            return
        if phase == "start":
            self._begin()
        else:
            self._end()

    def _begin(self) -> None:
        is_late = time.monotonic() >= self._patient_until
        self._is_thorough = is_late or gc.get_freeze_count() > self._room
        if self._is_thorough:
            gc.unfreeze()

    def _end(self) -> None:
        gc.freeze()
        if self._is_thorough:
            self._room = MOST_GROWTH * gc.get_freeze_count()
            self._patient_until = time.monotonic() + PATIENCE_SECONDS
