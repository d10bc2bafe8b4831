"""One-time tickets and the session route (docs/protocol.md 2 and 7)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.acceptance.people import People, Person
from tests.acceptance.rest import HANDSHAKE, RawAnswer, RestClient, raw_get

ATTEMPTS = 20


def ticket_of(person: Person) -> str:
    answer = person.rest.post("/api/ws-ticket", {})
    assert answer.status == 200, answer.body
    assert answer.json.keys() == {"ticket", "expires_in"}
    assert answer.json["expires_in"] == 30
    return str(answer.json["ticket"])


def upgrade(person: Person, query: str) -> RawAnswer:
    return raw_get(person.server.url, f"/api/ws?{query}", HANDSHAKE)


def test_a_ticket_opens_a_socket_of_its_user(alice: Person) -> None:
    client = alice.connect_with(query={"ticket": ticket_of(alice)})
    assert client.hello["user_id"] == alice.id


def test_a_ticket_is_good_once(alice: Person) -> None:
    ticket = ticket_of(alice)
    alice.connect_with(query={"ticket": ticket})
    assert upgrade(alice, f"ticket={ticket}").status == 401


def test_of_twenty_upgrades_with_one_ticket_one_gets_through(alice: Person) -> None:
    ticket = ticket_of(alice)
    with ThreadPoolExecutor(ATTEMPTS) as threads:
        answers = list(threads.map(lambda _: upgrade(alice, f"ticket={ticket}"), range(ATTEMPTS)))
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [101] + [401] * (ATTEMPTS - 1)


def test_a_made_up_ticket_is_refused_like_a_bad_token(alice: Person) -> None:
    made_up, bad_token = upgrade(alice, "ticket=made-up"), upgrade(alice, "token=made-up")
    assert (made_up.status, made_up.body) == (401, bad_token.body)


def test_a_ticket_beside_another_users_token_is_refused(people: People, alice: Person) -> None:
    mallory = people.new("mallory")
    query = f"ticket={ticket_of(alice)}&token={mallory.token()}"
    assert upgrade(alice, query).status == 401


def test_a_ticket_needs_a_token(alice: Person) -> None:
    answer = RestClient(alice.server.url).post("/api/ws-ticket", {})
    assert answer.status == 401


def test_the_session_names_the_user_and_the_end_of_the_token(alice: Person) -> None:
    answer = alice.rest.get("/api/session")
    assert (answer.status, answer.json["user_id"]) == (200, alice.id)
    assert answer.json["expires_at"] == alice.connect(token=alice.rest.token).hello["expires_at"]
