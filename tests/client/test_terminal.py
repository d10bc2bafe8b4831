"""What the terminal shows."""

from __future__ import annotations

from datetime import UTC, datetime

from flask_e2emsg.client import events
from flask_e2emsg.client.terminal import Bar, _line_of, printable

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def message(body: str) -> events.Message:
    return events.Message("1", "ann", "ben", None, "text", body, None, AT, AT, False)


def test_a_message_cannot_write_over_the_screen() -> None:
    line = _line_of(message("\x1b[2J\rann: something else\n\x9b31m\u202e"))
    assert line is not None
    assert line.isprintable()
    assert printable("Grüße 👋") == "Grüße 👋"


def test_a_bar_grows_with_the_backlog_and_goes_away() -> None:
    drawn: list[str] = []
    bar = Bar(drawn.append)
    bar.begin(2)
    bar.advance(events.CaughtUp())
    bar.advance(message("one"))
    bar.advance(message("two"))
    bar.advance(message("three"))
    bar.clear()
    bar.clear()
    assert drawn == ["[###############               ] 1/2", f"[{'#' * 30}] 2/2", ""]


def test_every_doubt_is_said() -> None:
    doubts: list[events.Event] = [
        events.Gap("ann", "1", 2, 4),
        events.Fork("ann", "1", 2),
        events.Replay("ann", "1"),
        events.Unreadable("1", "ann", "forged", False),
        events.KeyChanged("ann", None),
        events.OwnKeyChanged(True),
        events.Refused("1", "ann", "too_large", True),
        events.Reset(),
    ]
    assert all("ann" in (line := _line_of(one) or "") or line for one in doubts)
