"""Tasks on gevent's loop: what sockets ask for is done by a few greenlets, not by one for each.

What the loop sees may lead to waiting for the database, which the loop itself must never do. So it
becomes a task, and tasks are done by greenlets: while one of them waits, another goes on.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("flask_e2emsg.greenlets")

READABLE, WRITABLE = 1, 2
IDLE_WORKERS = 16
PASS_SECONDS = 0.0005  # of tasks, after which the loop looks whether something has come
PRIORITY = -1  # with the loop, of tasks and of the sockets they serve: the database's come first


class GreenletReactor:
    """The tasks of one process. To be made on the thread of its gevent hub."""

    def __init__(self) -> None:
        import gevent
        import greenlet
        from gevent.monkey import get_original

        self._greenlet: Any = greenlet.greenlet
        self._current: Any = gevent.getcurrent
        self._hub: Any = gevent.get_hub()
        self._native_thread: Callable[[], int] = get_original("_thread", "get_ident")
        self._home = self._native_thread()
        self._queue: deque[GreenletTask] = deque()
        self._is_wake_coming = False
        self._idle: list[Any] = []
        self._timer: Any = None
        self._pass = -1  # the loop's number for it
        self._pass_ends_at = 0.0  # on the monotonic clock
        self._loop: Any = self._hub.loop

    def task(self, work: Callable[[], None], *, is_limited: bool = False) -> GreenletTask:
        """Something that will be done when it is asked for. Here all take turns as it is."""
        return GreenletTask(self, work)

    def reader(self, descriptor: int) -> Any:
        """What tells when a socket can be read, once it is started."""
        return self._loop.io(descriptor, READABLE, priority=PRIORITY)

    def writer(self, descriptor: int) -> Any:
        """What tells when a socket can be written, once it is started."""
        return self._loop.io(descriptor, WRITABLE, priority=PRIORITY)

    def timer(self, seconds: float) -> Any:
        """What tells that the time is over, once it is started."""
        return self._loop.timer(seconds)

    def enqueue(self, task: GreenletTask) -> None:
        """Have a task done soon."""
        self._queue.append(task)
        if self._is_wake_coming:
            return
        if self._idle and self._current() is self._hub and not self._is_pass_over():
            self._idle.pop().switch()  # It is the loop that asks: there is nobody to wait for.
        else:
            self._have_the_loop_wake()

    def _is_pass_over(self) -> bool:
        now, number = time.monotonic(), self._loop.iteration
        if number != self._pass:
            self._pass, self._pass_ends_at = number, now + PASS_SECONDS
            return False
        return now >= self._pass_ends_at

    def _have_the_loop_look_and_wake(self) -> None:
        # A callback would come before the loop has looked.
        self._is_wake_coming = True
        if self._timer is None:
            self._timer = self._loop.timer(0.0, priority=PRIORITY)
            self._timer.start(self._has_looked)

    def _has_looked(self) -> None:
        self._timer.close()
        self._timer = None
        self._wake()

    def _have_the_loop_wake(self) -> None:
        if self._is_wake_coming:
            return
        self._is_wake_coming = True
        if self._native_thread() == self._home:
            self._loop.run_callback(self._wake)
        else:
            self._loop.run_callback_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_wake_coming = False
        if self._queue:
            worker = self._idle.pop() if self._idle else self._greenlet(self._work, self._hub)
            worker.switch()

    def _work(self) -> None:
        while True:
            while self._queue:
                if self._is_pass_over():
                    self._have_the_loop_look_and_wake()
                    break
                if len(self._queue) > 1:
                    self._have_the_loop_wake()  # Should this task wait, somebody else goes on.
                self._queue.popleft().run()
            if len(self._idle) >= IDLE_WORKERS:
                return
            self._idle.append(self._current())
            self._hub.switch()


class GreenletTask:
    """Something that is done soon after it was asked for: once for all who ask meanwhile.

    It is never done twice at a time.
    """

    __slots__ = ("_is_asked", "_is_running", "_reactor", "work")

    def __init__(self, reactor: GreenletReactor, work: Callable[[], None]) -> None:
        self._reactor = reactor
        self.work = work
        self._is_asked = False
        self._is_running = False

    def set(self) -> None:
        """Ask for it. Never waits."""
        if not self._is_asked:
            self._is_asked = True
            if not self._is_running:
                self._reactor.enqueue(self)

    def cancel(self) -> None:
        """Never do it again, and let go of what it would be done with."""
        self.work = _nothing

    def run(self) -> None:
        """Do it now."""
        self._is_asked, self._is_running = False, True
        try:
            self.work()
        except BaseException as error:
            # Whoever raises SystemExit here must not end the others.
            logger.error("a task failed: %s", type(error).__name__)
        finally:
            self._is_running = False
            if self._is_asked:
                self._reactor.enqueue(self)


def _nothing() -> None:
    pass
