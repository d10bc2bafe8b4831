"""What a session says at its end: tables for people, and JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .results import TIMES, Results, Spread
from .targets import TARGETS
from .workloads import FASTIFY, WORKLOADS, Workload

Format = Callable[[float], str]


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[Results, str, str], str]  # of a workload and a server


def print_tables(results: Results, titles: dict[str, str]) -> None:
    """Every workload with its servers: medians, and in brackets the smallest and the largest."""
    measured = dict.fromkeys(workload for workload, _ in results.names())
    for workload in (each for each in WORKLOADS if each.name in measured):
        print(f"\n{workload.title} ({workload.name})")
        _print_workload(results, workload, titles)


def print_targets(results: Results) -> None:
    """The figures to reach: must, aim, what was measured, and the verdict."""
    print("\nThe figures to reach (medians of ratios within a round; the smallest and the largest)")
    rows = [("figure", "must", "aim", "measured", "")]
    for target in TARGETS:
        measured = target.measure(results)
        figure = "" if measured is None else f"{_spread(measured, _short)} {target.unit}"
        verdict = target.verdict(measured)
        rows.append(
            (target.title, target.bound(target.must), target.bound(target.aim), figure, verdict)
        )
    _print_rows(rows)


def print_noise(results: Results) -> None:
    """How much of the machine others took meanwhile: what they take, nobody measured here has."""
    shares = [each.figures["others"] for each in results.measurements if "others" in each.figures]
    if spread := Spread.of(shares):
        print(f"\nOther processes took {_spread(spread, _short)} % of the processors meanwhile.")


def print_failures(results: Results) -> None:
    """The runs without figures, loudly."""
    if not results.failures:
        return
    print(f"\n!!! {len(results.failures)} RUNS FAILED AND HAVE NO FIGURES:")
    for run in results.failures:
        print(f"!!! round {run.round}, {run.workload}, {run.server}: {run.failure}")


def as_json(results: Results, machine: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, where, and how it stands against the targets."""
    targets = []
    for target in TARGETS:
        measured = target.measure(results)
        targets.append(
            {
                "title": target.title,
                "must": target.bound(target.must),
                "aim": target.bound(target.aim),
                "measured": None if measured is None else asdict(measured),
                "verdict": target.verdict(measured),
            }
        )
    return {"machine": machine, "targets": targets, **results.as_json()}


def _print_workload(results: Results, workload: Workload, titles: dict[str, str]) -> None:
    servers = [server for name, server in results.names() if name == workload.name]
    rows = [("", *(column.title for column in _columns(workload)))]
    for server in servers:
        cells = (column.cell(results, workload.name, server) for column in _columns(workload))
        rows.append((titles[server], *cells))
    used = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    _print_rows([tuple(row[i] for i in used) for row in rows])


def _columns(workload: Workload) -> tuple[_Column, ...]:
    return (
        _Column(workload.unit, _cell("rate", _count)),
        _Column(f"{TIMES} Fastify", _against_fastify),
        _Column("accepted p50, p99 ms", _latency("accepted")),
        _Column("delivered p50, p99 ms", _latency("delivered")),
        _Column("server CPU s/1,000", _cell("server_cpu", _cost)),
        _Column("PostgreSQL CPU s/1,000", _cell("postgres_cpu", _cost)),
        _Column("client CPU s/1,000", _cell("client_cpu", _cost)),
        _Column("KiB each (PSS)", _cell("kib", _short)),
        _Column("KiB each (RSS)", _cell("kib_rss", _short)),
        _Column("out of order/1,000", _disorder),
    )


def _cell(figure: str, form: Format) -> Callable[[Results, str, str], str]:
    def cell(results: Results, workload: str, server: str) -> str:
        spread = results.spread(workload, server, figure)
        return "" if spread is None else _spread(spread, form)

    return cell


def _against_fastify(results: Results, workload: str, server: str) -> str:
    figure = "rate" if results.spread(workload, server, "rate") is not None else "kib"
    ratio = results.ratio((workload, server), (workload, FASTIFY), figure)
    return "" if ratio is None or server == FASTIFY else _spread(ratio, _short)


def _latency(side: str) -> Callable[[Results, str, str], str]:
    def cell(results: Results, workload: str, server: str) -> str:
        parts = [results.spread(workload, server, f"{side}_{part}") for part in ("p50", "p99")]
        return ", ".join(_short(part.median) for part in parts if part is not None)

    return cell


def _disorder(results: Results, workload: str, server: str) -> str:
    spread = results.spread(workload, server, "order_breaks_per_1000")
    return "" if spread is None or spread.high == 0 else _short(spread.median)


def _spread(spread: Spread, form: Format) -> str:
    if spread.low == spread.high:
        return form(spread.median)
    return f"{form(spread.median)} ({form(spread.low)} to {form(spread.high)})"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _cost(value: float) -> str:
    return f"{value:.4f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(_padded(row, widths)).rstrip())


def _padded(row: Iterable[str], widths: Iterable[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
