"""What a careful sender does when servers die: the same ids again, until each is accepted."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.acceptance.client import ConnectionLost, SocketClient
from tests.acceptance.people import Person
from tests.acceptance.wire import Frame, new_content, new_id

SETTLE_SECONDS = 20.0


class Outbox:
    """Sends that are repeated, with the same ids and in the same order, until accepted."""

    def __init__(self, sender: Person, recipient: Person) -> None:
        self.accepted: dict[str, Frame] = {}
        self.contents: dict[str, str] = {}
        self.repeated: set[str] = set()  # ids that had to be sent more than once
        self._sender = sender
        self._recipient = recipient
        self._client: SocketClient = sender.connect()

    def send(self, count: int) -> None:
        """Send so many more messages, without waiting."""
        fresh = {new_id(): new_content() for _ in range(count)}
        self.contents.update(fresh)
        self._transmit(fresh)

    def settle(self) -> None:
        """Wait until everything is accepted, over as many connections and retries as that takes.

        The only error that it takes is `unavailable`, and then it waits as long as that says.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while waiting := self._waiting():
            assert time.monotonic() < deadline, f"{len(waiting)} sends were not accepted in time"
            try:
                pause = max(self._settle_one(message_id) for message_id in waiting)
                time.sleep(pause)
            except ConnectionLost:
                self._client = self._sender.reconnect()
            self._repeat()

    def send_during(self, fault: Callable[[], object], pause: float = 0.0) -> None:
        """Keep sending, settled batch after batch, while the fault happens in another thread.

        A pause in seconds after each batch keeps the mailbox short where the fault takes long.
        """
        with ThreadPoolExecutor(1) as pool:
            happening = pool.submit(fault)
            while not happening.done():
                self.send(20)
                self.settle()
                time.sleep(pause)
            happening.result()
        # Whose connection ended during the last pause notices it now.
        self.send(1)
        self.settle()

    def _settle_one(self, message_id: str) -> float:
        """Take the answer to one send; the seconds to wait before it is sent again."""
        answer = self._client.answer(message_id)
        if answer["type"] == "accepted":
            self.accepted[message_id] = answer
            return 0.0
        assert answer["code"] == "unavailable", answer
        return float(answer["retry_after"])

    def _waiting(self) -> dict[str, str]:
        return {one: text for one, text in self.contents.items() if one not in self.accepted}

    def _transmit(self, messages: dict[str, str]) -> None:
        try:
            for message_id, content in messages.items():
                self._client.send(self._recipient.id, content, message_id=message_id)
        except ConnectionLost:
            self._client = self._sender.reconnect()
            self._repeat()

    def _repeat(self) -> None:
        self.repeated.update(waiting := self._waiting())
        self._transmit(waiting)


def read_all(person: Person) -> list[Frame]:
    """The whole mailbox from the first position, over a connection of its own."""
    client = person.reconnect()
    cursor = f"{client.hello['epoch']}:0"
    client.close()
    return person.reconnect(cursor).drain()


def assert_all_arrived_once(outbox: Outbox, mailbox: list[Frame]) -> None:
    """Every accepted message once, with its content, in the order of sending, without holes."""
    assert [frame["seq"] for frame in mailbox] == list(range(1, len(mailbox) + 1))
    assert [frame["id"] for frame in mailbox] == list(outbox.contents)
    for frame in mailbox:
        assert frame["encrypted_content"] == outbox.contents[frame["id"]]
        assert frame["created_at"] == outbox.accepted[frame["id"]]["created_at"]
