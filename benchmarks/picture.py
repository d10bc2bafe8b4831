"""The main ratios as bars: an SVG that reads in light and in dark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from .results import TIMES, Results, Spread
from .workloads import FASTIFY, FULL_LOAD, OURS, SQLITE

LABEL, BARS, VALUE, MARGIN = 300, 380, 130, 24  # widths
ROW, BAR, TOP, BOTTOM = 30, 16, 76, 34  # heights
STYLE = """
    svg { --ink: #1f2328; --faint: #656d76; --line: #d1d9e0; --bar: #0b7285; --page: #ffffff }
    @media (prefers-color-scheme: dark) {
      svg { --ink: #e6edf3; --faint: #9198a1; --line: #3d444d; --bar: #3bc9db; --page: #0d1117 }
    }
    .page { fill: var(--page) } .bar { fill: var(--bar) }
    .line { stroke: var(--line) } .one { stroke: var(--faint); stroke-dasharray: 3 3 }
    .spread { stroke: var(--ink); stroke-width: 1.5 }
    text { font: 13px system-ui, sans-serif; fill: var(--ink) }
    .title { font-size: 16px; font-weight: 600 } .faint { fill: var(--faint); font-size: 12px }
    .value { font-variant-numeric: tabular-nums; font-weight: 600 }
"""


@dataclass(frozen=True)
class _Row:
    title: str
    ratio: Spread


def draw(results: Results, note: str) -> str:
    """The picture; `note` says where and how it was measured."""
    rows = list(_rows(results))
    width, height = MARGIN + LABEL + BARS + VALUE, TOP + ROW * len(rows) + BOTTOM
    scale = BARS / max([1.0, *(row.ratio.high for row in rows)])
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
        _text(MARGIN, 32, "flask_e2emsg against Fastify: how many times better", "title"),
        _text(MARGIN, 52, note, "faint"),
        *(part for n, row in enumerate(rows) for part in _bar(row, TOP + ROW * n, scale)),
        *_line_at_one(MARGIN + LABEL + scale, height - BOTTOM),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _rows(results: Results) -> Iterator[_Row]:
    fastify = (FULL_LOAD, FASTIFY)
    wanted = (
        ("messages/s, 32 pairs, window 8", results.ratio((FULL_LOAD, OURS), fastify, "rate")),
        ("the same on SQLite", results.ratio((FULL_LOAD, SQLITE), fastify, "rate")),
        ("messages/s, 32 pairs, window 1", _better(results, "pairs-w1", "rate")),
        ("messages/s of 4 KiB", _better(results, "pairs-4k", "rate")),
        ("messages/s, one quiet pair", _better(results, "quiet", "rate")),
        ("one sender to 1,000 recipients", _better(results, "fanout-1000", "rate")),
        ("backlog of 10,000", _better(results, "drain", "rate")),
        ("handshakes/s", _better(results, "handshakes", "rate")),
        ("time to delivery, p99, window 8", _less(results, FULL_LOAD, "delivered_p99")),
        ("server's processor time per message", _less(results, FULL_LOAD, "server_cpu")),
        ("PostgreSQL's processor time per message", _less(results, FULL_LOAD, "postgres_cpu")),
        (
            "memory per idle connection",
            _less(results, "idle-5000", "kib") or _less(results, "idle-1000", "kib"),
        ),
    )
    for title, ratio in wanted:
        if ratio is not None:
            yield _Row(title, ratio)


def _better(results: Results, workload: str, figure: str) -> Spread | None:
    return results.ratio((workload, OURS), (workload, FASTIFY), figure)


def _less(results: Results, workload: str, figure: str) -> Spread | None:
    return results.ratio((workload, OURS), (workload, FASTIFY), figure, inverse=True)


def _bar(row: _Row, top: float, scale: float) -> Iterator[str]:
    left, middle, ratio = MARGIN + LABEL, top + ROW / 2, row.ratio
    yield _text(left - 12, middle + 4, row.title, "label", anchor="end")
    yield (
        f'<rect class="bar" x="{left}" y="{middle - BAR / 2}" '
        f'width="{ratio.median * scale:.1f}" height="{BAR}" rx="2"/>'
    )
    low, high = left + ratio.low * scale, left + ratio.high * scale
    if ratio.low < ratio.high:
        yield _line(low, middle, high, middle, "spread")
    yield _text(left + ratio.high * scale + 8, middle + 4, f"{ratio.median:.2g} {TIMES}", "value")


def _line_at_one(x: float, bottom: float) -> Iterator[str]:
    yield _line(x, TOP - 4, x, bottom + 4, "one")
    yield _text(x, bottom + 20, "Fastify = 1", "faint", anchor="middle")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}"/>'


def _text(x: float, y: float, text: str, kind: str, *, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
