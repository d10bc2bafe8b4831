"""What a fault changes inside the processes of a server: a few numbers in memory that they share.

A request would reach one worker only, and none that starts later.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Self

VARIABLE = "CRUCIBLE_LEVERS"  # of the environment: where the file is
_STEP_SECONDS, _MOST_PAGES = struct.Struct("=d"), struct.Struct("=q")
_PAGES_AT = _STEP_SECONDS.size


class Levers:
    """Set by the nemesis, read by the processes of one master, each with the file mapped.

    Attributes:
        step_seconds: how far their wall clocks are ahead of the true time.
        most_pages: how large their SQLite database may be; 0 is no limit.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.path = path

    @classmethod
    def new(cls, path: Path) -> Self:
        """Levers that nobody has touched yet."""
        path.write_bytes(bytes(_PAGES_AT + _MOST_PAGES.size))
        return cls(path)

    @property
    def step_seconds(self) -> float:
        return float(_STEP_SECONDS.unpack_from(self._memory)[0])

    @step_seconds.setter
    def step_seconds(self, seconds: float) -> None:
        _STEP_SECONDS.pack_into(self._memory, 0, seconds)

    @property
    def most_pages(self) -> int:
        return int(_MOST_PAGES.unpack_from(self._memory, _PAGES_AT)[0])

    @most_pages.setter
    def most_pages(self, count: int) -> None:
        _MOST_PAGES.pack_into(self._memory, _PAGES_AT, count)
