"""A key that was published on one worker counts on the others at once (docs/crypto.md 8)."""

from __future__ import annotations

import time

import pytest

from flask_e2emsg.delivery.envelopes import KEY_SECONDS
from tests.acceptance.conftest import Hosting
from tests.acceptance.envelopes import Keys, sealed
from tests.acceptance.people import People

PROMPT_SECONDS = 1.0  # far below the time for which a worker remembers a key


@pytest.fixture(scope="module")
def environment(hosting: Hosting) -> dict[str, str]:
    return hosting.environment("postgresql", E2EMSG_CHECK_ENVELOPES=True)


def test_what_was_sealed_for_the_old_key_is_refused_on_the_other_worker(
    people: People, elsewhere: People
) -> None:
    assert PROMPT_SECONDS < KEY_SECONDS / 2
    here, there = people.new("alice"), elsewhere.new("bob")
    alice, bob = Keys(here.id, here.rest), Keys(there.id, there.rest)
    for keys in (alice, bob):
        keys.renew()
    client = here.connect()
    message_id, content = sealed(alice, bob)
    client.store(bob.id, content, message_id=message_id)
    stale = Keys(bob.id, bob.rest, bob.public_key)
    bob.renew()
    deadline = time.monotonic() + PROMPT_SECONDS
    codes = set()
    while "stale_key" not in codes and time.monotonic() < deadline:
        message_id, content = sealed(alice, stale)
        client.send(bob.id, content, message_id=message_id)
        answer = client.answer(message_id)
        codes.add(answer.get("code"))
    assert "stale_key" in codes
