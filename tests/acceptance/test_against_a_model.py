"""A random game of several people against the server, compared with a model that fits on a page.

Four users with two connections each, on two workers: they send, send again, mark, vanish and
resume, and workers are killed. Whatever they did, the logs, the receipts, the histories and what
every connection was given must be what the model says (docs/protocol.md 4).

A failure names its seed: MODEL_SEED=<seed> plays the same moves again.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.conftest import DATABASES, Hosting
from tests.acceptance.model import Letter, Model, receipts_in
from tests.acceptance.people import People, Person
from tests.acceptance.player import Packet, Player, written_by
from tests.acceptance.wire import Frame, new_id
from tests.servers import GunicornServer

USERS, CONNECTIONS = 4, 2
ROUNDS, MOVES_IN_A_ROUND = 12, 24
ROUNDS_WITH_A_KILL = (4, 8)
MOST_IN_A_BURST = 12
SETTLE_SECONDS = 20.0
POLL_SECONDS = 0.02


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, hosting: Hosting) -> Iterator[GunicornServer]:
    env = hosting.environment(request.param, E2EMSG_MAX_IN_FLIGHT=24, E2EMSG_SWEEP_SECONDS=0.2)
    with GunicornServer(env=env, log_path=hosting.log_path(), workers=2) as running:
        yield running


@pytest.fixture
def people(server: GunicornServer, _quiet_log: None) -> Iterator[People]:
    with People(server) as crowd:
        yield crowd
        crowd.abandon_the_lost()


class Game:
    """The players, their moves, and the comparison."""

    def __init__(self, server: GunicornServer, people: list[Person], dice: random.Random) -> None:
        self.model = Model()
        self.mailboxes: dict[str, list[Frame]] = {person.id: [] for person in people}
        self._server = server
        self._people = people
        self._dice = dice
        self._players = [
            Player(person, self.model, dice) for person in people for _ in range(CONNECTIONS)
        ]
        self._packets: dict[str, list[tuple[str, Packet]]] = {person.id: [] for person in people}
        self._epochs = {one.id: self._sync(one, None)["epoch"] for one in people}
        self._moves: dict[Callable[[Player], None], int] = {
            self._burst: 40,
            self._send_together: 10,
            self._contradict: 3,
            lambda player: player.ack(all_of_it=False): 15,
            lambda player: player.ack(all_of_it=True): 15,
            lambda player: player.read(5): 10,
            Player.drop: 4,
            Player.leave: 3,
        }

    def play(self, *, with_a_kill: bool) -> None:
        """Make moves as fast as the connections take them."""
        kill_at = self._dice.randrange(MOVES_IN_A_ROUND) if with_a_kill else None
        for number in range(MOVES_IN_A_ROUND):
            if number == kill_at:
                self._server.kill_worker()
                for player in self._players:
                    player.may_have_lost_its_server = True
            [move] = self._dice.choices(list(self._moves), list(self._moves.values()))
            move(self._dice.choice(self._players))
            # Some rest, so that moves meet a server that is busy, and one that is not.
            for player in self._dice.sample(self._players, self._dice.choice([0, 1, 8])):
                player.take()

    def settle(self) -> None:
        """Wait until the server has done everything and everybody has what they can have."""
        eager = self._dice.sample(self._people, USERS // 2)  # the others leave entries unacked
        deadline = time.monotonic() + SETTLE_SECONDS
        self._take(eager)
        while not all(player.is_answered for player in self._players):
            assert time.monotonic() < deadline, f"unanswered: {self._story()}"
            self._take(eager)
        self._repeat_lost_marks()
        while not self._is_settled():
            assert time.monotonic() < deadline, f"not settled: {self._story()}"
            self._take(eager)
            self._repeat_lost_marks()
            time.sleep(POLL_SECONDS)
        for player in self._players:
            player.settled()

    def compare(self) -> None:
        """Everything that can be seen against what must be."""
        for person in self._people:
            self.model.check_log(person.id, self.mailboxes)
            self.model.check_rest(person, self.mailboxes)
        for player in self._players:
            log = self.mailboxes[player.person.id]
            for seq, frame in player.log.items():
                assert frame == log[seq - 1], f"arrived: {frame}, in the log: {log[seq - 1]}"

    def read_again(self) -> None:
        """The logs from the first position: nothing that was there has changed."""
        for person in self._people:
            before, self.mailboxes[person.id] = self.mailboxes[person.id], []
            self._read_on(person)
            assert self.mailboxes[person.id] == before

    # Moves.

    def _burst(self, player: Player) -> None:
        """Several letters without waiting, some of them twice or more."""
        person, packets = player.person, self._packets[player.person.id]
        recipients = self._dice.sample(self._people, self._dice.choice([1, 2, USERS]))
        for _ in range(self._dice.randint(1, MOST_IN_A_BURST)):
            if packets and self._dice.random() < 0.3:
                ref, letters = self._dice.choice(packets[-MOST_IN_A_BURST:])
            else:
                letters = written_by(person, recipients, self._dice)
                ref = letters[0].id
                packets.append((ref, letters))
            player.send(letters, ref)

    def _send_together(self, player: Player) -> None:
        letters, ref = written_by(player.person, self._people, self._dice, together=True), new_id()
        self._packets[player.person.id].append((ref, letters))
        player.send(letters, ref)

    def _contradict(self, player: Player) -> None:
        mine: list[Letter] = [
            one for one in self.model.letters.values() if one.sender == player.person.id
        ]
        if mine:
            player.contradict(self._dice.choice(mine))

    # Settling.

    def _take(self, eager: list[Person]) -> None:
        for player in self._players:
            player.take()
            if player.person in eager:
                player.ack(all_of_it=True)

    def _repeat_lost_marks(self) -> None:
        """What was sent without an answer over a connection that is gone may not have come."""
        for player in self._players:
            if player.may_have_lost_marks:
                player.may_have_lost_marks = False
                player.repeat_reads()
                seq = self.model.acked[player.person.id]
                assert player.person.rest.post("/api/sync/ack", {"seq": seq}).status == 200

    def _is_settled(self) -> bool:
        for person in self._people:
            self._read_on(person)
        return (
            all(
                player.is_answered and player.has_all(len(self.mailboxes[player.person.id]))
                for player in self._players
            )
            and all(
                self.model.receipts_of(user, self.mailboxes) <= receipts_in(log)
                for user, log in self.mailboxes.items()
            )
            and all(
                self.model.shows_marks_on_notes(person, self.mailboxes[person.id])
                for person in self._people
            )
        )

    def _read_on(self, person: Person) -> None:
        """Add what the log has beyond what is known of it."""
        log = self.mailboxes[person.id]
        while True:
            page = self._sync(person, f"{self._epochs[person.id]}:{len(log)}")
            log += page["entries"]
            assert [entry["seq"] for entry in log] == list(range(1, len(log) + 1)), "holes"
            if len(log) >= page["head"]:
                return

    def _sync(self, person: Person, cursor: str | None) -> Frame:
        page: Frame = person.rest.get("/api/sync", cursor=cursor, limit=100).json
        assert page["reset"] is False, page["reset"]
        return page

    def _story(self) -> str:
        heads = {user: len(log) for user, log in self.mailboxes.items()}
        return f"heads {heads}\n" + "\n".join(player.story() for player in self._players)


def test_whatever_they_do_everybody_has_what_the_model_says(
    server: GunicornServer, people: People
) -> None:
    seed = int(os.environ.get("MODEL_SEED") or secrets.randbits(32))
    try:
        game = Game(
            server,
            [people.new(name).enrol() for name in ("ann", "ben", "cai", "dee")],
            random.Random(seed),
        )
        for number in range(ROUNDS):
            game.play(with_a_kill=number in ROUNDS_WITH_A_KILL)
            game.settle()
            game.compare()
        game.read_again()
    except BaseException as failure:
        failure.add_note(f"play it again with MODEL_SEED={seed}")
        raise
