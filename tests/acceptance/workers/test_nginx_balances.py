"""Two servers behind one nginx, as docs/scaling.md has it: it does not matter who is where."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.acceptance.client import SocketClient
from tests.acceptance.conftest import Hosting
from tests.acceptance.people import Person
from tests.acceptance.rest import RestClient
from tests.docs.markdown import Page
from tests.nginx import Nginx
from tests.servers import GunicornServer

PUBLISHED = ("10.0.0.11:8000", "10.0.0.12:8000")
SOCKETS = 8
AT_ONCE = 1.0


@pytest.fixture(scope="module")
def environment(hosting: Hosting) -> dict[str, str]:
    return hosting.environment("postgresql", E2EMSG_SWEEP_SECONDS=60)


@pytest.fixture(scope="module")
def nginx(
    server: GunicornServer, other: GunicornServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    [block] = Page.at("docs/scaling.md").blocks("text")
    found = re.search(r"upstream messaging \{(.*)\}", block.text, re.DOTALL)
    assert found is not None
    upstream = found[1]
    for published, running in zip(PUBLISHED, (server, other), strict=True):
        assert published in upstream
        upstream = upstream.replace(published, running.url.removeprefix("http://"))
    with Nginx(upstream, tmp_path_factory.mktemp("nginx"), "75s") as balancer:
        yield balancer


def through(nginx: Nginx, person: Person) -> SocketClient:
    client = SocketClient(nginx.ws_url, person.id, query={"token": person.token()})
    person.clients.append(client)
    return client


def test_sockets_are_on_both_servers_and_all_of_them_get_every_message(
    nginx: Nginx, server: GunicornServer, other: GunicornServer, alice: Person, bob: Person
) -> None:
    theirs = [through(nginx, bob) for _ in range(SOCKETS)]
    counts = [RestClient(one.url).get(f"/who/{bob.id}").json["here"] for one in (server, other)]
    assert sum(counts) == SOCKETS
    assert min(counts) > 0
    for ours in (through(nginx, alice), through(nginx, alice)):
        stored = ours.store(bob.id)
        for client in theirs:
            client.expect("message", id=stored["id"], seconds=AT_ONCE)
