"""What a stranger can find out about somebody, and do to somebody's mailbox."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.acceptance.people import People, Person
from tests.acceptance.wire import new_content, new_id
from tests.conftest import DATABASES
from tests.security.conftest import Serve
from tests.servers import GunicornServer, wait_until

QUOTA = 100
SAMPLES = 200
LARGEST_GAP = 0.1  # of the median
LEAST_P = 0.01
ATTEMPTS = 3


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, serve: Serve) -> Iterator[GunicornServer]:
    with serve(request.param, E2EMSG_MAX_UNDELIVERED_PER_SENDER=QUOTA) as running:
        yield running


def rank_sum_p(one: Sequence[float], other: Sequence[float]) -> float:
    """The two-sided p of Mann and Whitney's test, by the normal approximation."""
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, start=1) if which == 0)
    n, m = len(one), len(other)
    u = ranks - n * (n + 1) / 2
    z = (u - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5
    return 2 * (1 - statistics.NormalDist().cdf(abs(z)))


def test_the_rank_sum_tells_equal_from_different() -> None:
    one = [float(n) for n in range(200)]
    assert rank_sum_p(one, [n + 0.5 for n in one]) > 0.9
    assert rank_sum_p(one, [n + 60.0 for n in one]) < 0.001


@pytest.fixture
def refusing(people: People) -> list[Person]:
    """People who let nobody write to them."""
    return [people.new("shut").enrol() for _ in range(20)]


Ask = Callable[[str], object]


@pytest.fixture(params=["socket", "REST"])
def ask(request: pytest.FixtureRequest, alice: Person) -> Ask:
    """Sends to somebody, and gives the answer without the message's own id."""
    client = alice.connect()

    def by_socket(user_id: str) -> object:
        answer = client.answer(client.send(user_id, CONTENT))
        return {**answer, "ref": None}

    def by_rest(user_id: str) -> object:
        body = {"id": new_id(), "to": user_id, "encrypted_content": CONTENT}
        answer = alice.rest.post("/api/messages", body)
        return answer.status, answer.body

    return by_socket if request.param == "socket" else by_rest


CONTENT = new_content()


def test_who_refuses_a_sender_looks_to_it_like_nobody(ask: Ask, refusing: list[Person]) -> None:
    refused, unknown = ask(refusing[0].id), ask("shut-nobody-0000")
    assert refused == unknown
    for _ in range(ATTEMPTS):
        gap, p = compare_times(ask, refusing)
        if gap < LARGEST_GAP and p > LEAST_P:
            return
    pytest.fail(f"the medians differ by {gap:.0%}, p = {p:.4f}")


def compare_times(ask: Ask, refusing: list[Person]) -> tuple[float, float]:
    """The gap between the medians, and the chance of such samples without a difference."""
    times: dict[bool, list[float]] = {True: [], False: []}
    names = itertools.cycle([person.id for person in refusing])
    for number in range(2 * SAMPLES):
        exists = bool((number + number // 2) % 2)  # in turn, and neither always first
        name = next(names)
        began = time.perf_counter()
        ask(name if exists else name[:-1] + "x")
        times[exists].append(time.perf_counter() - began)
    medians = [statistics.median(times[exists]) for exists in (True, False)]
    gap = abs(medians[0] - medians[1]) / min(medians)
    return gap, rank_sum_p(times[True], times[False])


def test_a_stranger_fills_no_mailbox(alice: Person, bob: Person, carol: Person) -> None:
    stranger, friend = alice.connect(), carol.connect()
    ids = [stranger.send(bob.id) for _ in range(3 * QUOTA)]
    answers = [stranger.answer(message_id) for message_id in ids]
    stored = [answer["id"] for answer in answers if answer["type"] == "accepted"]
    # What is on its way while it is counted may come on top.
    assert QUOTA <= len(stored) <= QUOTA + QUOTA // 10 + 64
    refused = [answer for answer in answers if answer["type"] == "error"]
    assert {answer["code"] for answer in refused} == {"quota_exceeded"}
    assert all(answer["retry_after"] > 0 for answer in refused)
    friends = friend.store(bob.id)["id"]
    found = [frame["id"] for frame in bob.connect().drain()]
    assert found == [*stored, friends]


def test_who_comes_for_the_messages_makes_room_for_more(alice: Person, bob: Person) -> None:
    client = alice.connect()
    for message_id in [client.send(bob.id) for _ in range(3 * QUOTA)]:
        client.answer(message_id)
    bob.connect().drain()

    def is_taken() -> bool:
        return bool(client.answer(client.send(bob.id))["type"] == "accepted")

    wait_until(is_taken, 5, lambda: "still refused")


def test_a_full_mailbox_names_its_message_in_a_group(
    alice: Person, bob: Person, carol: Person
) -> None:
    client = alice.connect()
    for message_id in [client.send(bob.id) for _ in range(3 * QUOTA)]:
        client.answer(message_id)
    items = [
        {"id": new_id(), "to": to.id, "encrypted_content": new_content()} for to in (carol, bob)
    ]
    client.send_frame({"type": "send_many", "ref": "group", "messages": items})
    assert client.error("quota_exceeded", ref="group")["id"] == items[1]["id"]
    assert carol.rest.get(f"/api/messages/{alice.id}").json["messages"] == []
