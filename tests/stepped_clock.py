"""A wall clock that can be set for one process, as far as its Python code sees it.

`time.time()`, `time.time_ns()` and `datetime.now()` are stepped, wherever a module has taken them
from; the monotonic clock is not, as on a machine whose clock is set. C code (libev, SQLite) goes on
to see the true time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

_time, _time_ns = time.time, time.time_ns


def install(step_seconds: Callable[[], float]) -> None:
    """From now on the clock of this process is as far off as `step_seconds` says."""

    def stepped_time() -> float:
        return _time() + step_seconds()

    def stepped_time_ns() -> int:
        return _time_ns() + int(step_seconds() * 1_000_000_000)

    stepped_datetime = _stepped_datetime(step_seconds)
    for true, stepped in (
        (_time, stepped_time),
        (_time_ns, stepped_time_ns),
        (datetime, stepped_datetime),
    ):
        _replace_everywhere(true, stepped)


def _stepped_datetime(step_seconds: Callable[[], float]) -> type[datetime]:
    class Likeness(type):
        """Every datetime is one of these: none is ever made that is not a true one."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, datetime)

    class Stepped(datetime, metaclass=Likeness):
        def __new__(cls, *arguments: Any, **named: Any) -> Any:
            return datetime(*arguments, **named)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            moment = datetime.now(UTC) + timedelta(seconds=step_seconds())
            return moment.astimezone(tz) if tz else moment.astimezone().replace(tzinfo=None)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return cls.now()

        @classmethod
        def combine(cls, *arguments: Any, **named: Any) -> Any:
            return datetime.combine(*arguments, **named)

    return Stepped


def _replace_everywhere(true: object, stepped: object) -> None:
    for name, module in list(sys.modules.items()):
        if name == __name__:
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is true:
                setattr(module, attribute, stepped)
