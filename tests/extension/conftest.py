"""Apps in this process whose database connections are closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask import Flask


@pytest.fixture
def closing() -> Iterator[Callable[[Flask], Flask]]:
    """Takes an app; closes its connections when the test ends."""
    apps: list[Flask] = []

    def take(app: Flask) -> Flask:
        apps.append(app)
        return app

    yield take
    for app in apps:
        state = app.extensions.get("e2emsg")
        if state is not None and state._process is not None:
            state.process.database.dispose()
        with app.app_context():
            for engine in app.extensions["sqlalchemy"].engines.values():
                engine.dispose()
