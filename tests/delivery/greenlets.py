"""The registry under greenlets.

`python -m gevent.monkey --module tests.delivery.greenlets GAME SEED` plays one game, in a process
of its own because gevent must patch the standard library before anything is imported.
The hub's table lets others go first wherever it is touched, as the dice will have it, so greenlets
meet in the middle of things. What goes wrong ends it with a traceback.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent.monkey import is_module_patched

from flask_e2emsg.delivery.hub import Hub
from flask_e2emsg.protocol.entries import Entry
from flask_e2emsg.store.accounts import Party
from flask_e2emsg.store.mailbox import Page
from tests.delivery.fakes import Acks, Log, Watched, entries, entry, positions, pump, take_all

INTERLEAVINGS = 1000
FAN_OUTS = 10_000
RESIDENTS, COMERS_AND_GOERS = 8, 3
CHURN_PER_SECOND = 200


class RestlessTable(dict[str, Any]):
    """A table of the hub's that lets others go first when it is touched."""

    def __init__(self, dice: random.Random, restlessness: float) -> None:
        super().__init__()
        self._dice = dice
        self._restlessness = restlessness

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key, default)
        self._rest()
        return found

    def __setitem__(self, key: str, value: Any) -> None:
        self._rest()
        super().__setitem__(key, value)

    def pop(self, key: str, default: Any = None) -> Any:
        self._rest()
        return super().pop(key, default)

    def values(self) -> Any:
        for value in super().values():
            yield value
            self._rest()

    def _rest(self) -> None:
        if self._dice.random() < self._restlessness:
            gevent.sleep(0)


def restless_hub(dice: random.Random, restlessness: float) -> Hub:
    """A hub whose steps are taken apart."""
    hub = Hub(max_connections_per_user=100, max_connections=1000)
    hub._pumps = RestlessTable(dice, restlessness)
    return hub


def run_together(work: list[Callable[[], object]]) -> None:
    """Every piece in a greenlet of its own; the first failure is raised."""
    gevent.joinall([gevent.spawn(piece) for piece in work], raise_error=True)


def replace(dice: random.Random) -> None:
    """Old connections of a user go while new ones come: the new ones stay, and receive."""
    hub = restless_hub(dice, 0.5)
    for number in range(INTERLEAVINGS):
        user = Party(number, f"user {number}")
        old = [registered(hub, user) for _ in range(dice.randint(1, 3))]
        new = [pump(Log(), owner=user) for _ in range(dice.randint(1, 2))]
        work: list[Callable[[], object]] = [partial(hub.remove, one) for one in old]
        work += [partial(hub.add, one) for one in new]
        work += [partial(hub.publish, {user.user_id: entries(1, 1)})] * dice.randint(0, 1)
        dice.shuffle(work)
        run_together(work)
        assert set(hub.of(user.user_id)) == set(new), f"interleaving {number}"
        for one in new:
            one.start(0, 0, 100)
        hub.publish({user.user_id: entries(1, 2)})
        for one in new:
            assert positions(take_all(one)) == [1, 2], f"interleaving {number}"
            assert hub.remove(one)
    assert hub.all() == []


def registered(hub: Hub, owner: Party) -> Watched:
    one = pump(Log(), owner=owner)
    hub.add(one)
    return one


def churn(dice: random.Random) -> None:
    """Some stay, many come and go during 10,000 fan-outs: those who stay miss nothing."""
    hub = restless_hub(dice, 0.1)
    town = Town(hub, dice)
    work: list[Callable[[], object]] = [partial(town.write, one) for one in town.residents]
    work += [town.come_and_go] * COMERS_AND_GOERS
    others = gevent.spawn(run_together, [*work, town.look_around])
    began = time.monotonic()
    run_together([town.publish])
    seconds = time.monotonic() - began
    others.get()
    for received in town.received.values():
        assert received == list(range(1, FAN_OUTS + 1))
    assert set(hub.all()) == set(town.residents)
    assert town.goings > CHURN_PER_SECOND * seconds, f"{town.goings} in {seconds} s"


class Town:
    """A hub with people who stay and people who do not."""

    def __init__(self, hub: Hub, dice: random.Random) -> None:
        self.goings = 0
        self._hub = hub
        self._dice = dice
        self._published: list[Entry] = []
        self._is_over = False
        # Half of the people have no connection that stays, so the table grows and shrinks.
        self._users = [Party(number, f"user {number}") for number in range(2 * RESIDENTS)]
        self.residents = [self._arrive(user) for user in self._users[:RESIDENTS]]
        self.received: dict[Watched, list[int]] = {one: [] for one in self.residents}

    def publish(self) -> None:
        """Fan each entry out to everybody."""
        for seq in range(1, FAN_OUTS + 1):
            self._published.append(entry(seq))
            self._hub.publish({user.user_id: self._published[-1:] for user in self._users})
            gevent.sleep(0)
        self._is_over = True

    def write(self, one: Watched) -> None:
        """What the writer of a connection does."""
        received = self.received[one]
        while len(received) < FAN_OUTS:
            assert one.stirred.wait(10), f"nothing after {len(received)}"
            one.stirred.clear()
            received += positions(one.take_entries())

    def come_and_go(self) -> None:
        """Connections beside those of the residents."""
        while not self._is_over:
            one = self._arrive(self._dice.choice(self._users))
            gevent.sleep(0)
            assert self._hub.remove(one)
            self.goings += 1

    def look_around(self) -> None:
        """What the sweep and the host's code do."""
        while not self._is_over:
            assert len(self._hub.all()) >= RESIDENTS
            assert len(self._hub.users()) >= RESIDENTS
            self._hub.sweep(lambda ids: dict.fromkeys(ids, 0))
            gevent.sleep(0.001)

    def _arrive(self, user: Party) -> Watched:
        one = Watched(user, self._entries_after, Acks())
        self._hub.add(one)
        one.start(0, 0, 2 * FAN_OUTS)
        return one

    def _entries_after(self, _owner: Party, seq: int, limit: int) -> Page:
        found = self._published[seq : seq + limit]
        return Page(found, found[-1].seq if found else seq)


GAMES = {"replace": replace, "churn": churn}

if __name__ == "__main__":
    assert is_module_patched("threading")
    GAMES[sys.argv[1]](random.Random(int(sys.argv[2])))
