"""A model of the server that fits on a page: letters, and who has acknowledged and read them.

In which order letters of several people reach a mailbox is the server's choice, so that is taken
from the mailbox itself. All else follows from what the clients did, and must be found again in the
logs, the receipts, the histories and the unread counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from tests.acceptance.people import Person
from tests.acceptance.rest import segment
from tests.acceptance.wire import Frame

Mailboxes = Mapping[str, list[Frame]]  # the whole log of each user, from the first position
Receipt = tuple[str, str, str]  # kind, recipient, message id


@dataclass(frozen=True)
class Letter:
    """What a client wants stored."""

    id: str
    sender: str
    recipient: str
    content: str
    conversation_id: str | None
    keeps_copy: bool  # whether the sender's mailbox gets a `sent` entry

    def entries_for(self, user_id: str) -> int:
        """How often it stands in this user's log."""
        return (self.recipient == user_id) + (self.sender == user_id and self.keeps_copy)


class Model:
    """What the server has promised, and what it was told."""

    def __init__(self) -> None:
        self.letters: dict[str, Letter] = {}  # those that were accepted
        self.acked: defaultdict[str, int] = defaultdict(int)  # by user, over all connections
        self.read: set[str] = set()  # ids that their recipients have marked
        self._answers: dict[str, tuple[int | None, str]] = {}
        self._stored: set[str] = set()  # ids of which somebody was told that they are new

    def accepted(self, letter: Letter, seq: int | None, created_at: str, *, is_new: bool) -> None:
        """A client heard that its letter is on disk: every answer for one id says the same."""
        self.letters[letter.id] = letter
        known = self._answers.setdefault(letter.id, (seq, created_at))
        assert known == (seq, created_at), f"{letter.id}: {known}, then {(seq, created_at)}"
        assert not (is_new and letter.id in self._stored), f"{letter.id} is new twice"
        self._stored.update([letter.id] if is_new else [])

    def receipts_of(self, sender: str, mailboxes: Mailboxes) -> Counter[Receipt]:
        """The receipts that must stand in a sender's log, each once."""
        found: Counter[Receipt] = Counter()
        places = {user: positions(log, user) for user, log in mailboxes.items()}
        for letter in self.letters.values():
            if letter.sender == sender != letter.recipient:
                place = places[letter.recipient].get(letter.id)
                if self.is_delivered(letter, place):
                    found["delivered", letter.recipient, letter.id] = 1
                if letter.id in self.read:
                    found["read", letter.recipient, letter.id] = 1
        return found

    def is_delivered(self, letter: Letter, place: int | None) -> bool:
        """Whether its recipient has acknowledged it, `place` being where it stands there."""
        acked = place is not None and place <= self.acked[letter.recipient]
        return acked or letter.id in self.read

    def check_log(self, user_id: str, mailboxes: Mailboxes) -> None:
        """Positions without holes, every letter as often as it must be, receipts exactly once."""
        log = mailboxes[user_id]
        assert [entry["seq"] for entry in log] == list(range(1, len(log) + 1)), f"holes: {log}"
        expected = Counter({one.id: one.entries_for(user_id) for one in self.letters.values()})
        found = Counter(entry["id"] for entry in log if entry["type"] == "message")
        assert found == +expected, f"{user_id}: {_difference(found, +expected)}"
        for entry in log:
            if entry["type"] == "message":
                self._check_entry(user_id, entry)
        receipts, due = receipts_in(log), self.receipts_of(user_id, mailboxes)
        assert receipts == due, f"receipts of {user_id}: {_difference(receipts, due)}"
        _check_delivered_before_read(log)

    def check_rest(self, person: Person, mailboxes: Mailboxes) -> None:
        """The history with everybody, and the unread counts."""
        log = mailboxes[person.id]
        for other in mailboxes:
            mine = [one for one in self._visible_to(person.id) if _contact(one, person.id) == other]
            self._check_history(person, other, {one.id for one in mine}, log)
        groups: defaultdict[tuple[str | None, str | None], list[Letter]] = defaultdict(list)
        for letter in self._visible_to(person.id):
            contact = None if letter.conversation_id else _contact(letter, person.id)
            groups[contact, letter.conversation_id].append(letter)
        place = positions(log, person.id)
        expected = {
            max(group, key=lambda one: place[one.id]).id: self._unread(group, person.id)
            for group in groups.values()
        }
        answer = person.rest.get("/api/conversations", limit=100).json
        assert {one["last"]["id"]: one["unread"] for one in answer} == expected, person.id

    def _check_entry(self, user_id: str, entry: Frame) -> None:
        letter = self.letters[entry["id"]]
        said = (entry["sender"], entry["recipient"], entry["encrypted_content"])
        assert said == (letter.sender, letter.recipient, letter.content), entry
        seq, created_at = self._answers[letter.id]
        assert entry["created_at"] == created_at, entry
        if letter.recipient != user_id:
            assert entry["seq"] == seq, f"accepted at {seq}: {entry}"

    def shows_marks_on_notes(self, person: Person, log: list[Frame]) -> bool:
        """Whether all marks on letters to oneself are stored; they make no receipt."""
        place = positions(log, person.id)
        shown = {one["id"]: one for one in history(person, person.id)}
        return all(
            shown[letter.id]["delivered_at"] or not self.is_delivered(letter, place[letter.id])
            for letter in self.letters.values()
            if letter.sender == letter.recipient == person.id
        ) and all(one["read_at"] or one["id"] not in self.read for one in shown.values())

    def _check_history(self, person: Person, other: str, ids: set[str], log: list[Frame]) -> None:
        found = history(person, other)
        place = positions(log, person.id)
        newest_first = sorted(ids, key=lambda one: -place[one])
        assert [one["id"] for one in found] == newest_first, f"history of {person.id} with {other}"
        for one in found:
            letter = self.letters[one["id"]]
            assert one["position"] == place[letter.id], one
            assert (one["read_at"] is not None) == (letter.id in self.read), one
            if letter.recipient == person.id:
                delivered = self.is_delivered(letter, one["position"])
                assert (one["delivered_at"] is not None) == delivered, one

    def _visible_to(self, user_id: str) -> list[Letter]:
        return [one for one in self.letters.values() if one.entries_for(user_id)]

    def _unread(self, group: list[Letter], user_id: str) -> int:
        to_me = [one for one in group if one.recipient == user_id != one.sender]
        return sum(1 for one in to_me if one.id not in self.read)


def positions(log: list[Frame], user_id: str) -> dict[str, int]:
    """Where each message stands: to oneself, where it was received rather than sent."""
    # The received entry is written behind the sent one.
    return {entry["id"]: entry["seq"] for entry in log if entry["type"] == "message"}


def history(person: Person, other: str) -> list[Frame]:
    """All that the two have written to each other, newest first."""
    found: list[Frame] = []
    before: int | None = None
    while True:
        page = person.rest.get(f"/api/messages/{segment(other)}", before=before, limit=50).json
        found += page["messages"]
        if not page["has_more"]:
            return found
        before = page["next"]


def receipts_in(log: list[Frame]) -> Counter[Receipt]:
    """Every receipt of a log, one for each message that it names."""
    return Counter(
        (entry["kind"], entry["by"], message_id)
        for entry in log
        if entry["type"] == "receipt"
        for message_id in entry["ids"]
    )


def _check_delivered_before_read(log: list[Frame]) -> None:
    delivered: set[str] = set()
    for entry in log:
        if entry["type"] == "receipt":
            if entry["kind"] == "delivered":
                delivered.update(entry["ids"])
            else:
                assert delivered.issuperset(entry["ids"]), f"read before delivered: {entry}"


def _contact(letter: Letter, user_id: str) -> str:
    return letter.recipient if letter.sender == user_id else letter.sender


def _difference(found: Counter[str] | Counter[Receipt], expected: object) -> str:
    assert isinstance(expected, Counter)
    return f"missing {expected - found}, not asked for {found - expected}"
