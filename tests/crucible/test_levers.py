"""What the nemesis sets is seen at once by whoever has the same file mapped."""

from __future__ import annotations

from pathlib import Path

from tests.crucible.levers import Levers


def test_levers_are_the_same_for_all_who_hold_them(tmp_path: Path) -> None:
    ours = Levers.new(tmp_path / "levers")
    theirs = Levers(ours.path)
    assert (theirs.step_seconds, theirs.most_pages) == (0.0, 0)
    ours.step_seconds, ours.most_pages = -3600.0, 77
    assert (theirs.step_seconds, theirs.most_pages) == (-3600.0, 77)
