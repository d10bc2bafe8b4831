"""The chat, and a page that says what this server is and what it answers.

The chat is a shell without content: its modules in `static/` run the browser client, and the server
sees nothing of what they show. The policy lets a page run no script and load no style but its own.
"""

import re
from dataclasses import dataclass

from flask import Blueprint, Response, current_app, render_template
from werkzeug.routing import Rule

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # no text becomes markup, not even by mistake
        "trusted-types 'none'",
    ]
)

bp = Blueprint("pages", __name__)


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    path: str
    method: str  # of HTTP, or "WebSocket"


@bp.get("/")
def chat() -> str:
    """The chat. What it shows is made in the browser."""
    return render_template("chat.html")


@bp.get("/about")
def about() -> str:
    """Say what this server is and what it answers."""
    return render_template("about.html", endpoints=_endpoints())


@bp.after_request
def _protect(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


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
