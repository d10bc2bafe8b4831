"""The hook that prepares a worker: it finds the app in what is served, and says when it cannot."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from types import SimpleNamespace

import pytest
from flask import Flask
from gunicorn.config import Config
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_e2emsg.gunicorn import prepare_worker
from tests.delivery.fakes import pump
from tests.extension.apps import prepared_app, with_messaging

pytestmark = pytest.mark.usefixtures("collector_as_before")

ENDED_SECONDS = 10.0


@pytest.fixture
def app() -> Iterator[Flask]:
    app, db = prepared_app()
    yield with_messaging(app, db)
    with app.app_context():
        db.engine.dispose()


class Log:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str, *arguments: object) -> None:
        self.warnings.append(text % arguments)


def worker_of(served: object) -> SimpleNamespace:
    """As much of gunicorn's worker as the hook looks at; it is about to stop."""
    return SimpleNamespace(wsgi=served, cfg=Config(), log=Log(), alive=False, run=lambda: None)


def wait_for_the_drain() -> None:
    for thread in threading.enumerate():
        if thread.name == "e2emsg-drain":
            thread.join(ENDED_SECONDS)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda app: app,
        lambda app: ProxyFix(app),
        lambda app: ProxyFix(app.wsgi_app),
        lambda app: DispatcherMiddleware(ProxyFix(app.wsgi_app), {}),
    ],
    ids=["bare", "wrapped", "wsgi_app wrapped", "wrapped twice"],
)
def test_the_app_is_found_and_drained_when_the_worker_stops(app: Flask, wrap: object) -> None:
    assert callable(wrap)
    worker = worker_of(wrap(app))
    prepare_worker(worker)
    wait_for_the_drain()
    assert app.extensions["e2emsg"].process.hub.is_draining
    assert any("worker_class 'sync'" in text for text in worker.log.warnings)


def test_what_hides_the_app_is_told() -> None:
    worker = worker_of(lambda environ, start_response: [])
    prepare_worker(worker)
    assert "no app with messaging" in worker.log.warnings[0]


def test_the_worker_ends_after_its_sockets(app: Flask) -> None:
    worker = worker_of(app)
    prepare_worker(worker)
    wait_for_the_drain()
    hub = app.extensions["e2emsg"].process.hub
    hub.is_draining = False
    hub.add(saying_goodbye := pump())
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(worker.run)
        assert wait([running], 0.3).not_done
        hub.remove(saying_goodbye)
        running.result(ENDED_SECONDS)
