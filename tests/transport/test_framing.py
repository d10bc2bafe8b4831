"""How much of what a client sends is taken at once, and what is kept of it."""

from __future__ import annotations

import pytest

from flask_e2emsg.transport.framing import (
    CONTROL_BURST,
    FEW_BYTES,
    RECEIVE_BYTES,
    Decoder,
    Ended,
)
from tests.transport.peers import frame

WHOLE = frame(1, b'{"type":"ping"}')
TINY = frame(1, b"{", fin=False) + frame(0, fin=False) * 40 + frame(0, b"}")
LARGE = frame(1, b"x" * 1000, fin=False) + frame(0, b"x" * 1000)


def fed(decoder: Decoder, unit: bytes) -> int:
    """Give it as much as it wants of these units, whole ones; what it wants next."""
    decoder.feed(unit * max(1, decoder.appetite // len(unit)))
    return decoder.appetite


def test_of_a_client_that_sends_tiny_fragments_little_is_taken_at_once() -> None:
    decoder = Decoder(100_000)
    assert decoder.appetite == RECEIVE_BYTES
    assert [fed(decoder, TINY) for _ in range(5)] == [FEW_BYTES] * 5


def test_when_it_stops_much_is_taken_again() -> None:
    decoder = Decoder(100_000)
    fed(decoder, TINY)
    assert fed(decoder, WHOLE) == RECEIVE_BYTES


@pytest.mark.parametrize(
    "unit", [WHOLE, LARGE, frame(9) + WHOLE * 20], ids=["whole", "large", "pings"]
)
def test_of_all_others_much_is_taken(unit: bytes) -> None:
    decoder = Decoder(100_000)
    assert [fed(decoder, unit) for _ in range(3)] == [RECEIVE_BYTES] * 3


def test_answers_to_pings_are_counted_together_with_pings() -> None:
    decoder = Decoder(100_000)
    assert decoder.feed((frame(10, b"!") + frame(9)) * (CONTROL_BURST // 2)) == []
    with pytest.raises(Ended) as ended:
        decoder.feed(frame(10))
    assert ended.value.code == 4429


@pytest.mark.parametrize(
    "unit", [frame(10, b"x" * 126), frame(10, fin=False), frame(10, reserved=1)]
)
def test_answers_to_pings_that_break_the_rules_end_the_connection(unit: bytes) -> None:
    with pytest.raises(Ended) as ended:
        Decoder(100_000).feed(unit)
    assert ended.value.code == 1002
