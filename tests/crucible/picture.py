"""Throughput and latency over time, with the faults as bands: an SVG for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from tests.crucible.evidence import Fault
from tests.crucible.figures import timeline
from tests.crucible.trial import Trial

WIDTH, MARGIN, LEFT = 1100, 24, 70
TITLE, NAMES, CHART, GAP, BOTTOM = 60, 120, 150, 40, 40  # heights
LEAST_BAND = 2.0
FLOOR, CEILING = 0.001, 60.0  # of the logarithmic latencies, in seconds
STYLE = """
    svg { --ink: #1f2328; --faint: #656d76; --line: #d1d9e0; --page: #ffffff;
      --one: #0b7285; --two: #e8590c; --band: #ffc9c9 }
    @media (prefers-color-scheme: dark) {
      svg { --ink: #e6edf3; --faint: #9198a1; --line: #3d444d; --page: #0d1117;
        --one: #3bc9db; --two: #ffa94d; --band: #5c2b2b }
    }
    .page { fill: var(--page) } .band { fill: var(--band); opacity: .6 }
    .line { stroke: var(--line) } polyline { fill: none; stroke-width: 1.5 }
    .one { stroke: var(--one) } .two { stroke: var(--two) }
    text { font: 12px system-ui, sans-serif; fill: var(--ink) }
    .title { font-size: 16px; font-weight: 600 } .faint { fill: var(--faint) }
    .name { font-size: 10px; fill: var(--faint) }
"""


def draw(trial: Trial) -> str:
    """The picture of one trial."""
    evidence = trial.evidence
    seconds = timeline(evidence)
    height = TITLE + NAMES + 2 * CHART + GAP + BOTTOM
    upper, lower = TITLE + NAMES, TITLE + NAMES + CHART + GAP
    scale = (WIDTH - LEFT - MARGIN) / len(seconds)
    most = max(1, *(max(one.accepted, one.received) for one in seconds))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
        _text(MARGIN, 30, f"{trial.profile.name} on {trial.database}, seed {trial.seed}", "title"),
        *_bands(evidence.faults, evidence.began, scale, upper, lower + CHART),
        _text(LEFT, upper - 6, "per second: accepted (blue), received (orange)", "faint"),
        *_frame(upper, (0, most), "{:g}"),
        _curve([_linear(one.accepted, most) for one in seconds], scale, upper, "one"),
        _curve([_linear(one.received, most) for one in seconds], scale, upper, "two"),
        _text(LEFT, lower - 6, "p99: time to ack (blue), to delivery (orange)", "faint"),
        *_frame(lower, (FLOOR, CEILING), "{:g} s"),
        _curve([_logarithmic(one.ack_p99) for one in seconds], scale, lower, "one"),
        _curve([_logarithmic(one.delivery_p99) for one in seconds], scale, lower, "two"),
        *_clock(len(seconds), scale, height - BOTTOM + 20),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _bands(
    faults: Sequence[Fault], began: float, scale: float, top: float, bottom: float
) -> Iterator[str]:
    for fault in faults:
        left = LEFT + (fault.began - began) * scale
        width = max(LEAST_BAND, (fault.ended - fault.began) * scale)
        yield (
            f'<rect class="band" x="{left:.1f}" y="{top}" width="{width:.1f}" '
            f'height="{bottom - top}"/>'
        )
        yield (
            f'<text class="name" x="0" y="0" '
            f'transform="translate({left + 4:.1f} {top - 24}) rotate(-60)">'
            f"{escape(fault.name)}</text>"
        )


def _frame(top: float, ends: tuple[float, float], form: str) -> Iterator[str]:
    for share, value in zip((0.0, 1.0), ends, strict=True):
        y = top + CHART * (1 - share)
        yield f'<line class="line" x1="{LEFT}" y1="{y}" x2="{WIDTH - MARGIN}" y2="{y}"/>'
        yield _text(LEFT - 8, y + 4, form.format(value), "faint", anchor="end")


def _curve(shares: Sequence[float | None], scale: float, top: float, kind: str) -> str:
    points = [
        f"{LEFT + (place + 0.5) * scale:.1f},{top + CHART * (1 - share):.1f}"
        for place, share in enumerate(shares)
        if share is not None
    ]
    return f'<polyline class="{kind}" points="{" ".join(points)}"/>'


def _linear(value: float, most: float) -> float:
    return value / most


def _logarithmic(value: float | None) -> float | None:
    if value is None:
        return None
    inside = min(max(value, FLOOR), CEILING)
    return math.log(inside / FLOOR) / math.log(CEILING / FLOOR)


def _clock(seconds: int, scale: float, y: float) -> Iterator[str]:
    step = next(one for one in (5, 10, 30, 60, 300, 3600) if seconds / one <= 20 or one == 3600)
    for second in range(0, seconds + 1, step):
        yield _text(LEFT + second * scale, y, f"{second} s", "faint", anchor="middle")


def _text(x: float, y: float, text: str, kind: str, *, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
