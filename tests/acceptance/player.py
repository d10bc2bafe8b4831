"""One of a user's connections in a random game against the server, and what it still waits for.

It repeats what was not answered when its connection is lost, as a careful client does, and tells
the model of every answer. Not safe for several threads.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence

from tests.acceptance.client import ConnectionLost
from tests.acceptance.model import Letter, Model
from tests.acceptance.people import Person
from tests.acceptance.wire import Frame, new_content, new_id

Packet = tuple[Letter, ...]  # one letter is a `send`, several are a `send_many`

RESUME_SECONDS = 40.0  # a killed worker's successor has to import and start


class Player:
    """A connection that comes back."""

    def __init__(self, person: Person, model: Model, dice: random.Random) -> None:
        self.person = person
        self.may_have_lost_marks = False
        self.may_have_lost_its_server = False
        self.log: dict[int, Frame] = {}  # what arrived over any of its connections, by position
        self._model = model
        self._dice = dice
        self._client = person.reconnect()
        self._waiting: dict[str, Packet] = {}
        self._unanswered: Counter[str] = Counter()  # how many answers are due for each
        self._conflicting: Counter[str] = Counter()
        self._reads: list[str] = []  # asked for and not yet seen to be settled

    # What it does.

    def send(self, letters: Packet, ref: str) -> None:
        """Ask for letters to be stored, without waiting."""
        self._waiting[ref] = letters
        self._unanswered[ref] += 1
        with self._surviving():
            self._transmit(ref)

    def contradict(self, letter: Letter) -> None:
        """Use a stored letter's id for something else."""
        self._conflicting[letter.id] += 1
        frame = {"type": "send", "id": letter.id, "to": letter.recipient}
        with self._surviving():
            self._client.send_frame({**frame, "encrypted_content": new_content()})

    def ack(self, *, all_of_it: bool) -> None:
        """Acknowledge what has arrived without a hole, or only some of it."""
        low, high = self._client.acknowledged, self._client.position
        if low < high:
            seq = high if all_of_it else self._dice.randint(low + 1, high)
            acked = self._model.acked
            acked[self.person.id] = max(acked[self.person.id], seq)
            with self._surviving():
                self._client.ack(seq)

    def read(self, count: int) -> None:
        """Mark some of the messages that have arrived as read."""
        received = [
            frame["id"] for frame in self.log.values() if frame.get("recipient") == self.person.id
        ]
        if ids := self._dice.sample(received, min(count, len(received))):
            self._reads += ids
            self._model.read.update(ids)
            with self._surviving():
                self._client.send_frame({"type": "read", "ids": ids})

    def drop(self) -> None:
        """Lose the connection without a close frame, and come back."""
        self._come_back()

    def leave(self) -> None:
        """Say goodbye, if somebody may be there to hear it, and come back."""
        if self.may_have_lost_its_server:
            self._come_back()
            return
        cursor = self._client.cursor
        with self._surviving():
            self._client.close()
            self._resume(cursor)

    def take(self) -> None:
        """Look at everything that has arrived."""
        with self._surviving():
            for frame in self._client.arrived():
                self._look_at(frame)

    def repeat_reads(self) -> None:
        """Mark again what may have been lost with a connection."""
        if self._reads:
            with self._surviving():
                self._client.send_frame({"type": "read", "ids": self._reads[-500:]})

    def settled(self) -> None:
        """All that was done so far is in the database."""
        self._reads.clear()
        self.may_have_lost_marks = False

    # Where it stands.

    @property
    def is_answered(self) -> bool:
        """Whether every request has its answer."""
        return not self._waiting and not self._conflicting

    def has_all(self, head: int) -> bool:
        """Whether it got everything up to `head`, or as much as it may have without an ack."""
        client = self._client
        return client.position == head or client.in_flight == client.hello["max_in_flight"]

    def story(self) -> str:
        """For the text of a failure."""
        client = self._client
        stands = f"at {client.position}, {client.in_flight} in flight"
        waits = f"waiting for {dict(self._unanswered)} and {dict(self._conflicting)}"
        return f"{self.person.id} {stands}, {waits}; {client.story()}"

    # How it works.

    def _look_at(self, frame: Frame) -> None:
        kind = frame["type"]
        if kind in ("message", "receipt"):
            known = self.log.setdefault(frame["seq"], frame)
            assert known == frame, f"two entries at one position: {known} and {frame}"
        elif kind == "accepted":
            self._note_accepted(frame)
        elif kind == "error":
            assert frame["code"] == "id_conflict", frame
            assert self._conflicting[frame["ref"]], frame
            self._conflicting -= Counter([frame["ref"]])

    def _note_accepted(self, frame: Frame) -> None:
        ref = frame["id"] if "id" in frame else frame["ref"]
        letters = self._waiting[ref]
        assert frame.get("ids", [frame.get("id")]) == [one.id for one in letters], frame
        for letter in letters:
            self._model.accepted(
                letter, frame.get("seq"), frame["created_at"], is_new=not frame["duplicate"]
            )
        self._unanswered -= Counter([ref])
        if not self._unanswered[ref]:
            del self._waiting[ref]

    def _transmit(self, ref: str) -> None:
        letters = self._waiting[ref]
        if letters[0].keeps_copy:
            [letter] = letters
            extra = {"conversation_id": letter.conversation_id}
            self._client.send(letter.recipient, letter.content, message_id=letter.id, **extra)
            return
        messages = [
            {"id": one.id, "to": one.recipient, "encrypted_content": one.content} for one in letters
        ]
        extra = {"conversation_id": letters[0].conversation_id}
        self._client.send_frame({"type": "send_many", "ref": ref, "messages": messages, **extra})

    def _surviving(self) -> _Surviving:
        return _Surviving(self)

    def _come_back(self) -> None:
        cursor = self._client.cursor
        self._client.abandon()
        self._resume(cursor)

    def _resume(self, cursor: str) -> None:
        """Open a new connection behind what this one stored, and ask again."""
        self.may_have_lost_marks = True
        self.may_have_lost_its_server = False
        self._conflicting.clear()
        deadline = time.monotonic() + RESUME_SECONDS
        while True:
            assert time.monotonic() < deadline, f"lost again and again: {self.story()}"
            before = self._client.hello
            self._client = self.person.reconnect(cursor)
            hello = self._client.hello
            assert (hello["epoch"], hello["reset"]) == (before["epoch"], False), hello
            assert cursor == f"{hello['epoch']}:{hello['after']}", hello
            self._unanswered = Counter(dict.fromkeys(self._waiting, 1))
            try:
                for ref in self._waiting:
                    self._transmit(ref)
                return
            except ConnectionLost:
                self._client.abandon()


class _Surviving:
    """Comes back when the connection is lost meanwhile."""

    def __init__(self, player: Player) -> None:
        self._player = player

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        is_lost = kind is not None and issubclass(kind, ConnectionLost)
        if is_lost:
            self._player._come_back()
        return is_lost


def written_by(
    sender: Person, recipients: Sequence[Person], dice: random.Random, *, together: bool = False
) -> Packet:
    """A letter to one of them, or, as one packet, to some of them."""
    to = dice.sample(recipients, dice.randint(1, len(recipients)) if together else 1)
    conversation_id = dice.choice([None, None, "a conversation"])
    return tuple(
        Letter(new_id(), sender.id, one.id, new_content(), conversation_id, not together)
        for one in to
    )
