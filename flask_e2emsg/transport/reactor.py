"""What a connection asks of the loop that it shares: under gevent greenlets.py, else threads.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Task(Protocol):
    """Something that is done soon after it was asked for, never twice at a time."""

    def set(self) -> None:
        """Ask for it. Never waits."""

    def cancel(self) -> None:
        """Never do it again, and let go of what it would be done with."""


class Timer(Protocol):
    """What calls back once, when a time has come."""

    def start(self, callback: Callable[[], None], /) -> None:
        """Call back from now on."""

    def close(self) -> None:
        """Call back no more."""


class Watcher(Timer, Protocol):
    """What calls back as long as a socket is ready."""

    @property
    def active(self) -> bool:
        """Whether it was started, and not stopped."""

    def stop(self) -> None:
        """Call back no more until it is started again."""


class Reactor(Protocol):
    """The loop, and those who do the tasks."""

    def task(self, work: Callable[[], None], *, is_limited: bool = False) -> Task:
        """Something that will be done when it is asked for.

        `is_limited`: not for longer than others can bear.
        """

    def reader(self, descriptor: int) -> Watcher:
        """What tells when a socket can be read."""

    def writer(self, descriptor: int) -> Watcher:
        """What tells when a socket can be written."""

    def timer(self, seconds: float) -> Timer:
        """What tells that the time is over."""
