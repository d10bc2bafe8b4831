"""What looks like a violation and is none is not held against anybody; what is like it, is."""

from __future__ import annotations

import pytest

from tests.crucible.evidence import Fault
from tests.crucible.stories import (
    FIRST,
    SECOND,
    Story,
    accepted,
    closed,
    entry,
    event,
    message,
    opened,
    refused,
    sent,
    told_together,
    turned_away,
)


def test_a_repetition_that_is_told_to_be_one_is_no_crime() -> None:
    story = Story.told()
    story.ann += [sent(2.0, FIRST), accepted(2.1, FIRST, 1, duplicate=True)]
    assert story.violated() == set()


def test_an_ack_that_may_not_have_come_is_not_believed_yet() -> None:
    story = Story.told()
    story.ann.insert(3, event(1.15, "overacked", connection=1))
    assert story.violated() == set()


def test_a_push_is_no_crime_on_a_new_connection() -> None:
    story = Story.told()
    story.ben += [opened(2.0, connection=2), entry(2.1, message(1, FIRST), connection=2)]
    assert story.violated() == set()


def test_a_loss_that_a_kill_explains_is_no_crime() -> None:
    story = Story.told()
    story.faults.append(Fault("kill_worker", 1.9, 2.0, master=0))
    story.ben.append(closed(2.0, 1006))
    assert story.violated() == set()


def test_a_host_that_lost_its_database_may_fail_in_rest() -> None:
    story = Story.told()
    story.ben.append(event(2.0, "rest", path="/api/sync", status=500, messages=[]))
    story.faults.append(Fault("end_backends", 1.5, 1.6))
    assert story.violated() == set()


def test_the_kill_of_another_master_explains_nothing() -> None:
    story = Story.told()
    story.faults.append(Fault("kill_worker", 1.9, 2.0, master=1))
    story.ben.append(closed(2.0, 1006))
    assert story.violated() == {"I10"}


def test_who_was_told_to_try_again_may_be_overtaken() -> None:
    story = Story.told()
    for message_id in (FIRST, SECOND):
        story.drop(story.ben, "entry", id=message_id)
    story.ben += [entry(1.4, message(1, SECOND)), entry(1.4, message(2, FIRST))]
    story.ann.append(refused(1.1, FIRST, "unavailable"))
    assert story.violated() == set()


def test_several_that_were_sent_together_are_no_crime() -> None:
    story = Story.told()
    told_together(story)
    assert story.violated() == set()


def test_a_refusal_while_the_disk_is_full_is_no_crime() -> None:
    story = Story.told()
    story.faults.append(Fault("disk_full", 0.5, 3.0))
    story.ann.insert(3, refused(1.15, FIRST, "unavailable"))
    assert story.violated() == set()


def test_who_has_a_doubtful_token_may_be_shut_out() -> None:
    story = Story.told()
    story.ben.append(closed(2.0, 4401, has_good_token=False))
    story.ben.append(turned_away(2.1, 401, has_good_token=False))
    assert story.violated() == set()


def test_a_handshake_may_fail_when_the_host_lost_its_database() -> None:
    story = Story.told()
    story.faults.append(Fault("end_backends", 1.5, 1.6))
    story.ben.append(turned_away(2.0, 500))
    assert story.violated() == set()


@pytest.mark.parametrize("code", [4408, 4480])
def test_who_was_frozen_may_be_called_silent(code: int) -> None:
    story = Story.told()
    story.faults.append(Fault("freeze_clients", 1.5, 1.9))
    story.ben.append(closed(2.0, code))
    assert story.violated() == set()
