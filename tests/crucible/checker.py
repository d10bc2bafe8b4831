"""The invariants, each a pure function of the evidence that yields what violates it.

I1  every accepted message is received by its recipient, once after dropping duplicates by id,
    and while both are connected not late
I2  with equal content
I3  the positions of a mailbox are contiguous from the first, and ascend on a connection
I4  one sender's messages to one recipient arrive in the order of sending
I5  nothing arrives that was not sent, and what `send_many` has stored not at its sender's
I6  nobody receives, by socket or REST, what is not theirs, or with a token good for nothing
I7  acks for one id always agree, and name the time that the message has
I8  what got a final error is never delivered
I9  receipts are about own messages, once each, delivered before read, none is missing, and
    nobody can acknowledge what is not there
I10 after the 101 only frames of the protocol; every close code from its table; who stops in
    peace says 1012; nobody is shut out with a good token, or for a silence that was none; the
    server never fails by a fault of its own
I11 no token and no content in any log
I12 afterwards registry, descriptors, greenlets and idle transactions are back at the start,
    and there were no deadlocks
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from tests.crucible.books import Books, Violation
from tests.crucible.evidence import Evidence, Fault
from tests.crucible.excuses import (
    BUS_FAULTS,
    LATE_SECONDS,
    explains_loss,
    explains_silence,
    has_other_fault,
    lost_its_database,
    may_be_overtaken,
    was_there,
)
from tests.crucible.journal import Event, decode, of_kind
from tests.crucible.receipts import receipts

CLOSE_CODES = frozenset(
    {1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4401, 4403, 4408, 4429, 4480}
)
SHUT_OUT = 4401
LOST = 1006  # what a library says where no close frame came
SPARE = 40  # two pools keep 5 connections each, of 3 files on SQLite; and threads of our own
GOOD_STATUSES = frozenset({200, 429, 503})
SILENT = frozenset({4408, 4480})  # what the server says to those whom it does not hear, or reach


def check(evidence: Evidence) -> list[Violation]:
    """Everything that violates an invariant, by invariant."""
    books = Books.of(evidence)
    return [violation for invariant in INVARIANTS.values() for violation in invariant(books)]


def received_once(books: Books) -> Iterator[Violation]:
    """I1."""
    for message_id in books.accepted:
        sent = books.sent.get(message_id)
        if sent is None:
            continue
        came = books.received.get(sent["to"], {}).get(message_id, [])
        places = {one["frame"]["seq"] for one in came}
        # To oneself, one is the copy of what was sent.
        most = 2 if sent["to"] == books.senders[message_id] else 1
        if not places:
            yield Violation("I1", sent["to"], f"{message_id} is lost", message_id)
        elif len(places) > most:
            text = f"{message_id} stands at {sorted(places)}"
            yield Violation("I1", sent["to"], text, message_id)
    yield from _stored_once(books)
    yield from _stuck(books)
    yield from _late(books)


def equal_content(books: Books) -> Iterator[Violation]:
    """I2."""
    for user_id, messages in books.received.items():
        for message_id, events in messages.items():
            sent = books.sent.get(message_id)
            if sent and any(e["frame"]["encrypted_content"] != sent["content"] for e in events):
                yield Violation("I2", user_id, f"{message_id} came with other content", message_id)
    for row in books.evidence.database.messages:
        sent = books.sent.get(row.id)
        if sent and row.content != sent["content"]:
            yield Violation("I2", row.recipient, f"{row.id} is stored with other content", row.id)


def contiguous(books: Books) -> Iterator[Violation]:
    """I3."""
    for user_id, events in books.evidence.journals.items():
        yield from _ascending(user_id, events)
        head = books.evidence.database.heads.get(user_id)
        known = {event["frame"]["seq"] for event in of_kind(events, "entry")}
        known |= {one["seq"] for one in of_kind(events, "accepted") if one["seq"] is not None}
        missing = set(range(1, max(known, default=0) + 1)) - known
        if missing:
            yield Violation("I3", user_id, f"never came: {sorted(missing)[:10]}")
        if head is not None and max(known, default=0) != head:
            yield Violation("I3", user_id, f"came up to {max(known, default=0)} of {head}")
        for opened in of_kind(events, "opened"):
            if opened["reset"]:
                yield Violation("I3", user_id, f"a cursor was reset without a cause: {opened}")
    yield from _contiguous_in_database(books)


def in_order(books: Books) -> Iterator[Violation]:
    """I4. Who was told to try again, or could not hear that, may have been overtaken."""
    for recipient in books.received:
        by_sender: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for message_id, events in books.received[recipient].items():
            content = decode(events[0]["frame"]["encrypted_content"])
            if content is not None and content.number > 0:
                place = max(event["frame"]["seq"] for event in events)
                if content.recipient == recipient:
                    by_sender[content.sender].append((place, content.number, message_id))
        for sender, found in by_sender.items():
            excused = may_be_overtaken(books, sender)
            numbers = [(number, one) for _, number, one in sorted(found) if one not in excused]
            for (before, _), (after, message_id) in pairwise(numbers):
                if after < before:
                    text = f"number {after} of {sender} came after {before}"
                    yield Violation("I4", recipient, text, message_id)


def only_what_was_sent(books: Books) -> Iterator[Violation]:
    """I5."""
    for user_id, messages in books.received.items():
        for message_id, events in messages.items():
            sent, frame = books.sent.get(message_id), events[0]["frame"]
            if sent is None:
                yield Violation("I5", user_id, f"nobody has sent {message_id}", message_id)
            elif (frame["sender"], frame["recipient"]) != (books.senders[message_id], sent["to"]):
                yield Violation("I5", user_id, f"{message_id} names others: {frame}", message_id)
            elif sent["bundle"] and sent["to"] != user_id:
                text = f"{message_id} came as a `sent` entry of a `send_many`"
                yield Violation("I5", user_id, text, message_id)
    for row in books.evidence.database.messages:
        sent = books.sent.get(row.id)
        if sent is None:
            yield Violation("I5", row.recipient, f"nobody has sent {row.id}, but it is stored")
        elif sent["bundle"] and row.sender_seq is not None:
            text = f"{row.id} of a `send_many` is stored as a `sent` entry"
            yield Violation("I5", row.sender, text, row.id)


def only_ones_own(books: Books) -> Iterator[Violation]:
    """I6."""
    for user_id, events in books.evidence.journals.items():
        for event in of_kind(events, "let_in"):
            yield Violation("I6", user_id, f"let in with {event['why']}")
        shown = [("the socket", one["frame"]) for one in books.entries(user_id)]
        for event in of_kind(events, "rest"):
            shown += [(event["path"], message) for message in event["messages"]]
        for where, message in shown:
            if "encrypted_content" in message and not _is_of(user_id, message):
                text = f"{where} shows {message['id']} of others"
                yield Violation("I6", user_id, text, message["id"])


def acks_agree(books: Books) -> Iterator[Violation]:
    """I7."""
    for message_id, answers in books.accepted.items():
        said = {(one["seq"], one["created_at"]) for one in answers}
        fresh = sum(1 for one in answers if not one["duplicate"])
        user_id = books.senders.get(message_id, "?")
        if len(said) > 1:
            yield Violation(
                "I7", user_id, f"{message_id} is at {sorted(said, key=str)}", message_id
            )
        if fresh > 1:
            yield Violation("I7", user_id, f"{message_id} was new {fresh} times", message_id)
        shown = {
            one["frame"]["created_at"]
            for received in books.received.values()
            for one in received.get(message_id, ())
        }
        if wrong := shown - {one["created_at"] for one in answers}:
            text = f"{message_id} came with the time {min(wrong)}, acknowledged with another"
            yield Violation("I7", user_id, text, message_id)


def refused_for_good(books: Books) -> Iterator[Violation]:
    """I8."""
    stored = {row.id: row for row in books.evidence.database.messages}
    contents = {row.content: row.id for row in stored.values()}
    for events in books.evidence.journals.values():
        for one in of_kind(events, "entry"):
            if one["frame"]["type"] == "message":
                contents[one["frame"]["encrypted_content"]] = one["frame"]["id"]
    for content, meddled in books.meddled.items():
        if content in contents:
            text = f"{meddled['id']} was used again, and what came with it is delivered"
            yield Violation("I8", meddled["to"], text, meddled["id"])
    for user_id, events in books.evidence.journals.items():
        yield from _accepted_contradictions(user_id, events)
        for refused in of_kind(events, "refused"):
            if refused["is_final"] and refused["id"] in stored:
                text = f"{refused['id']} is stored after {refused['code']}"
                yield Violation("I8", user_id, text, refused["id"])


def only_the_protocol(books: Books) -> Iterator[Violation]:
    """I10."""
    faults = books.evidence.faults
    for user_id, events in books.evidence.journals.items():
        for event in of_kind(events, "invalid"):
            yield Violation("I10", user_id, event["text"])
        for event in of_kind(events, "rest", "turned_away"):
            if event["status"] not in GOOD_STATUSES and not _may_answer(faults, event):
                where = event.get("path", "the handshake")
                yield Violation("I10", user_id, f"{where} answered {event['status']}")
        for event in of_kind(events, "refused"):
            if event["code"] == "internal":
                yield Violation("I10", user_id, f"{event['id']} was answered with `internal`")
        for event in of_kind(events, "closed"):
            if event["by"] != "me" and (text := _wrong_end(faults, event)):
                yield Violation("I10", user_id, f"{text}: {event}")


def no_leaks(books: Books) -> Iterator[Violation]:
    """I11."""
    for leak in books.evidence.leaks:
        yield Violation("I11", "-", leak)


def back_at_the_start(books: Books) -> Iterator[Violation]:
    """I12."""
    evidence = books.evidence
    for number, (before, after) in enumerate(
        zip(evidence.before, evidence.after, strict=True), start=1
    ):
        where = f"master {number}"
        alive = {name: count for name, count in after.objects.items() if count}
        if after.connections or alive:
            yield Violation("I12", where, f"{after.connections} connections live on, {alive}")
        for name in ("descriptors", "greenlets"):
            had, has = getattr(before, name), getattr(after, name)
            if has > had + SPARE:
                yield Violation("I12", where, f"{has} {name}, {had} at the start")
    if evidence.idle_in_transaction:
        text = f"{evidence.idle_in_transaction} connections are idle in a transaction"
        yield Violation("I12", "-", text)
    if evidence.deadlocks:
        yield Violation("I12", "-", f"{evidence.deadlocks} deadlocks")


INVARIANTS: Mapping[str, Callable[[Books], Iterator[Violation]]] = {
    "I1": received_once,
    "I2": equal_content,
    "I3": contiguous,
    "I4": in_order,
    "I5": only_what_was_sent,
    "I6": only_ones_own,
    "I7": acks_agree,
    "I8": refused_for_good,
    "I9": receipts,
    "I10": only_the_protocol,
    "I11": no_leaks,
    "I12": back_at_the_start,
}


def _may_answer(faults: Sequence[Fault], event: Event) -> bool:
    is_doubted = event["what"] == "turned_away" and not event["has_good_token"]
    return lost_its_database(faults, event) or (event["status"] == 401 and is_doubted)


def _wrong_end(faults: Sequence[Fault], closed: Event) -> str | None:
    """What is wrong with how the server has ended a connection, if anything is."""
    code = closed["code"]
    if code == LOST:
        return None if explains_loss(faults, closed) else "lost without a close frame"
    if code not in CLOSE_CODES:
        return "closed with a strange code"
    if code == SHUT_OUT and closed["has_good_token"]:
        return "shut out with a good token"
    if code in SILENT and not explains_silence(faults, closed):
        return "closed as silent"
    return None


def _stored_once(books: Books) -> Iterator[Violation]:
    stored = {row.id for row in books.evidence.database.messages}
    if not books.evidence.database.heads:
        return
    for message_id in books.accepted.keys() - stored:
        user_id = books.senders.get(message_id, "?")
        yield Violation("I1", user_id, f"{message_id} was accepted and is not stored", message_id)


def _stuck(books: Books) -> Iterator[Violation]:
    for user_id, events in books.evidence.journals.items():
        for one in of_kind(events, "stuck"):
            yield Violation("I1", user_id, f"stands at {one['position']} of {one['head']}")
        unanswered = {one["id"] for one in of_kind(events, "sent")} - books.accepted.keys()
        unanswered -= {one["id"] for one in of_kind(events, "refused") if one["is_final"]}
        if unanswered:
            text = f"{len(unanswered)} messages never found an answer"
            yield Violation("I1", user_id, text, min(unanswered))


def _late(books: Books) -> Iterator[Violation]:
    """While only the bus is away, the sweep must find what others have stored."""
    for fault in books.evidence.faults:
        if fault.name not in BUS_FAULTS:
            continue
        for message_id, answers in books.accepted.items():
            at = answers[0]["at"]
            sent = books.sent.get(message_id)
            if sent is None or not fault.began <= at <= fault.ended:
                continue
            if has_other_fault(books.evidence.faults, at, fault):
                continue
            came = [one["at"] for one in books.received[sent["to"]].get(message_id, [])]
            if was_there(books.evidence.journals[sent["to"]], at, at + LATE_SECONDS) and (
                not came or min(came) > at + LATE_SECONDS
            ):
                text = f"{message_id} did not come in {LATE_SECONDS} s"
                yield Violation("I1", sent["to"], f"{text} though only the bus was away")


def _ascending(user_id: str, events: Sequence[Event]) -> Iterator[Violation]:
    """On one connection positions grow, and leave out only what it has sent itself."""
    position: dict[int, int] = {}
    own = {one["seq"] for one in of_kind(events, "accepted")}
    for event in of_kind(events, "opened", "entry"):
        number = event["connection"]
        if event["what"] == "opened":
            position[number] = event["after"]
            continue
        seq, last = event["frame"]["seq"], position.get(number, 0)
        if seq <= last:
            yield Violation("I3", user_id, f"{seq} came after {last} on connection {number}")
        elif set(range(last + 1, seq)) - own:
            yield Violation("I3", user_id, f"{seq} came after {last}, with a hole between")
        position[number] = max(seq, last)


def _contiguous_in_database(books: Books) -> Iterator[Violation]:
    places: defaultdict[str, list[int]] = defaultdict(list)
    for row in books.evidence.database.messages:
        places[row.recipient].append(row.recipient_seq)
        if row.sender_seq is not None:
            places[row.sender].append(row.sender_seq)
    for user_id, seqs in books.evidence.database.receipts.items():
        places[user_id] += seqs
    for user_id, head in books.evidence.database.heads.items():
        if sorted(places[user_id]) != list(range(1, head + 1)):
            wrong = Counter(places[user_id]) - Counter(range(1, head + 1))
            missing = Counter(range(1, head + 1)) - Counter(places[user_id])
            text = (
                f"the database lacks {sorted(missing)[:10]} and has {sorted(wrong)[:10]} too much"
            )
            yield Violation("I3", user_id, text)


def _is_of(user_id: str, message: Event) -> bool:
    content = decode(message["encrypted_content"])
    names = {message["sender"], message["recipient"]}
    return user_id in names and (content is None or user_id in (content.sender, content.recipient))


def _accepted_contradictions(user_id: str, events: Sequence[Event]) -> Iterator[Violation]:
    """An `accepted` on a connection over which the id went with other content only."""
    sent = {(one["connection"], one["id"]) for one in of_kind(events, "sent")}
    meddled = {(one["connection"], one["id"]) for one in of_kind(events, "meddled")}
    for one in of_kind(events, "accepted"):
        if (one["connection"], one["id"]) in meddled - sent:
            text = f"{one['id']} was accepted again with other content"
            yield Violation("I8", user_id, text, one["id"])
