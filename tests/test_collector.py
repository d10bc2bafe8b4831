"""What has survived is set aside, and comes back: before there is too much of it, and in time."""

from __future__ import annotations

import gc
import weakref

import pytest

from flask_e2emsg import collector
from flask_e2emsg.collector import set_aside_what_lives

pytestmark = pytest.mark.usefixtures("collector_as_before")


class Node:
    """Something that only the collector can free."""

    def __init__(self) -> None:
        self.me = self


def is_looked_through(node: Node) -> bool:
    return any(one is node for one in gc.get_objects())


def test_what_lives_is_set_aside_and_what_comes_later_when_it_has_survived() -> None:
    early = Node()
    set_aside_what_lives()
    assert not is_looked_through(early)
    later = Node()
    assert is_looked_through(later)
    gc.collect()
    assert not is_looked_through(later)


def test_garbage_that_was_not_set_aside_goes_at_once() -> None:
    set_aside_what_lives()
    node = weakref.ref(Node())
    gc.collect()
    assert node() is None


def test_garbage_that_was_set_aside_goes_when_that_has_grown_by_half() -> None:
    node = Node()
    set_aside_what_lives()
    watched = weakref.ref(node)
    del node
    gc.collect()
    assert watched() is not None
    growth: list[list[int]] = [[] for _ in range(int(0.6 * gc.get_freeze_count()))]
    gc.collect()  # This sets aside what makes it too much,
    gc.collect()  # and this looks through it.
    assert watched() is None
    del growth


def test_garbage_that_was_set_aside_goes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "PATIENCE_SECONDS", 0.0)
    node = Node()
    set_aside_what_lives()
    watched = weakref.ref(node)
    del node
    gc.collect()
    assert watched() is None


def test_who_has_set_aside_what_lives_is_left_alone() -> None:
    gc.freeze()
    before = list(gc.callbacks)
    set_aside_what_lives()
    assert gc.callbacks == before
