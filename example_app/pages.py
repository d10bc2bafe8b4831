"""The landing page: what this server is and what it answers."""

import re
from dataclasses import dataclass

from flask import Blueprint, current_app, render_template
from werkzeug.routing import Rule

bp = Blueprint("pages", __name__)


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    path: str
    method: str  # of HTTP, or "WebSocket"


@bp.get("/")
def landing() -> str:
    """Say what this server is and what it answers."""
    return render_template("landing.html", endpoints=_endpoints())


def _endpoints() -> list[Endpoint]:
    """The routes of this app, so that the page cannot promise what is not there."""
    rules = [rule for rule in current_app.url_map.iter_rules() if rule.endpoint != "static"]
    sockets = {rule.rule for rule in rules if rule.websocket}
    return sorted(
        Endpoint(re.sub("<[^>]*:", "<", rule.rule), method)
        for rule in rules
        if rule.websocket or rule.rule not in sockets
        for method in _methods(rule)
    )


def _methods(rule: Rule) -> set[str]:
    return {"WebSocket"} if rule.websocket else (rule.methods or set()) - {"HEAD", "OPTIONS"}
