"""The browser client and the Python client, with each other, through PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_e2emsg.client import events, vault
from tests.browser.conftest import serving
from tests.browser.tabs import Devices, Tab
from tests.client.live.devices import Device
from tests.client.live.devices import Devices as PythonDevices
from tests.servers import GunicornServer, PostgresServer


@pytest.fixture(scope="module")
def server(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GunicornServer]:
    log_path = tmp_path_factory.mktemp("with-python") / "server.log"
    with serving(postgres.create_database(), log_path) as running:
        yield running


@pytest.fixture
def python(
    server: GunicornServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PythonDevices]:
    monkeypatch.setattr(vault, "SCRYPT_N", 1 << 10)
    with PythonDevices(server, tmp_path) as made:
        yield made


@pytest.fixture
def snake(python: PythonDevices) -> Device:
    return python.ready("snake")


def trouble(tab: Tab, device: Device) -> list[object]:
    """What neither should have been told of."""
    strange = (events.Gap, events.Fork, events.Replay, events.Unreadable, events.Refused)
    names = ("gap", "fork", "unreadable", "refused")
    in_browser = [event for name in names for event in tab.told(name)]
    return in_browser + [event for event in device.seen if isinstance(event, strange)]


def test_they_read_each_other_before_and_after_the_worker_is_killed(
    alice: Tab, snake: Device, server: GunicornServer
) -> None:
    for round_trip in range(2):
        for n in range(3):
            alice.call("send", snake.user_id, f"hiss {round_trip}.{n} 🐍")
            snake.until(events.Message, body=f"hiss {round_trip}.{n} 🐍")
            snake.client.send(alice.user_id, f"<b>{round_trip}.{n}</b>")
            alice.wait_for_body(f"<b>{round_trip}.{n}</b>")
        if round_trip == 0:
            server.kill_worker()
            alice.wait("disconnected")
            alice.call("send", snake.user_id, "sealed while nobody was there")
            snake.until(events.Message, body="sealed while nobody was there")
    snake.quiet()
    assert trouble(alice, snake) == []
    texts = [one.body for one in snake.history_with(alice.user_id)]
    assert texts == alice.bodies(snake.user_id)
    assert len(texts) == 13


def test_receipts_typing_and_kinds_of_messages_arrive(alice: Tab, snake: Device) -> None:
    first = alice.call("send", snake.user_id, "first")
    message = snake.until(events.Message, id=first)
    alice.wait("receipt", kind="delivered", ids=[first])
    snake.client.mark_read([message.id])
    alice.wait("receipt", kind="read", ids=[first])
    snake.client.set_typing(alice.user_id)
    alice.wait("typing", contact=snake.user_id, isActive=True)
    snake.client.send(alice.user_id, "👍", type="reaction", target=first)
    assert alice.wait("message", type="reaction")["target"] == first
    alice.call("send", snake.user_id, "", {"type": "delete", "target": first})
    assert snake.until(events.Message, type="delete").target == first


def test_both_show_the_same_safety_number(alice: Tab, snake: Device) -> None:
    alice.call("send", snake.user_id, "hello")
    snake.until(events.Message)
    shown = alice.call("safetyNumber", snake.user_id)["digits"]
    assert re.fullmatch(r"\d{60}", shown)
    assert snake.client.safety_number(alice.user_id).digits == shown


def test_each_restores_what_the_other_has_backed_up(
    alice: Tab, snake: Device, devices: Devices, server: GunicornServer, tmp_path: Path
) -> None:
    alice.call("send", snake.user_id, "from a browser")
    snake.until(events.Message)
    snake.client.send(alice.user_id, "from Python")
    alice.wait_for_body("from Python")
    texts = ["from a browser", "from Python"]

    hers = Device(server, alice.user_id, tmp_path / "alice.e2emsg")
    try:
        hers.until(events.OwnKeyChanged, known_here=False)
        hers.client.restore(alice.call("makeBackup"))
        assert [one.body for one in hers.history_with(snake.user_id)] == texts
    finally:
        hers.client.close()

    its = devices.new(snake.user_id)
    assert its.start() == "missing"
    assert its.call("restore", snake.client.make_backup()) == "ready"
    assert its.bodies(alice.user_id) == texts


def test_another_key_of_one_stops_the_other(
    alice: Tab, snake: Device, devices: Devices, python: PythonDevices
) -> None:
    alice.call("send", snake.user_id, "before")
    snake.until(events.Message)
    other = python.new("snake", "new phone")
    other.until(events.OwnKeyChanged, known_here=False)
    other.client.make_new_key()
    other.until(events.CaughtUp)
    alice.call("send", snake.user_id, "for the new key alone")
    changed = alice.wait("keychanged", contact=snake.user_id)
    assert alice.told("message", body="for the new key alone") == []
    number = other.client.safety_number(alice.user_id)
    assert changed["safetyNumber"] == number.digits
    alice.call("acceptKey", snake.user_id, number.digits)
    assert other.until(events.Message, body="for the new key alone").sender == alice.user_id
