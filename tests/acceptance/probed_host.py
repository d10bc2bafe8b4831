"""The host of the acceptance tests with a probe in its worker, and a clock that can be set.

`/connections` tells how many are live in the worker.

`/lag` tells the longest time in seconds for which the loop was held up since it was last asked. A
tick of 10 ms that comes late counts by its delay, or by the CPU time that the process used
meanwhile if that is less: a busy machine delays ticks, too. `/clock?step=-3600` sets the wall
clock, as Python code sees it.
"""

from __future__ import annotations

import json
import threading
import time
from urllib.request import urlopen

from flask import Flask, Response, jsonify, request

from tests import stepped_clock
from tests.acceptance import host
from tests.servers import WebServer

PROBED = "tests.acceptance.probed_host:create_app()"
TICK_SECONDS = 0.01


class Probe:
    """Ticks, and remembers the tick that was the latest."""

    def __init__(self) -> None:
        self._longest = 0.0
        threading.Thread(target=self._tick, daemon=True).start()

    def take(self) -> float:
        """The longest delay since this was last called."""
        longest, self._longest = self._longest, 0.0
        return longest

    def _tick(self) -> None:
        while True:
            began, used = time.monotonic(), time.process_time()
            time.sleep(TICK_SECONDS)
            delay = time.monotonic() - began - TICK_SECONDS
            self._longest = max(self._longest, min(delay, time.process_time() - used))


class WallClock:
    """The time of day, as far as somebody has stepped it."""

    def __init__(self) -> None:
        self.step = 0
        stepped_clock.install(lambda: self.step)


def ask(server: WebServer, question: str) -> float:
    """What a server of this app answers to `lag`, `connections` or `clock?step=…`."""
    with urlopen(f"{server.url}/{question}") as answer:
        return float(json.load(answer))


def create_app() -> Flask:
    """The application, configured from the environment."""
    app = host.create_app()
    probe, clock = Probe(), WallClock()

    def lag() -> Response:
        return jsonify(probe.take())

    def set_clock() -> Response:
        clock.step = request.args.get("step", 0, int)
        return jsonify(clock.step)

    def connections() -> Response:
        return jsonify(host.e2emsg.connections.count())

    app.add_url_rule("/connections", view_func=connections)
    app.add_url_rule("/lag", view_func=lag)
    app.add_url_rule("/clock", view_func=set_clock)
    return app
