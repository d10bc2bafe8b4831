from __future__ import annotations

from typing import Any

import pytest

from benchmarks.results import Failed
from benchmarks.runs import check

GOOD = {
    **dict.fromkeys(("sent", "accepted", "delivered"), 10),
    **dict.fromkeys(("duplicates", "order_breaks", "foreign", "errors", "lost_connections"), 0),
    "first_error": "",
}


def test_what_is_sent_acknowledged_stored_and_delivered_passes() -> None:
    check(GOOD, 10, keeps_order=True)


@pytest.mark.parametrize(
    "change",
    [
        {"accepted": 9},
        {"delivered": 9},
        {"sent": 11},
        {"duplicates": 1},
        {"foreign": 1},
        {"errors": 1},
        {"lost_connections": 1},
        {"order_breaks": 1},
    ],
    ids=str,
)
def test_anything_else_fails(change: dict[str, Any]) -> None:
    with pytest.raises(Failed):
        check(GOOD | change, 10, keeps_order=True)


@pytest.mark.parametrize("stored", [9, 11])
def test_what_is_stored_counts(stored: int) -> None:
    with pytest.raises(Failed, match=f"{stored} stored"):
        check(GOOD, stored, keeps_order=True)


def test_only_who_promises_an_order_has_to_keep_it() -> None:
    check(GOOD | {"order_breaks": 1}, 10, keeps_order=False)
