"""How many sockets a process takes: below what its server serves, and below its open files."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from flask_e2emsg import capacity


@pytest.fixture(autouse=True)
def _limits_of_this_process() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def limit_files(soft: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_tenth_is_left_for_requests() -> None:
    limit_files(4096)
    assert [capacity.connections(served) for served in (None, 2000, 200)] == [900, 1800, 180]


def test_the_limit_of_open_files_counts_when_it_is_lower() -> None:
    limit_files(1024)
    assert [capacity.connections(served) for served in (None, 10_000)] == [824, 824]


def test_there_is_room_for_one_at_least() -> None:
    limit_files(100)
    assert capacity.connections(10_000) == 1


def test_the_limit_is_raised_as_far_as_needed() -> None:
    limit_files(512)
    capacity.allow_files(1000)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1200
    capacity.allow_files(100)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1200


def test_the_limit_is_raised_no_higher_than_the_system_lets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (512, 2048))
    monkeypatch.setattr(resource, "setrlimit", lambda *arguments: wanted.append(arguments))
    capacity.allow_files(10_000)
    assert wanted == [(resource.RLIMIT_NOFILE, (2048, 2048))]
