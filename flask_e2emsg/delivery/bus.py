"""What the processes of one deployment tell each other: hints, of which any may be lost.

    committer ──grown──▶ outbox ──publisher──▶ channel ──subscriber──▶ listener (hub, sweep, …)

Publishing never waits: what is told goes into an outbox, mailboxes by their newest position only,
and a thread of its own publishes what is there, all at once. While the channel fails nothing is
kept, since everything that matters is found in the database by the sweep. A hint says where to
look; what is delivered is read from there.

Every process says `here` now and then. Who hears of nobody else keeps its hints to itself, so one
worker alone pays nothing. Whoever does not hear its own `here` subscribes anew, and every
subscription, and every process that turns up, is a reason to sweep.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol
from uuid import uuid4

import msgspec

from .seal import Seal
from .thread import LazyThread, quick_lock

logger = logging.getLogger("flask_e2emsg.bus")

HERE_SECONDS = 5.0
SILENCE_SECONDS = 15.0  # after which a process that said `here` counts as gone
SHYNESS_SECONDS = 1.0  # of a new subscription, in which others may yet answer
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 3.0  # seconds, after the channel has failed
MAX_HEADS, HEADS_AT_ONCE = 50_000, 256
MAX_NOTES, MAX_NOTE_BYTES = 1000, 4 * 1024 * 1024


class Subscription(Protocol):
    """An open ear on a channel."""

    def receive(self, seconds: float) -> Sequence[str]:
        """What has come, as soon as something has; nothing after so many seconds.

        Raises:
            Resubscribed: what came meanwhile may be lost.
        """


class Channel(Protocol):
    """Carries texts to everybody who has subscribed. Whatever it raises, is tried again."""

    def publish(self, texts: Sequence[str]) -> None:
        """Give texts to all subscribers, the publisher's own included."""

    def subscribe(self) -> AbstractContextManager[Subscription]:
        """Hear what is published from now on."""


class Listener(Protocol):
    """Who acts on hints. None of these may wait."""

    def grown(self, user_id: str, seq: int) -> None:
        """A mailbox is said to reach a position."""

    def told(self, user_id: str, frame: bytes) -> None:
        """A frame for a user's connections, which is stored nowhere."""

    def doubted(self, user_id: str | None) -> None:
        """The host may have turned away this user, or somebody."""

    def missed(self) -> None:
        """Something may have been lost, or stands in the database: look there."""


class Resubscribed(Exception):
    """The subscription was interrupted."""


class Unheard(Exception):
    """What this process publishes does not come back to it."""


class Grown(msgspec.Struct, tag="grown", array_like=True):
    """Mailboxes have new entries."""

    heads: dict[str, int]  # the newest position, by user


class Told(msgspec.Struct, tag="told", array_like=True):
    """A frame that is stored nowhere."""

    user_id: str
    frame: str

    def __repr__(self) -> str:
        return f"Told({len(self.frame)} characters)"


class Doubted(msgspec.Struct, tag="doubted", array_like=True, frozen=True):
    """The host may have turned somebody away."""

    user_id: str | None


class Ended(msgspec.Struct, tag="ended", array_like=True, frozen=True):
    """The database says whose connections shall end."""


class Here(msgspec.Struct, tag="here", array_like=True, frozen=True):
    """The sender lives."""


Hint = Grown | Told | Doubted | Ended | Here


class _Text(msgspec.Struct, array_like=True):
    sender: str
    number: int  # so that no two texts are equal: a channel may leave out what it was given twice
    hint: Hint


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Text)


class Bus:
    """The hints of one process, to others and from them. Without a channel it does nothing."""

    def __init__(self, channel: Channel | None, seal: Seal, listener: Listener) -> None:
        self._channel = channel
        self._seal = seal
        self._listener = listener
        self._id = uuid4().hex
        self._number = 0
        self._heads: dict[str, int] = {}
        self._notes: deque[Hint] = deque()
        self._note_bytes = 0
        self._lock = quick_lock()
        self._has_news = threading.Event()
        self._is_idle = threading.Event()
        self._is_idle.set()
        self._peers: dict[str, float] = {}  # when they were last heard, on the monotonic clock
        self._subscribed_at: float | None = None  # on the same clock
        self._heard_myself_at = 0.0
        self._is_stopped = False
        self._publisher = LazyThread("e2emsg-publisher", self._publish_for_ever)
        self._subscriber = LazyThread("e2emsg-subscriber", self._listen_until_stopped)

    @property
    def is_on(self) -> bool:
        """Whether there is a channel at all."""
        return self._channel is not None

    @property
    def hears(self) -> bool:
        """Whether what others tell arrives here, as far as can be known."""
        return self._subscribed_at is not None

    @property
    def is_alone(self) -> bool:
        """Whether nobody else is there to be told anything, as far as can be known."""
        if self._channel is None:
            return True
        since, now = self._subscribed_at, time.monotonic()
        if since is None or now < since + SHYNESS_SECONDS:
            return False
        return not any(now < heard + SILENCE_SECONDS for heard in list(self._peers.values()))

    def ensure_listening(self) -> None:
        """Subscribe, if that is not so yet."""
        if self._channel is not None:
            self._subscriber.ensure_running()

    def grown(self, heads: Mapping[str, int]) -> None:
        """Mailboxes have new entries up to these positions, by user. Never waits."""
        if self.is_alone:
            return
        with self._lock:
            if len(self._heads) + len(heads) > MAX_HEADS:
                self._heads.clear()  # The sweep of the others finds them.
            for user_id, seq in heads.items():
                if seq > self._heads.get(user_id, 0):
                    self._heads[user_id] = seq
        self._wake_publisher()

    def told(self, user_id: str, frame: bytes) -> None:
        """A frame for the user's connections elsewhere, which may be lost. Never waits."""
        if not self.is_alone:
            self._note(Told(user_id, frame.decode()), len(frame))

    def doubted(self, user_id: str | None) -> None:
        """The host may have turned away this user, or somebody. Never waits."""
        if not self.is_alone:
            self._note(Doubted(user_id))

    def ended(self) -> None:
        """The database says now whose connections shall end. Never waits."""
        if not self.is_alone:
            self._note(Ended())

    def flush(self, seconds: float) -> None:
        """Wait until what was told so far is published or given up, but not longer than this."""
        self._is_idle.wait(seconds)

    def stop(self) -> None:
        """Listen no more. What is told is still published."""
        self._is_stopped = True

    def _note(self, hint: Hint, size: int = 0) -> None:
        with self._lock:
            is_news = not isinstance(hint, Doubted | Ended | Here) or hint not in self._notes
            if is_news and len(self._notes) < MAX_NOTES:
                if self._note_bytes + size > MAX_NOTE_BYTES:
                    return
                self._note_bytes += size
                self._notes.append(hint)
        self._wake_publisher()

    def _wake_publisher(self) -> None:
        self._publisher.ensure_running()
        self._has_news.set()
        self._is_idle.clear()

    def _publish_for_ever(self) -> None:
        pause = 0.0
        while True:
            self._has_news.wait()
            self._has_news.clear()
            hints = self._take()
            try:
                self._publish(hints)
                pause = 0.0 if hints else pause
            except BaseException as error:
                # Not even a timeout of gevent's may end this thread: nobody would hear of us.
                pause = self._failed("publishing", error, pause)
                time.sleep(random.uniform(0.5, 1.0) * pause)
                self._take()  # What was told meanwhile is old.
            self._is_idle.set()
            if self._has_news.is_set():
                self._is_idle.clear()

    def _take(self) -> list[Hint]:
        with self._lock:
            heads, self._heads = self._heads, {}
            notes, self._notes = self._notes, deque()
            self._note_bytes = 0
        hints: list[Hint] = list(notes)
        users = list(heads)
        for start in range(0, len(users), HEADS_AT_ONCE):
            some = users[start : start + HEADS_AT_ONCE]
            hints.append(Grown({user_id: heads[user_id] for user_id in some}))
        return hints

    def _publish(self, hints: Sequence[Hint]) -> None:
        if hints and self._channel is not None:
            self._channel.publish([self._text_of(hint) for hint in hints])

    def _text_of(self, hint: Hint) -> str:
        self._number += 1
        return self._seal.put_on(_encoder.encode(_Text(self._id, self._number, hint)).decode())

    def _listen_until_stopped(self) -> None:
        pause = 0.0
        while not self._is_stopped:
            began = time.monotonic()
            try:
                self._listen()
            except BaseException as error:
                # See above: nobody would hear anything.
                if time.monotonic() > began + LONGEST_PAUSE:
                    pause = 0.0
                pause = self._failed("listening", error, pause)
                time.sleep(random.uniform(0.5, 1.0) * pause)
            finally:
                self._subscribed_at = None

    def _listen(self) -> None:
        assert self._channel is not None
        with self._channel.subscribe() as subscription:
            logger.info("listening to other workers")
            self._subscribed_at = self._heard_myself_at = said_at = time.monotonic()
            self._note(Here())
            self._listener.missed()
            while not self._is_stopped:
                for text in subscription.receive(HERE_SECONDS / 5):
                    self._hear(text)
                now = time.monotonic()
                if now >= said_at + HERE_SECONDS:
                    said_at = now
                    self._note(Here())
                if now >= self._heard_myself_at + SILENCE_SECONDS:
                    raise Unheard

    def _hear(self, text: str) -> None:
        """Act on a text; what is not of this deployment, or of this version, is nothing."""
        unsealed = self._seal.take_off(text)
        if unsealed is None:
            return
        try:
            heard = _decoder.decode(unsealed)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return
        if heard.sender == self._id:
            self._heard_myself_at = time.monotonic()
        elif isinstance(heard.hint, Here):
            self._meet(heard.sender)
        else:
            self._act_on(heard.hint)

    def _meet(self, sender: str) -> None:
        """Somebody listens; what it said before it knew of us, it said to nobody."""
        now = time.monotonic()
        for peer in [peer for peer, heard in self._peers.items() if now > heard + SILENCE_SECONDS]:
            del self._peers[peer]
        if sender not in self._peers:
            self._note(Here())
            self._listener.missed()
        self._peers[sender] = now

    def _act_on(self, hint: Hint) -> None:
        match hint:
            case Grown(heads):
                for user_id, seq in heads.items():
                    self._listener.grown(user_id, seq)
            case Told(user_id, frame):
                self._listener.told(user_id, frame.encode())
            case Doubted(user_id):
                self._listener.doubted(user_id)
            case Ended():
                self._listener.missed()

    def _failed(self, what: str, error: BaseException, pause: float) -> float:
        """Say so, the first time in a row; how long to pause before the next attempt."""
        if not pause:
            # Texts of errors may quote an address with a password, so name only the kind.
            logger.warning(
                "%s failed (%s): workers find what others send by the sweep until it works again",
                what,
                type(error).__name__,
            )
        return min(max(2 * pause, SHORTEST_PAUSE), LONGEST_PAUSE)
