"""Quotas: what waits for somebody is bounded, and rarely counted."""

from __future__ import annotations

import time

import pytest

from flask_e2emsg.delivery.quota import FIRST_PART, Quotas
from flask_e2emsg.store.accounts import Party, Waiting
from tests.delivery.fakes import ALICE, BOB

CAROL = Party(3, "carol")


class Mailboxes:
    """What was sent and not acknowledged, by pair."""

    def __init__(self) -> None:
        self.sent: list[tuple[Party, Party]] = []
        self.counts = 0

    def waiting(self, recipient: Party, sender: Party, _enough: int) -> Waiting:
        self.counts += 1
        in_all = sum(to == recipient for _, to in self.sent)
        return Waiting(in_all, self.sent.count((sender, recipient)))

    def send(self, quotas: Quotas, sender: Party, recipient: Party, attempts: int) -> int:
        """Send one by one; how many got through."""
        before = len(self.sent)
        for _ in range(attempts):
            if quotas.check(sender, [recipient]) is None:
                self.sent.append((sender, recipient))
        return len(self.sent) - before


@pytest.fixture
def mailboxes() -> Mailboxes:
    return Mailboxes()


def test_one_sender_fills_its_quota_and_no_more(mailboxes: Mailboxes) -> None:
    quotas = Quotas(mailboxes.waiting, of_one_sender=100, of_all=None)
    assert mailboxes.send(quotas, ALICE, BOB, 500) == 100
    assert mailboxes.send(quotas, CAROL, BOB, 50) == 50
    assert mailboxes.send(quotas, ALICE, CAROL, 50) == 50


def test_many_senders_fill_a_mailbox_and_no_more(mailboxes: Mailboxes) -> None:
    quotas = Quotas(mailboxes.waiting, of_one_sender=None, of_all=100)
    senders = [Party(number, str(number)) for number in range(10, 30)]
    for _ in range(20):
        for sender in senders:
            mailboxes.send(quotas, sender, BOB, 1)
    # Each of them has a first part that is not counted.
    assert 100 <= len(mailboxes.sent) <= 100 + 20 * 10


def test_strangers_without_number_add_little_each(mailboxes: Mailboxes) -> None:
    quotas = Quotas(mailboxes.waiting, of_one_sender=None, of_all=1000)
    for number in range(200):
        mailboxes.send(quotas, Party(number + 10, str(number)), BOB, 50)
    assert 1000 <= len(mailboxes.sent) <= 1000 + 100 + 200 * FIRST_PART


def test_it_is_counted_once_for_each_tenth(mailboxes: Mailboxes) -> None:
    quotas = Quotas(mailboxes.waiting, of_one_sender=1000, of_all=None)
    mailboxes.send(quotas, ALICE, BOB, 3000)
    assert mailboxes.counts <= 11


def test_after_an_ack_there_is_room_again(
    mailboxes: Mailboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotas = Quotas(mailboxes.waiting, of_one_sender=20, of_all=None)
    mailboxes.send(quotas, ALICE, BOB, 30)
    mailboxes.sent.clear()
    assert quotas.check(ALICE, [BOB]) == 0
    later = time.monotonic() + 2
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert quotas.check(ALICE, [BOB]) is None


def test_of_several_recipients_the_full_one_is_named(mailboxes: Mailboxes) -> None:
    quotas = Quotas(mailboxes.waiting, of_one_sender=10, of_all=None)
    mailboxes.send(quotas, ALICE, BOB, 10)
    assert quotas.check(ALICE, [CAROL, BOB]) == 1


def test_to_oneself_there_is_no_quota(mailboxes: Mailboxes) -> None:
    quotas = Quotas(mailboxes.waiting, of_one_sender=5, of_all=5)
    assert mailboxes.send(quotas, ALICE, ALICE, 50) == 50


def test_without_quotas_nothing_is_counted(mailboxes: Mailboxes) -> None:
    quotas = Quotas(mailboxes.waiting, of_one_sender=None, of_all=None)
    assert mailboxes.send(quotas, ALICE, BOB, 100) == 100
    assert mailboxes.counts == 0
