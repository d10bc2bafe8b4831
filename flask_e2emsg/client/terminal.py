"""A chat in a terminal: lines that are typed become messages, events become lines.

What others write is shown without control characters, which could move the cursor or hide text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from . import events
from .client import Client
from .errors import ClientError, KeyNotAccepted

HELP = """\
Type to write to the contact that you have chosen.
  /to CONTACT   whom to write to           /contacts   everybody whose key is known
  /history      the newest messages        /all        all of them
  /number       the safety number          /accept     trust the contact's new key
  /backup       a recovery code            /restore CODE   the key of another device
  /newkey       give the old key up        /quit"""
BAR_WIDTH = 30
LONG_BACKLOG = 50  # entries from which on a bar is shown
Say = Callable[[str], None]


class Terminal:
    """One chat.

    Args:
        client: whose.
        say: prints a line.
        draw: prints over the last line, for the bar.
    """

    def __init__(self, client: Client, say: Say, draw: Say) -> None:
        self._client, self._say = client, say
        self._bar = Bar(draw)
        self._to: str | None = None
        self._number: str | None = None  # that was shown for the contact
        self._commands: dict[str, Callable[[str], None]] = {
            "to": self._choose,
            "contacts": lambda _: self._say(", ".join(map(printable, client.contacts())) or "none"),
            "history": lambda _: self._history(pages=1),
            "all": lambda _: self._history(pages=None),
            "number": lambda _: self._show_number(),
            "accept": lambda _: self._accept(),
            "backup": lambda _: self._say(
                f"Write this down, it is not shown again: {client.make_backup()}"
            ),
            "restore": client.restore,
            "newkey": lambda _: client.make_new_key(),
            "help": lambda _: self._say(HELP),
        }

    def run(self, lines: Iterable[str]) -> None:
        """Take lines until `/quit` or their end, while events are shown."""
        listening = threading.Thread(target=self._listen, name="e2emsg-terminal", daemon=True)
        listening.start()
        for line in lines:
            if line.strip() == "/quit":
                break
            self.take(line.strip())
        self._client.close()
        listening.join()

    def take(self, line: str) -> None:
        """One line that was typed."""
        try:
            if line.startswith("/"):
                name, _, rest = line[1:].partition(" ")
                self._commands.get(name, self._commands["help"])(rest.strip())
            elif line:
                self._client.send(self._contact(), line)
        except ClientError as error:
            self._say(f"! {printable(str(error))}")

    def _contact(self) -> str:
        if self._to is None:
            raise ClientError("Choose somebody first: /to CONTACT")
        return self._to

    def _choose(self, contact: str) -> None:
        self._to, self._number = contact or None, None

    def _show_number(self) -> None:
        self._number = str(self._client.safety_number(self._contact()))
        self._say(f"Compare over another channel: {self._number}")

    def _accept(self) -> None:
        """Only what was shown can be accepted."""
        contact = self._contact()
        if self._number is None:
            self._show_number()
            self._say("If it is the same on both sides, /accept again.")
            return
        try:
            self._client.accept_key(contact, self._number)
            self._say("Accepted.")
        except KeyNotAccepted:
            self._say("! By now it is yet another key.")
        self._number = None

    def _history(self, pages: int | None) -> None:
        contact, found, before = self._contact(), list[events.Message | events.Unreadable](), None
        newest = 0
        while pages is None or pages > 0:
            page = self._client.history(contact, before, 20 if pages else 100)
            found += page.messages
            newest = newest or (found[0].position or 0 if found else 0)
            before, pages = page.next, None if pages is None else pages - 1
            if before is None:
                break
            self._bar.show(newest - before, newest)
        self._bar.clear()
        for message in reversed(found):
            self.show(message)

    # What happens.

    def _listen(self) -> None:
        for event in self._client.events():
            self.show(event)

    def show(self, event: events.Event) -> None:
        """One event, as a line."""
        if isinstance(event, events.Connected) and event.backlog >= LONG_BACKLOG:
            self._bar.begin(event.backlog)
        if isinstance(event, events.CaughtUp):
            return
        self._bar.advance(event)
        line = _line_of(event)
        if line is not None:
            self._bar.clear()
            self._say(line)


def _line_of(event: events.Event) -> str | None:
    match event:
        case events.Message():
            return _message_line(event)
        case events.Unreadable():
            later = ", until the key is accepted" if event.held else ""
            return (
                f"! A message of {printable(event.contact)} cannot be read ({event.reason}){later}."
            )
        case events.Refused():
            later = "" if event.final else ", it is sent again later"
            return f"! Not sent to {printable(event.contact)}: {printable(event.code)}{later}."
        case events.KeyChanged():
            number = event.safety_number or "there is none"
            return f"! {printable(event.contact)} has another key: {number}. Compare, then /accept."
        case events.OwnKeyChanged():
            return "! This account's key is another one: /restore CODE, or /newkey."
        case events.Gap() | events.Fork() | events.Replay():
            word = type(event).__name__.lower()
            return (
                f"! {printable(event.contact)}: {word}. Messages were left out, put in or repeated."
            )
        case events.Connected():
            return f"* You are {printable(event.user_id)}."
        case events.Disconnected():
            after = "for good" if event.retry_in is None else f"for {event.retry_in:.1f} s"
            return f"* Not connected, {after} ({printable(str(event.reason))})."
        case events.Receipt(kind="read"):
            return f"* {printable(event.by)} has read {len(event.ids)}."
        case events.Reset():
            return "* The server's log was made anew: /all has everything."
        case _:
            return None


def _message_line(message: events.Message) -> str:
    at = message.sent_at.astimezone().strftime("%Y-%m-%d %H:%M")
    kind = "" if message.type == "text" else f" [{printable(message.type)}]"
    return f"{at} {printable(message.sender)}{kind}: {printable(message.body or '')}"


def printable(text: str) -> str:
    """The text on one line, with what a terminal would obey replaced."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


class Bar:
    """How much of something long is done."""

    def __init__(self, draw: Say) -> None:
        self._draw = draw
        self._total = self._done = 0
        self._is_shown = False

    def begin(self, total: int) -> None:
        """So many entries are to come."""
        self._total, self._done = total, 0

    def advance(self, event: events.Event) -> None:
        """One of them may have come."""
        if self._done < self._total and isinstance(
            event, events.Message | events.Unreadable | events.Receipt
        ):
            self._done += 1
            self.show(self._done, self._total)

    def show(self, done: int, total: int) -> None:
        """Draw it."""
        filled = BAR_WIDTH * done // max(total, 1)
        self._is_shown = True
        self._draw(f"[{'#' * filled:{BAR_WIDTH}}] {done}/{total}")

    def clear(self) -> None:
        """Take it away."""
        if self._is_shown:
            self._is_shown = False
            self._draw("")
