"""The ninth invariant: receipts are about own messages, once each, and none is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tests.crucible.books import Books, Violation
from tests.crucible.journal import Event, of_kind


def receipts(books: Books) -> Iterator[Violation]:
    """I9."""
    marked = {
        message_id
        for events in books.evidence.journals.values()
        for one in of_kind(events, "marked")
        for message_id in one["ids"]
    }
    for user_id in books.evidence.journals:
        said = _receipts_of(books, user_id)
        yield from _wrong_receipts(books, user_id, said)
        yield from _believed_acks(user_id, books.evidence.journals[user_id])
        named = {(kind, message_id) for _, kind, _, message_id in said}
        for message_id in books.accepted:
            if books.senders.get(message_id) != user_id:
                continue
            if books.sent[message_id]["to"] != user_id:
                due = ["delivered"] + (["read"] if message_id in marked else [])
                for kind in due:
                    if (kind, message_id) not in named:
                        text = f"no `{kind}` for {message_id}"
                        yield Violation("I9", user_id, text, message_id)


def _receipts_of(books: Books, user_id: str) -> list[tuple[int, str, str, str]]:
    """Position, kind, by whom and about what, each once and in order."""
    found = {
        (frame["seq"], frame["kind"], frame["by"], message_id)
        for frame in (one["frame"] for one in books.entries(user_id))
        if frame["type"] == "receipt"
        for message_id in frame["ids"]
    }
    return sorted(found)


def _wrong_receipts(
    books: Books, user_id: str, said: Sequence[tuple[int, str, str, str]]
) -> Iterator[Violation]:
    delivered: set[str] = set()
    seen: Counter[tuple[str, str]] = Counter()
    for seq, kind, by, message_id in said:
        seen[kind, message_id] += 1
        sent = books.sent.get(message_id)
        if sent is None or books.senders[message_id] != user_id or sent["to"] != by:
            text = f"the receipt {seq} by {by} is about {message_id}, sent otherwise"
            yield Violation("I9", user_id, text, message_id)
        if seen[kind, message_id] > 1:
            yield Violation("I9", user_id, f"`{kind}` twice for {message_id}", message_id)
        if kind == "delivered":
            delivered.add(message_id)
        elif message_id not in delivered:
            yield Violation("I9", user_id, f"{message_id} read before delivered", message_id)


def _believed_acks(user_id: str, events: Sequence[Event]) -> Iterator[Violation]:
    """Acks of what is not there that were not refused, though what was sent later was answered."""
    open_claims: Counter[int] = Counter()
    claims_before: dict[tuple[int, str], int] = {}  # of a message, on its connection
    refused: Counter[int] = Counter()
    believed: dict[int, int] = {}
    for event in of_kind(events, "overacked", "sent", "accepted", "refused"):
        number = event["connection"]
        match event["what"]:
            case "overacked":
                open_claims[number] += 1
            case "sent":
                claims_before[number, event["id"]] = open_claims[number]
            case "refused" if event["id"] is None and event["code"] == "bad_request":
                refused[number] += 1
            case _:
                due = claims_before.get((number, event["id"]), 0)
                if due > refused[number]:
                    believed[number] = due - refused[number]
    for number, count in believed.items():
        text = f"{count} acks of what is not there were believed on connection {number}"
        yield Violation("I9", user_id, text)
