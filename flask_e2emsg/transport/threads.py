"""Sockets and tasks without gevent: one thread watches all sockets, a few do what they ask for.

Tasks may wait, for the database or for the host. As many threads do them as there are tasks under
way, up to a few; more come only while none of those gets anywhere.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

logger = logging.getLogger("flask_e2emsg.threads")

FEW_WORKERS = 8
MOST_WORKERS = 128
STALL_SECONDS = 0.01  # in which no task ends although some wait: then one more thread helps
IDLE_SECONDS = 60.0
SHARE = 0.25  # of a processor, for one limited task in the long run
BURST_SECONDS = 0.002  # of a processor, that it may be ahead of its share
MOST_REST_SECONDS = 0.1
RETRY_SECONDS = 0.00001  # long enough that whoever has the lock gets Python's, too
BELL_BYTES = 4096


class ThreadReactor:
    """The sockets and tasks of one process. Safe to use from any thread."""

    def __init__(self) -> None:
        self._loop = _Loop()
        self._queue: SimpleQueue[ThreadTask] = SimpleQueue()
        self._lock = _BriefLock()
        self._workers = 0
        self._idle = 0  # workers for whom nothing is in the queue yet
        self._waiting = 0  # tasks in the queue for whom no worker is free
        self._ended = 0  # tasks, ever
        self._stall: _Timer | None = None

    def task(self, work: Callable[[], None], *, is_limited: bool = False) -> ThreadTask:
        """Something that will be done when it is asked for."""
        return ThreadTask(self, work, is_limited)

    def reader(self, descriptor: int) -> _Watcher:
        """What tells when a socket can be read, once it is started."""
        return _Watcher(self._loop, descriptor, selectors.EVENT_READ)

    def writer(self, descriptor: int) -> _Watcher:
        """What tells when a socket can be written, once it is started."""
        return _Watcher(self._loop, descriptor, selectors.EVENT_WRITE)

    def timer(self, seconds: float) -> _Timer:
        """What tells that the time is over, once it is started."""
        return _Timer(self._loop, seconds)

    def ask(self, task: ThreadTask) -> None:
        """Have a task done soon; if it is being done, once more afterwards."""
        with self._lock:
            if task.is_asked:
                return
            task.is_asked = True
            if not task.is_running:
                self._enqueue(task)

    def _has_rested(self, task: ThreadTask) -> None:
        with self._lock:
            self._enqueue(task)

    def _enqueue(self, task: ThreadTask) -> None:
        rest = task.rests_until - time.monotonic()
        if rest > 0:
            self.timer(rest).start(lambda: self._has_rested(task))
            return
        self._queue.put(task)
        if self._idle:
            self._idle -= 1
            return
        self._waiting += 1
        if self._workers < FEW_WORKERS:
            self._hire()
        elif self._stall is None:
            self._watch_progress()

    def _hire(self) -> None:
        self._workers += 1
        self._waiting -= 1
        try:
            threading.Thread(target=self._work, name="e2emsg-tasks", daemon=True).start()
        except RuntimeError:  # The system has no thread left for us; those that run go on.
            self._workers -= 1
            self._waiting += 1
            self._watch_progress()

    def _watch_progress(self) -> None:
        ended = self._ended
        self._stall = self.timer(STALL_SECONDS)
        self._stall.start(lambda: self._help_unless_moved(ended))

    def _help_unless_moved(self, ended: int) -> None:
        with self._lock:
            self._stall = None
            if self._waiting and self._ended == ended and self._workers < MOST_WORKERS:
                self._hire()
            if self._waiting and self._stall is None:
                self._watch_progress()

    def _work(self) -> None:
        while True:
            try:
                task = self._queue.get(timeout=IDLE_SECONDS)
            except Empty:
                if self._may_leave():
                    return
                continue
            task.is_running = True
            task.is_asked = False  # After that: who asks between them must not queue it once more.
            try:
                task.do()
            except BaseException as error:
                # Whoever raises SystemExit here must not end the others.
                logger.error("a task failed: %s", type(error).__name__)
            with self._lock:
                self._ended += 1
                task.is_running = False
                if self._waiting:
                    self._waiting -= 1
                else:
                    self._idle += 1
                if task.is_asked:
                    self._enqueue(task)
            del task  # What it belongs to may have ended.

    def _may_leave(self) -> bool:
        with self._lock:
            if self._idle <= FEW_WORKERS:
                return False
            self._idle -= 1
            self._workers -= 1
            return True


class ThreadTask:
    """Something that is done soon after it was asked for: once for all who ask meanwhile.

    It is never done twice at a time. One that is limited rests when it has taken too much of a
    processor: the system does not know which of our threads to prefer, and Python's lock goes
    round among all who want it.

    Attributes:
        rests_until: on the monotonic clock; with the flags, the reactor's.
    """

    __slots__ = (
        "_is_limited",
        "_reactor",
        "_square_at",
        "is_asked",
        "is_running",
        "rests_until",
        "work",
    )

    def __init__(self, reactor: ThreadReactor, work: Callable[[], None], is_limited: bool) -> None:
        self._reactor = reactor
        self._is_limited = is_limited
        self.work = work
        self.is_asked = False
        self.is_running = False
        self.rests_until = 0.0
        self._square_at = 0.0  # when it will have had no more than its share

    def set(self) -> None:
        """Ask for it. Never waits."""
        if not self.is_asked:
            self._reactor.ask(self)

    def do(self) -> None:
        """Do it now. For the reactor."""
        if not self._is_limited:
            self.work()
            return
        began, used_before = time.monotonic(), time.thread_time()
        try:
            self.work()
        finally:
            self._charge(began, time.thread_time() - used_before)

    def _charge(self, began: float, seconds: float) -> None:
        now = time.monotonic()
        square_at = max(self._square_at, began) + seconds / SHARE
        self._square_at = min(square_at, now + MOST_REST_SECONDS)
        if square_at > now + BURST_SECONDS / SHARE:
            self.rests_until = self._square_at

    def cancel(self) -> None:
        """Never do it again, and let go of what it would be done with."""
        self.work = _nothing


class _BriefLock:
    """A lock that is held for microseconds; whoever finds it taken tries again a little later.

    One who waited for it would be given it while he waits for Python's lock, too. Whoever has that
    then finds this one taken, gives up his turn, and from there on all of them wait at every step.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        while not self._lock.acquire(blocking=False):
            time.sleep(RETRY_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Loop:
    """The thread that waits for all sockets, and for the next time that is due.

    What it tells must not wait. It may tell of a socket once more after it was told to stop.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        # Those that are no object of the kernel's see only what they knew when they began to wait.
        self._sees_changes = hasattr(self._selector, "fileno")
        self._lock = threading.Lock()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._number = itertools.count()
        self._wakes_at = -math.inf  # on the monotonic clock; it is awake
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ, ())
        threading.Thread(target=self._run, name="e2emsg-sockets", daemon=True).start()

    def tell(self, watcher: _Watcher, *, wanted: bool) -> None:
        """Tell a watcher as long as its socket is ready, or no more."""
        with self._lock:
            if watcher.active == wanted or (wanted and watcher.is_closed):
                return
            watcher.active = wanted
            descriptor = watcher.descriptor
            key = self._selector.get_map().get(descriptor)
            watchers: tuple[_Watcher, ...] = () if key is None else key.data
            watchers = tuple(one for one in (*watchers, watcher) if one.active)
            events = sum(one.event for one in watchers)
            if key is None:
                self._selector.register(descriptor, events, watchers)
            elif watchers:
                self._selector.modify(descriptor, events, watchers)
            else:
                self._selector.unregister(descriptor)
        if not self._sees_changes:
            self._ring()

    def call_at(self, at: float, timer: _Timer) -> None:
        """Tell a timer when this time has come, on the monotonic clock."""
        with self._lock:
            heapq.heappush(self._timers, (at, next(self._number), timer))
            is_early = at < self._wakes_at
        if is_early:
            self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # It has been told so often that it will hear.
            self._bell.send(b"\0")

    def _run(self) -> None:
        while True:
            with self._lock:
                wakes_at = self._wakes_at = self._timers[0][0] if self._timers else math.inf
            seconds = None if wakes_at == math.inf else max(wakes_at - time.monotonic(), 0.0)
            try:
                ready = self._selector.select(seconds)
            except OSError:
                continue  # A socket was closed since; by now it is forgotten.
            self._wakes_at = -math.inf
            for key, events in ready:
                if key.fileobj is self._ear:
                    self._ear.recv(BELL_BYTES)
                for watcher in key.data:
                    if watcher.event & events:
                        _call(watcher)
            for timer in self._due():
                _call(timer)

    def _due(self) -> list[_Timer]:
        now, timers = time.monotonic(), self._timers
        with self._lock:
            due = []
            while timers and timers[0][0] <= now:
                due.append(heapq.heappop(timers)[2])
            return due


class _Watcher:
    """A socket and what it is waited for. To be closed before the socket.

    Attributes:
        active: whether the loop waits; the loop's.
    """

    __slots__ = ("_loop", "active", "callback", "descriptor", "event", "is_closed")

    def __init__(self, loop: _Loop, descriptor: int, event: int) -> None:
        self._loop = loop
        self.descriptor = descriptor
        self.event = event
        self.callback: Callable[[], None] | None = None
        self.active = False
        self.is_closed = False

    def start(self, callback: Callable[[], None]) -> None:
        """Call back again and again, as long as the socket is ready."""
        self.callback = callback
        self._loop.tell(self, wanted=True)

    def stop(self) -> None:
        """Call back no more, until it is started again."""
        self._loop.tell(self, wanted=False)

    def close(self) -> None:
        """Stop for ever."""
        self.is_closed = True
        self.stop()
        self.callback = None


class _Timer:
    """A time to come."""

    __slots__ = ("_loop", "_seconds", "callback")

    def __init__(self, loop: _Loop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self.callback: Callable[[], None] | None = None

    def start(self, callback: Callable[[], None]) -> None:
        """Call back once, so many seconds from now."""
        self.callback = callback
        self._loop.call_at(time.monotonic() + self._seconds, self)

    def close(self) -> None:
        """Do not call back."""
        self.callback = None


def _call(who: _Watcher | _Timer) -> None:
    callback = who.callback
    if callback is None:
        return
    try:
        callback()
    except BaseException as error:
        # One connection's fault must not stop the others.
        logger.error("a callback failed: %s", type(error).__name__)


def _nothing() -> None:
    pass
