"""One thread that makes one transaction of everything that waits.

While a batch commits, the next one gathers: no send waits for a timer. Marks that are alone wait
a twentieth of a second for each other, or until a send comes that they can go with, or until there
are enough of them and the last batch was long enough ago: many at once would hold up the sends of
all whom they concern, and very small batches would cost more than they spare. Guarantees:
an operation is answered after its COMMIT and never before; operations of one kind keep their order;
what is wrong with one operation fails that one only. Callbacks run on the committer's thread and
must not wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..errors import Internal, Refusal, SchemaMissing
from ..protocol.entries import Entry
from ..redaction import stack_of
from ..store.mailbox import Ack, Append, Appended, Committed, Read
from .thread import LazyThread

logger = logging.getLogger("flask_e2emsg.committer")

MAX_BATCH_MESSAGES = 512
MAX_BATCH_BYTES = 4 * 1024 * 1024
GATHER_SECONDS = 0.05  # a receipt may be so late
ENOUGH_MARKS = 8  # need not wait so long,
RESTS = 4  # but so many times as long as the last batch took

Operation = Append | Ack | Read
Outcome = Appended | int | Refusal
Done = Callable[[Outcome], None]
Publish = Callable[[Mapping[str, list[Entry]]], None]
_Waiting = tuple[Operation, Done]


class Committer:
    """The way into the mailboxes for one process.

    `together` opens a transaction that the three kinds share, where the database wants that.
    `publish` learns of the new entries, by user, after each commit.
    """

    def __init__(
        self,
        name: str,
        append: Callable[[Sequence[Append]], Committed],
        ack: Callable[[Sequence[Ack]], Committed],
        read: Callable[[Sequence[Read]], Committed],
        together: Callable[[], AbstractContextManager[object]],
        publish: Publish,
    ) -> None:
        self._commit: dict[type[Any], Callable[[Any], Committed]] = {
            Append: append,
            Ack: ack,
            Read: read,
        }
        self._together = together
        self._publish = publish
        self._queue: deque[_Waiting] = deque()
        self._arrived = threading.Event()
        self._is_urgent = threading.Event()
        self._enough = MAX_BATCH_MESSAGES
        self._rest = 0.0  # seconds, for marks
        self._thread = LazyThread(name, self._run)

    def submit(self, operation: Operation, done: Done) -> None:
        """Have an operation committed with the next batch; `done` gets its outcome."""
        self._queue.append((operation, done))
        self._thread.ensure_running()
        is_urgent = isinstance(operation, Append) or len(self._queue) >= self._enough
        if is_urgent and not self._is_urgent.is_set():
            self._is_urgent.set()
        if not self._arrived.is_set():
            self._arrived.set()

    def _run(self) -> None:
        while True:
            self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                self._gather()
                began = time.monotonic()
                self._work(self._next_batch())
                self._rest = min(RESTS * (time.monotonic() - began), GATHER_SECONDS)

    def _gather(self) -> None:
        if len(self._queue) >= MAX_BATCH_MESSAGES or self._is_urgent.wait(self._rest):
            return
        self._enough = ENOUGH_MARKS
        if len(self._queue) < ENOUGH_MARKS:
            self._is_urgent.wait(GATHER_SECONDS - self._rest)
        self._enough = MAX_BATCH_MESSAGES

    def _next_batch(self) -> list[_Waiting]:
        self._is_urgent.clear()
        batch: list[_Waiting] = []
        queue, messages, size = self._queue, 0, 0
        while queue and messages < MAX_BATCH_MESSAGES and size < MAX_BATCH_BYTES:
            waiting = queue.popleft()
            batch.append(waiting)
            operation = waiting[0]
            if isinstance(operation, Append):
                messages += len(operation.messages)
                for message in operation.messages:
                    size += len(message.content)
            else:
                messages += 1
        if queue:
            self._is_urgent.set()
        return batch

    def _work(self, batch: list[_Waiting]) -> None:
        """Commit a batch and answer; when that fails for its contents, commit its halves."""
        try:
            committed = self._commit_all(batch)
        except Refusal as refusal:
            self._answer(batch, [refusal] * len(batch))
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, SchemaMissing):
                middle = len(batch) // 2
                self._work(batch[:middle])
                self._work(batch[middle:])
                return
            _log_failure(error)
            self._answer(batch, [Internal()] * len(batch))
        else:
            for some, result in committed:
                self._answer(some, result.outcomes)
                self._published(result)

    def _commit_all(self, batch: list[_Waiting]) -> list[tuple[list[_Waiting], Committed]]:
        kinds: dict[type[Any], list[_Waiting]] = {kind: [] for kind in self._commit}
        for waiting in batch:
            kinds[type(waiting[0])].append(waiting)
        parts = [(self._commit[kind], some) for kind, some in kinds.items() if some]
        with self._together() if len(parts) > 1 else nullcontext():
            return [(some, commit([operation for operation, _ in some])) for commit, some in parts]

    def _answer(self, batch: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
        for (_, done), outcome in zip(batch, outcomes, strict=True):
            try:
                done(outcome)
            except Exception as error:
                logger.error("answering failed: %s", stack_of(error))

    def _published(self, committed: Committed) -> None:
        try:
            self._publish(committed.entries)
        except Exception as error:
            logger.error("waking failed, the sweep will do it: %s", stack_of(error))


def _log_failure(error: Exception) -> None:
    if isinstance(error, SchemaMissing):
        logger.error("%s", error)
    else:
        # The driver's text may quote what was to be stored, so say only what kind it was.
        logger.error("a commit failed: %s", type(error).__name__)
